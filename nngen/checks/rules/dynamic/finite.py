"""Rule ``finite``: an untrained net returns finite logits and a finite loss."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

from nngen.checks.context import CheckContext
from nngen.checks.guard import guard
from nngen.checks.rule import DynamicRule, Invalid, fail
from nngen.checks.rules.sample_nets import net_source
from nngen.types import Outcome


class Finite(DynamicRule):
    """Refuses a net whose logits or cross-entropy hold NaN or infinity."""

    name = "finite"
    order = 50
    VALID = (net_source(),)
    INVALID = (
        Invalid(source=net_source(forward="return self.head(x) / 0"), message="not finite", outcome=Outcome.NON_FINITE),
        Invalid(
            source=net_source(forward="return self.head(x) * float('nan')"),
            message="not finite",
            outcome=Outcome.NON_FINITE,
        ),
        Invalid(source=net_source(forward="return self.head(x).long()"), message="not logits", outcome=Outcome.SHAPE),
    )

    def check(self, context: CheckContext) -> None:
        assert context.outputs is not None
        outputs = context.outputs.detach()
        if not outputs.is_floating_point():
            message = f"forward returned {outputs.dtype}; these are not logits: return a floating-point tensor"
            raise fail(Outcome.SHAPE, self.name, message)
        with guard(self.name, Outcome.CRASHED, context.path, "the loss was computed"):
            loss = cross_entropy(outputs.float(), context.labels("train"))
            finite = bool(torch.isfinite(outputs).all()) and bool(torch.isfinite(loss))
        if not finite:
            raise fail(Outcome.NON_FINITE, self.name, "logits on random images are not finite before any training")
