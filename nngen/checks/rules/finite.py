"""An untrained net gives finite logits and a finite loss."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch.nn.functional import cross_entropy

from nngen.checks.context import CheckContext
from nngen.checks.guard import border
from nngen.checks.rule import Invalid, refuse
from nngen.checks.rules.sample_nets import net_source
from nngen.types import Outcome

__all__ = ["Finite"]


class Finite:
    """Refuses a net whose logits or cross-entropy hold NaN or infinity."""

    name: ClassVar[str] = "finite"
    VALID: ClassVar[tuple[str, ...]] = (net_source(),)
    INVALID: ClassVar[tuple[Invalid, ...]] = (
        Invalid(source=net_source(forward="return self.head(x) / 0"), message="not finite", outcome=Outcome.NON_FINITE),
        Invalid(
            source=net_source(forward="return self.head(x) * float('nan')"),
            message="not finite",
            outcome=Outcome.NON_FINITE,
        ),
        Invalid(source=net_source(forward="return self.head(x).long()"), message="no logits", outcome=Outcome.SHAPE),
    )

    def check(self, bench: CheckContext) -> None:
        assert bench.outputs is not None
        outputs = bench.outputs.detach()
        if not outputs.is_floating_point():
            message = f"forward returned {outputs.dtype}; that is no logits: return a floating-point tensor"
            raise refuse(Outcome.SHAPE, self.name, message)
        with border(self.name, Outcome.CRASHED, bench.path, "the loss was computed"):
            loss = cross_entropy(outputs.float(), bench.labels("train"))
            finite = bool(torch.isfinite(outputs).all()) and bool(torch.isfinite(loss))
        if not finite:
            raise refuse(Outcome.NON_FINITE, self.name, "logits on random images are not finite before any training")
