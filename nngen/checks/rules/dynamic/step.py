"""Rule ``step``: ``learn`` runs on small batches and changes the parameters to finite values."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nngen.checks.candidate_net import set_mode, set_up
from nngen.checks.context import BATCH, EXPERT, CheckContext, StepRecord, groups
from nngen.checks.guard import guard
from nngen.checks.rule import DynamicRule, Invalid, fail
from nngen.checks.rules.sample_nets import mixture_source, net_source, routed_source
from nngen.types import Outcome

_DIGESTED = 4096


class Step(DynamicRule):
    """Refuses a net whose ``learn`` raises, changes no parameter, or leaves one that is not finite."""

    name = "step"
    order = 60
    VALID = (net_source(), mixture_source(), routed_source())
    INVALID = (
        Invalid(source=net_source(loss="continue"), message="learn changed no parameter", outcome=Outcome.NO_GRADIENT),
        Invalid(source=net_source(loss="raise OSError('x')"), message="OSError", outcome=Outcome.CRASHED, line=23),
        Invalid(source=net_source(loss="loss = loss / 0"), message="not finite", outcome=Outcome.NON_FINITE),
    )

    def check(self, context: CheckContext) -> None:
        assert context.net is not None
        net = context.net
        parts = {name: _trainable(part) for name, part in groups(net).items()}
        before = {name: [tensor.detach().clone() for tensor in tensors] for name, tensors in parts.items()}
        digest = _digest(net, context.question)
        gradient = dict.fromkeys(parts, False)
        hooks = [
            tensor.register_post_accumulate_grad_hook(_GradientHook(gradient, name))  # type: ignore[no-untyped-call]
            for name, tensors in parts.items()
            for tensor in tensors
        ]
        self._learn(context, net, ("first", "second"))
        changed = {name: _differ(before[name], tensors) for name, tensors in parts.items()}
        if not any(changed.values()):
            raise fail(Outcome.NO_GRADIENT, self.name, "learn changed no parameter: does it step its optimizer?")
        self._turn_gate(context, net, gradient)
        for hook in hooks:
            hook.remove()
        changed |= {name: _differ(before[name], tensors) for name, tensors in parts.items() if not changed[name]}
        context.digests = digest, _digest(net, context.question)
        context.step = StepRecord(changed=changed, gradient=gradient)

    def _learn(self, context: CheckContext, net: nn.Module, names: Sequence[str]) -> None:
        drawn = {name: name == "second" for name in names}
        batches = [(context.images(name, drawn=new), context.labels(name, drawn=new)) for name, new in drawn.items()]
        set_mode(net, context.path, training=True)
        number = "two batches" if len(names) == 2 else "a batch"
        with guard(self.name, Outcome.CRASHED, context.path, f"learn(train_data) ran on {number} of {BATCH}"):
            net.learn(batches)  # type: ignore[operator]
        self._check_finite(net)

    def _turn_gate(self, context: CheckContext, net: nn.Module, gradient: Mapping[str, bool]) -> None:
        """Train with the gate's outputs permuted until every expert has received a gradient.

        The experts that an untrained gate chooses are chance, and without noise may be the same few for every image.
        Rolling the rows of the gate's last layer by one gives each expert the scores of another: after as many
        rolls as there are experts, each has had the scores of every other.
        """
        gate, experts = getattr(net, "gate", None), [name for name in gradient if name.startswith(EXPERT)]
        if not isinstance(gate, nn.Module):
            return
        for turn in range(1, len(experts)):
            if all(gradient[name] for name in experts):
                return
            with torch.no_grad():
                for values in (*gate.parameters(), *gate.buffers()):
                    if values.dim() and len(values) == len(experts):
                        values.copy_(values.roll(1, dims=0))
            set_up(net, context.path, dict(context.hyperparameters))
            self._learn(context, net, (f"turn {turn}",))

    def _check_finite(self, net: nn.Module) -> None:
        for name, tensor in net.named_parameters():
            if not bool(torch.isfinite(tensor).all()):
                message = f"parameter {name} is not finite after a small batch or two: lower lr, or clip the gradient"
                raise fail(Outcome.NON_FINITE, self.name, message)


class _GradientHook:
    """Records that a parameter of a group received a gradient other than zero."""

    def __init__(self, gradient: dict[str, bool], group: str) -> None:
        self._gradient = gradient
        self._group = group

    def __call__(self, parameter: Tensor) -> None:
        if not self._gradient[self._group] and parameter.grad is not None:
            self._gradient[self._group] = bool(parameter.grad.any())


def _digest(net: nn.Module, question: bytes) -> bytes:
    """Hash the first values of each parameter; a step of an optimizer changes nearly all of them."""
    if not question:
        return b""
    found = hashlib.blake2b(question, digest_size=len(question))
    for parameter in net.parameters():
        found.update(parameter.detach().flatten()[:_DIGESTED].cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return found.digest()


def _differ(before: Sequence[Tensor], after: Sequence[Tensor]) -> bool:
    return any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


def _trainable(part: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in part.parameters() if parameter.requires_grad]
