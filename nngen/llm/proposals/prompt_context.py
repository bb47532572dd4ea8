"""Inputs of the prompts ``plan``, ``region`` and ``file``, gathered from the archive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from nngen.analysis.effects import effects
from nngen.analysis.observations import observe
from nngen.analysis.statistics import Interval
from nngen.archive.records import StoredTrial
from nngen.archive.store import Archive
from nngen.errors import UsageError
from nngen.llm.prompts import MAX_EXAMPLES, Rendered, prompt, render
from nngen.llm.proposals.edits import edit_text
from nngen.llm.proposals.evidence import (
    Noise,
    TrainedPlan,
    noise_of,
    number_effects,
    number_lines,
    trained_plans,
    tried_edits,
)
from nngen.llm.proposals.log import Proposal, proposals
from nngen.llm.proposals.parents import Parent, at_fidelity, named_parent, top_parents
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.llm.proposals.regions import REGIONS, find
from nngen.plan import Plan
from nngen.surrogate.plan_text import plan_text

_PAIRS = 10
_FAILURES = 5
_TRIED = 4  # of the best edits of a parent, and of the worst
_NUMBERS = 6  # fields whose effects are the clearest: twenty would leave no room for the families


def plan_values(trials: Sequence[StoredTrial], space: PlanSpace, *, failed: Iterable[Proposal] = ()) -> dict[str, Any]:
    """Gather the inputs of the prompt ``plan``, without a parent, from trials of one fidelity and failed proposals."""
    # One trial has no effects: there is nothing to compare it with.
    measured = effects(observe(trials)) if sum(trial.trained for trial in trials) > 1 else None
    found = [row for row in (measured.families if measured else ()) if row.family in space.families]
    rows = sorted((row for row in found if row.point is not None), key=lambda row: -(row.point or 0.0))
    known = {row.family for row in rows}
    trained = Counter(name for trial in trials if trial.trained for name in set(trial.experts))
    others = [name for name in space.families if name not in known]
    # A pair whose interval holds zero says nothing, at 25 tokens.
    clear = [pair for pair in (measured.pairs if measured else ()) if pair.interval.low > 0 or pair.interval.high < 0]
    pairs = sorted(clear, key=lambda pair: -pair.interval.effect)[:_PAIRS]
    return {
        "families": [{"name": row.family, "effect": _effect(row.interval, row.point, row.quartets)} for row in rows],
        "inseparable": [f"{name} ({trained[name]})" for name in others if trained[name]],
        "unmeasured": [name for name in others if not trained[name]],
        "numbers": number_lines(number_effects(trained_plans(trials)))[:_NUMBERS],
        "pairs": [
            {"name": " + ".join(pair.families), "effect": _effect(pair.interval, None, pair.quartets)} for pair in pairs
        ],
        "noise": noise_of(trials).points if trials else "",
        "best": best_plans(trials),
        "failures": _failures(trials, failed),
        "tried": [],
        "parent": None,
    }


def best_plans(trials: Sequence[StoredTrial]) -> list[dict[str, str]]:
    """Write the plans of the highest mean accuracies, best first, for the prompt ``plan``."""
    best = sorted(trained_plans(trials), key=lambda row: (-row.accuracy, row.plan.experts))[:MAX_EXAMPLES]
    return [{"text": plan_text(row.plan), "accuracy": f"{row.accuracy:.4f}"} for row in best]


def parent_values(parent: Parent | None, trials: Sequence[StoredTrial], space: PlanSpace) -> dict[str, Any]:
    """Gather the inputs of the prompt ``plan`` about the plan to improve on; outside of the space, whole plans do."""
    if parent is None or parent.plan is None:
        return {}
    edited = bool(space.edits(parent.plan))
    plans = trained_plans(trials)
    known = next((row for row in plans if row.plan == parent.plan), None)
    tried = tried_values(known, plans, noise_of(trials)) if edited and known is not None else []
    accuracy = parent.accuracy_text or "an unknown accuracy"
    return {"tried": tried, "parent": {"text": plan_text(parent.plan), "accuracy": accuracy, "edited": edited}}


def tried_values(parent: TrainedPlan, plans: Iterable[TrainedPlan], noise: Noise) -> list[dict[str, str]]:
    """Write the edits of a plan that were trained, with gain and verdict: the best and the worst."""
    found = tried_edits(parent, plans, noise)
    kept = found if len(found) <= 2 * _TRIED else found[:_TRIED] + found[-_TRIED:]
    return [{"edit": edit_text(edit), "gain": f"{100 * gain:+.1f}, {verdict}"} for edit, gain, verdict in kept]


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
    return [(row.plan, row.accuracy) for row in trained_plans(trials)]


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
    if trials and trials[-1].fidelity is not None:
        trials = at_fidelity(trials, trials[-1].fidelity)
    parents = [named_parent(archive, parent, trials)] if parent else top_parents(archive, trials, 1)
    chosen = prompt(name)
    if name == "plan":
        known = {expert for trial in trials for expert in trial.experts}
        space = PlanSpace(families=tuple(sorted(families if families is not None else known)))
        start = parents[0] if parent else None
        values = plan_values(trials, space, failed=proposals(archive))
        values |= parent_values(start, trials, space)
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
        if proposal.unanswered:
            continue  # a server that was down says nothing about plans
        if proposal.fault is not None or (proposal.outcome is not None and not proposal.valid):
            seen[f"{proposal.fault or proposal.outcome}: {proposal.message[:80]}"] += 1
    return [f"{line} ({count} times)" if count > 1 else line for line, count in seen.most_common(_FAILURES)]
