"""The rules that run a candidate, in order. Only ever called inside a worker."""

from __future__ import annotations

from pathlib import Path

import torch

from nngen.checks.context import BATCH, CheckContext
from nngen.checks.prm import make_prm
from nngen.checks.rule import CheckFailed, DynamicRule
from nngen.checks.rules.build import Build
from nngen.checks.rules.finite import Finite
from nngen.checks.rules.gradient import Gradient
from nngen.checks.rules.importing import Import
from nngen.checks.rules.interface import Interface
from nngen.checks.rules.shape import OutputShape
from nngen.checks.rules.step import Step
from nngen.types import Hyperparameters, Outcome, Shape, Verdict

__all__ = ["DYNAMIC_RULES", "dynamic_check"]

DYNAMIC_RULES: tuple[DynamicRule, ...] = (
    Import(),
    Interface(),
    Build(),
    OutputShape(),
    Finite(),
    Step(),
    Gradient(),
)
"""Each rule finds on the bench what those before it built."""


def dynamic_check(
    path: Path,
    *,
    shape: Shape,
    classes: int,
    hyperparameters: Hyperparameters,
    device: str = "cpu",
) -> Verdict:
    """Import the file and prove that it builds, keeps its shapes and learns.

    Args:
        path: The candidate's file; it is imported from there, since torch.jit reads its source.
        shape: Of the images, without the batch.
        classes: Number of classes.
        hyperparameters: Values for ``prm`` that differ from the defaults of ``make_prm``.
        device: ``cpu`` or ``cuda``.

    Returns:
        ``valid``, or the verdict of the first rule that refused.
    """
    prm = make_prm({"batch": BATCH, **hyperparameters}, shape=shape)
    bench = CheckContext(path=path, shape=shape, classes=classes, device=torch.device(device), hyperparameters=prm)
    try:
        for rule in DYNAMIC_RULES:
            rule.check(bench)
    except CheckFailed as refused:
        return refused.verdict
    return Verdict(outcome=Outcome.VALID)
