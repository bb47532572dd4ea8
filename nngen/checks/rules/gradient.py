"""Every expert and the gate have weights to train, receive a gradient, and are stepped by the optimizer."""

from __future__ import annotations

from typing import ClassVar

from nngen.checks.context import CheckContext, groups
from nngen.checks.rule import Invalid, refuse
from nngen.checks.rules.sample_nets import mixture_source, net_source, routed_source
from nngen.types import Outcome

__all__ = ["Gradient"]


class Gradient:
    """Refuses a mixture of which some part does not learn; a net without experts is one part."""

    name: ClassVar[str] = "gradient"
    VALID: ClassVar[tuple[str, ...]] = (net_source(), mixture_source(), routed_source())
    INVALID: ClassVar[tuple[Invalid, ...]] = (
        Invalid(
            source=mixture_source(forward="return self.experts[0](x) * self.gate(x).softmax(1)[:, :1]"),
            message="expert 1 (Sequential) received no gradient",
            outcome=Outcome.NO_GRADIENT,
        ),
        Invalid(
            source=mixture_source(forward="return sum(e(x) for e in self.experts) * self.gate(x).detach()[:, :1]"),
            message="the gate received no gradient",
            outcome=Outcome.NO_GRADIENT,
        ),
        Invalid(
            source=routed_source(chosen="self.experts[min(i, 6)]"),
            message="expert 7 (Sequential) received no gradient",
            outcome=Outcome.NO_GRADIENT,
        ),
        Invalid(
            source=mixture_source(init="self.experts[0].requires_grad_(False)"),
            message="expert 0 (Sequential) has no trainable parameter",
            outcome=Outcome.NO_GRADIENT,
        ),
        Invalid(
            source=mixture_source(setup="self.optimizer = torch.optim.SGD(self.experts.parameters(), lr=prm['lr'])"),
            message="the gate received a gradient but was not changed",
            outcome=Outcome.NO_GRADIENT,
        ),
    )

    def check(self, bench: CheckContext) -> None:
        assert bench.net is not None
        assert bench.step is not None
        for name, part in groups(bench.net).items():
            if not any(parameter.requires_grad for parameter in part.parameters()):
                raise self._refuse(f"{name} has no trainable parameter")
            if not bench.step.gradient[name]:
                raise self._refuse(f"{name} received no gradient: its output does not reach the loss")
            if not bench.step.changed[name]:
                raise self._refuse(
                    f"{name} received a gradient but was not changed: give its parameters to the optimizer"
                )

    def _refuse(self, message: str) -> Exception:
        return refuse(Outcome.NO_GRADIENT, self.name, message)
