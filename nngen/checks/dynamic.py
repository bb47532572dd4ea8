"""Dynamic check of a candidate: every dynamic rule in order. Called only inside a worker."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

from nngen.checks.context import BATCH, CheckContext
from nngen.checks.prm import make_prm
from nngen.checks.rule import CheckFailed, DynamicRule, discover
from nngen.checks.rules import dynamic
from nngen.types import Hyperparameters, Outcome, Shape, Verdict


@cache
def dynamic_rules() -> tuple[DynamicRule, ...]:
    """Return the rules in ``nngen.checks.rules.dynamic``, in order."""
    return discover(dynamic, DynamicRule)


# At import already, so that a fork server that preloads this module loads the rules once for all its workers.
dynamic_rules()


def dynamic_check(
    path: Path,
    *,
    shape: Shape,
    classes: int,
    hyperparameters: Hyperparameters | None = None,
    device: str = "cpu",
    imported: Callable[[], None] = lambda: None,
    ask: Callable[[], bytes] = bytes,
    answer: Callable[[CheckContext], None] = lambda _: None,
) -> Verdict:
    """Import the file and check that it builds, keeps its shapes and learns.

    Args:
        path: The candidate's file; it is imported from there, since torch.jit reads its source.
        shape: Shape of the images, without the batch.
        classes: Number of classes.
        hyperparameters: Values for ``prm`` that differ from the defaults of ``make_prm``.
        device: ``cpu`` or ``cuda``.
        imported: Called once the file is imported.
        ask: Returns the question by which batches are drawn; empty for the same batches in every check.
        answer: Called with what the rules found on them, if the candidate keeps all rules.

    Returns:
        ``valid``, or the verdict of the first rule that the candidate breaks.
    """
    prm = make_prm({"batch": BATCH, **(hyperparameters or {})}, shape=shape)
    context = CheckContext(
        path=path,
        shape=shape,
        classes=classes,
        device=torch.device(device),
        hyperparameters=prm,
        imported=imported,
        ask=ask,
    )
    try:
        for rule in dynamic_rules():
            rule.check(context)
        answer(context)
    except CheckFailed as failure:
        return failure.verdict
    return Verdict(outcome=Outcome.VALID)
