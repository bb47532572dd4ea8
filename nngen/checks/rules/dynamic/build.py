"""Rule ``build``: ``Net(in_shape, out_shape, prm, device)`` and ``train_setup(prm)`` run and leave ``prm`` as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nngen.checks.candidate_net import build_net, set_up
from nngen.checks.context import CheckContext
from nngen.checks.prm import changed_keys
from nngen.checks.rule import DynamicRule, Invalid, fail
from nngen.checks.rules.sample_nets import net_source
from nngen.text import one_line
from nngen.types import Outcome


class Build(DynamicRule):
    """Refuses a net that cannot be built or set up, or that changes the caller's ``prm``."""

    name = "build"
    order = 30
    VALID = (net_source(), net_source(init="prm.get('x', 1)"))
    INVALID = (
        Invalid(
            source=net_source(init="raise ValueError('too small')"),
            message="ValueError: too small",
            outcome=Outcome.CRASHED,
            line=11,
        ),
        Invalid(source=net_source(init="prm['width']"), message="KeyError: 'width'", outcome=Outcome.CRASHED, line=11),
        Invalid(
            source=net_source(init="prm['width'] = 3"), message="Net.__init__ changed prm", outcome=Outcome.CONTRACT
        ),
        Invalid(
            source=net_source(setup="prm.setdefault('decay', 0.1)"),
            message="train_setup changed prm: decay",
            outcome=Outcome.CONTRACT,
        ),
        Invalid(source=net_source(setup="prm['lr'] = 0.5"), message="changed prm: lr", outcome=Outcome.CONTRACT),
        Invalid(source=net_source(setup="self.missing"), message="AttributeError", outcome=Outcome.CRASHED, line=17),
        Invalid(
            source=net_source(init="self.requires_grad_(False)"),
            message="no trainable parameter",
            outcome=Outcome.NO_GRADIENT,
        ),
    )

    def check(self, context: CheckContext) -> None:
        assert context.module is not None
        prm = dict(context.hyperparameters)
        net = build_net(
            context.module, context.path, shape=context.shape, classes=context.classes, prm=prm, device=context.device
        )
        _unchanged(context.hyperparameters, prm, "Net.__init__")
        set_up(net, context.path, prm)
        _unchanged(context.hyperparameters, prm, "Net.train_setup")
        context.net = net


def _unchanged(before: Mapping[str, Any], after: Mapping[str, Any], who: str) -> None:
    keys = changed_keys(before, after)
    if keys:
        names = one_line(", ".join(keys[:5]), 100)
        message = f"{who} changed prm: {names}; LEMUR records prm as it is then, so work on a copy, dict(prm)"
        raise fail(Outcome.CONTRACT, "build", message)
