"""Rule ``shape``: ``forward`` returns ``(B, classes)`` in train and in eval mode, whatever the batch."""

from __future__ import annotations

import torch

from nngen.checks.candidate_net import logits, set_mode
from nngen.checks.context import BATCH, CheckContext
from nngen.checks.rule import DynamicRule, Invalid
from nngen.checks.rules.sample_nets import net_source
from nngen.types import Outcome


class OutputShape(DynamicRule):
    """Refuses a net whose output is not a tensor ``(B, classes)``; the second batch has another size."""

    name = "shape"
    order = 40
    VALID = (net_source(), net_source(forward="return self.head(x) * 2"))
    INVALID = (
        Invalid(source=net_source(forward="return self.head(x)[:, :-1]"), message="(4, 9)", outcome=Outcome.SHAPE),
        Invalid(source=net_source(forward="return [self.head(x)]"), message="list", outcome=Outcome.SHAPE),
        Invalid(
            source=net_source(forward="return self.head(x).view(4, 10)"),
            message="batch of 3",
            outcome=Outcome.SHAPE,
            line=28,
        ),
        Invalid(
            source=net_source(forward="return self.head(x) if self.training else self.head(x).T"),
            message="eval mode",
            outcome=Outcome.SHAPE,
        ),
        Invalid(
            source=net_source(forward="return self.head(x[:, :, 1:])"),
            message="RuntimeError: mat1 and mat2",
            outcome=Outcome.SHAPE,
            line=28,
        ),
    )

    def check(self, context: CheckContext) -> None:
        assert context.net is not None
        set_mode(context.net, context.path, training=True)
        context.outputs = logits(context.net, context.images("train"), context.path, classes=context.classes)
        set_mode(context.net, context.path, training=False)
        context.question = context.ask()
        images = context.images("eval", BATCH - 1, drawn=True)
        with torch.no_grad():
            context.drawn = logits(context.net, images, context.path, classes=context.classes)
