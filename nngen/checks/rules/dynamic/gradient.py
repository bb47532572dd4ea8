"""Rule ``gradient``: every expert that is not frozen and the gate receive a gradient and change."""

from __future__ import annotations

from nngen.checks.context import CheckContext, groups
from nngen.checks.rule import DynamicRule, Invalid, fail
from nngen.checks.rules.sample_nets import mixture_source, net_source, routed_source
from nngen.types import Outcome


class Gradient(DynamicRule):
    """Refuses a mixture with a part that does not learn; a net without experts is one part."""

    name = "gradient"
    order = 70
    VALID = (
        net_source(),
        mixture_source(),
        routed_source(),
        mixture_source(init="self.frozen = True; self.experts.requires_grad_(False)"),
    )
    INVALID = (
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

    def check(self, context: CheckContext) -> None:
        assert context.net is not None
        assert context.step is not None
        for name, part in groups(context.net).items():
            if not any(parameter.requires_grad for parameter in part.parameters()):
                message = f"{name} has no trainable parameter"
            elif not context.step.gradient[name]:
                message = f"{name} received no gradient: its output does not reach the loss"
            elif not context.step.changed[name]:
                message = f"{name} received a gradient but was not changed: give its parameters to the optimizer"
            else:
                continue
            raise fail(Outcome.NO_GRADIENT, self.name, message)
