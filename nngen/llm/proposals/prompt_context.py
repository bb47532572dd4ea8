"""Inputs of the prompts ``plan``, ``region`` and ``file``, gathered from the archive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean
from typing import Any

from nngen.analysis.effects import effects
from nngen.analysis.observations import observe
from nngen.analysis.statistics import Interval
from nngen.archive import Archive, StoredTrial
from nngen.errors import UsageError
from nngen.llm.prompts import MAX_EXAMPLES, Rendered, prompt, render
from nngen.llm.proposals.log import Proposal, proposals
from nngen.llm.proposals.parents import Parent, at_fidelity, named_parent, top_parents
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.llm.proposals.regions import REGIONS, find
from nngen.plan import Plan
from nngen.surrogate.plan_text import fixed_fields, plan_text

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
        trials: Finished trials of one data set and fidelity, for the effects of families and the best plans.
        space: Plans over the usable families.
        failed: Earlier proposals, whose failures are counted.
        parent: Plan to improve on, and its accuracy.
    """
    # One trial has no effects: there is nothing to compare it with.
    measured = effects(observe(trials)) if sum(trial.trained for trial in trials) > 1 else None
    rows = [
        (row.family, row.interval, row.point, row.quartets)
        for row in (measured.families if measured else ())
        if row.point is not None and row.family in space.families
    ]
    rows.sort(key=lambda row: -(row[2] or 0.0))
    known = {row[0] for row in rows}
    best = sorted(plan_means(trials), key=lambda row: (-row[1], row[0].experts))[:MAX_EXAMPLES]
    pairs = sorted(measured.pairs, key=lambda pair: -pair.interval.effect)[:_PAIRS] if measured else []
    start = None
    if parent is not None:
        plan, accuracy = parent
        start = {"text": plan_text(plan), "accuracy": "an unknown accuracy" if accuracy is None else f"{accuracy:.4f}"}
    return {
        "families": [{"name": name, "effect": _effect(span, point, count)} for name, span, point, count in rows],
        "unmeasured": [name for name in space.families if name not in known],
        "pairs": [
            {"name": " + ".join(pair.families), "effect": _effect(pair.interval, None, pair.quartets)} for pair in pairs
        ],
        "best": [{"text": plan_text(plan), "accuracy": f"{accuracy:.4f}"} for plan, accuracy in best],
        "failures": _failures(trials, failed),
        "parent": start,
    }


def region_values(parent: Parent, region: str) -> dict[str, Any]:
    """Gather the inputs of the prompt ``region``.

    Raises:
        ReplyError: If the region is unknown, or the parent lacks it.
    """
    code = find(parent.source, region)
    purpose = REGIONS[region].purpose
    return {"region": region, "purpose": purpose, "accuracy": parent.accuracy_text, "code": code}


def file_values(parent: Parent) -> dict[str, Any]:
    """Gather the inputs of the prompt ``file``."""
    experts = parent.plan.experts if parent.plan else ("four families",)
    return {"experts": experts, "accuracy": parent.accuracy_text, "code": parent.source}


def plan_means(trials: Iterable[StoredTrial]) -> list[tuple[Plan, float]]:
    """Compute the mean validation accuracy of each plan, in the order of their first trials."""
    found: dict[str, tuple[Plan, list[float]]] = {}
    for trial in trials:
        if trial.validation_accuracy is not None:
            name = f"{plan_text(trial.plan)} {fixed_fields(trial.plan)}"
            found.setdefault(name, (trial.plan, []))[1].append(trial.validation_accuracy)
    return [(plan, fmean(values)) for plan, values in found.values()]


def render_from_archive(
    archive: Archive,
    name: str,
    *,
    parent: str | None,
    region: str,
    families: Sequence[str] | None,
    count: Callable[[str], int],
    budget: int | None = None,
) -> Rendered:
    """Render ``plan``, ``region`` or ``file`` from all trials at the fidelity of the archive's last trained one.

    Raises:
        UsageError: If the prompt is another one, or a region or a file lacks a parent.
        RewriterError: If the prompt does not fit its budget.
    """
    trials = [trial for trial in archive.trials() if trial.trained]
    if trials and trials[-1].spec is not None:
        trials = at_fidelity(trials, trials[-1].spec)
    parents = [named_parent(archive, parent, trials)] if parent else top_parents(archive, trials, 1)
    chosen = prompt(name)
    if name == "plan":
        known = {expert for trial in trials for expert in trial.experts}
        space = PlanSpace(families=tuple(sorted(families if families is not None else known)))
        start = (parents[0].plan, parents[0].accuracy) if parent and parents and parents[0].plan else None
        values = plan_values(trials, space, failed=proposals(archive), parent=start)
    elif name not in ("region", "file"):
        raise UsageError(f"{name} is not filled from the archive: plan, region and file are")
    elif not parents:
        raise UsageError("the archive holds no trained candidate: name one with --parent")
    else:
        values = region_values(parents[0], region) if name == "region" else file_values(parents[0])
    return render(chosen, values, count, budget)


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
