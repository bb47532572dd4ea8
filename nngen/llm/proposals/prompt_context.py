"""What the archive knows, in the few lines that a prompt has room for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nngen.analysis.effects import Interval, effects
from nngen.analysis.observations import observe
from nngen.archive import StoredTrial
from nngen.llm.prompts import MOST_EXAMPLES
from nngen.llm.proposals.log import Proposal
from nngen.llm.proposals.plan_space import PlanSpace, frame, plan_text
from nngen.types import Plan

__all__ = ["best_plans", "plan_values"]

_PAIRS = 10
_FAILURES = 5


def plan_values(
    trials: Sequence[StoredTrial],
    space: PlanSpace,
    *,
    failed: Iterable[Proposal] = (),
    parent: tuple[Plan, float | None] | None = None,
) -> dict[str, Any]:
    """Gather the inputs of the prompt ``plan``.

    Args:
        trials: Finished ones of one data set and fidelity; the families' effects are read from them.
        space: Names the usable families.
        failed: Earlier proposals; what went wrong with them is counted.
        parent: The plan to improve on, and its accuracy.
    """
    told = effects(observe(trials)) if sum(trial.trained for trial in trials) > 1 else None
    rows = [(row.family, row.interval, row.point, row.quartets) for row in told.families] if told else []
    measured = [row for row in rows if row[2] is not None and row[0] in space.families]
    measured.sort(key=lambda row: -(row[2] or 0.0))
    pairs = sorted(told.pairs, key=lambda pair: -pair.interval.effect)[:_PAIRS] if told else []
    known = {row[0] for row in measured}
    return {
        "families": [{"name": name, "effect": _effect(span, point, count)} for name, span, point, count in measured],
        "unmeasured": [name for name in space.families if name not in known],
        "pairs": [
            {"name": " + ".join(pair.families), "effect": _effect(pair.interval, None, pair.quartets)} for pair in pairs
        ],
        "best": [{"text": plan_text(plan), "accuracy": f"{accuracy:.4f}"} for plan, accuracy in best_plans(trials)],
        "failures": _failures(trials, failed),
        "parent": _parent(parent),
    }


def best_plans(trials: Iterable[StoredTrial], count: int = MOST_EXAMPLES) -> list[tuple[Plan, float]]:
    """Pick the plans with the best mean validation accuracy, best first, each once."""
    found: dict[str, tuple[Plan, list[float]]] = {}
    for trial in trials:
        if trial.validation_accuracy is not None:
            name = f"{plan_text(trial.plan)} {frame(trial.plan)}"
            found.setdefault(name, (trial.plan, []))[1].append(trial.validation_accuracy)
    means = [(plan, sum(values) / len(values)) for plan, values in found.values()]
    return sorted(means, key=lambda row: (-row[1], row[0].experts))[:count]


def _effect(span: Interval | None, point: float | None, count: int) -> str:
    if span is None:
        return f"{100 * (point or 0.0):+.1f} ({count})"
    return f"{100 * span.effect:+.1f} [{100 * span.low:+.1f}, {100 * span.high:+.1f}] ({count})"


def _failures(trials: Iterable[StoredTrial], failed: Iterable[Proposal]) -> list[str]:
    seen: Counter[str] = Counter()
    for trial in trials:
        if trial.verdict is not None and not trial.verdict.valid:
            seen[f"{', '.join(trial.experts)}: {trial.verdict.outcome}, {trial.verdict.message[:80]}"] += 1
    for proposal in failed:
        if proposal.fault is not None or (proposal.outcome is not None and not proposal.valid):
            seen[f"{proposal.fault or proposal.outcome}: {proposal.message[:80]}"] += 1
    return [f"{line} ({count} times)" if count > 1 else line for line, count in seen.most_common(_FAILURES)]


def _parent(parent: tuple[Plan, float | None] | None) -> Mapping[str, str] | None:
    if parent is None:
        return None
    plan, accuracy = parent
    return {"text": plan_text(plan), "accuracy": "an unknown accuracy" if accuracy is None else f"{accuracy:.4f}"}
