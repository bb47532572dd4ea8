"""``learn`` runs on two small batches and changes the parameters to finite values."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from nngen.checks.bench import Bench, StepRecord, groups
from nngen.checks.border import border
from nngen.checks.rule import Invalid, refuse
from nngen.checks.samples import mixture_source, net_source
from nngen.types import Outcome

__all__ = ["Step"]


class Step:
    """Refuses a net that ``learn`` leaves as it was, breaks, or fills with NaN."""

    name: ClassVar[str] = "step"
    VALID: ClassVar[tuple[str, ...]] = (net_source(), mixture_source())
    INVALID: ClassVar[tuple[Invalid, ...]] = (
        Invalid(
            source=net_source(loss="continue"),
            message="learn changed no parameter",
            outcome=Outcome.NO_GRADIENT,
        ),
        Invalid(source=net_source(loss="raise OSError('x')"), message="OSError", outcome=Outcome.CRASHED, line=23),
        Invalid(source=net_source(loss="loss = loss / 0"), message="not finite", outcome=Outcome.NON_FINITE),
    )

    def check(self, bench: Bench) -> None:
        assert bench.net is not None
        net = bench.net
        parts = {name: _trainable(part) for name, part in groups(net).items()}
        before = {name: [tensor.detach().clone() for tensor in tensors] for name, tensors in parts.items()}
        gradient = dict.fromkeys(parts, False)
        hooks = [
            tensor.register_post_accumulate_grad_hook(_Watch(gradient, name))  # type: ignore[no-untyped-call]
            for name, tensors in parts.items()
            for tensor in tensors
        ]
        batches = [(bench.images(name), bench.labels(name)) for name in ("first", "second")]
        net.train()
        with border(self.name, Outcome.CRASHED, bench.path, "learn(train_data) ran on two batches of 4"):
            net.learn(batches)  # type: ignore[operator]
        for hook in hooks:
            hook.remove()
        self._check_finite(net)
        changed = {
            name: any(not torch.equal(old, new) for old, new in zip(before[name], tensors, strict=True))
            for name, tensors in parts.items()
        }
        if not any(changed.values()):
            raise refuse(Outcome.NO_GRADIENT, self.name, "learn changed no parameter: does it step its optimizer?")
        bench.step = StepRecord(changed=changed, gradient=gradient)

    def _check_finite(self, net: nn.Module) -> None:
        for name, tensor in net.named_parameters():
            if not bool(torch.isfinite(tensor).all()):
                message = f"parameter {name} is not finite after two small batches: lower lr, or clip the gradient"
                raise refuse(Outcome.NON_FINITE, self.name, message)


class _Watch:
    """Marks a group once one of its parameters received a gradient other than zero."""

    def __init__(self, gradient: dict[str, bool], group: str) -> None:
        self._gradient = gradient
        self._group = group

    def __call__(self, parameter: Tensor) -> None:
        if not self._gradient[self._group] and parameter.grad is not None:
            self._gradient[self._group] = bool(parameter.grad.any())


def _trainable(part: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in part.parameters() if parameter.requires_grad]
