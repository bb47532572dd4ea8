"""What is asked about: parents and their accuracies, found in the archive at one fidelity."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean

from nngen.archive import Store, StoredTrial
from nngen.errors import UsageError
from nngen.llm.prompts import Rendered, prompt, render
from nngen.llm.proposals.log import proposals
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.llm.proposals.prompt_context import plan_values
from nngen.llm.proposals.propose import Parent
from nngen.llm.proposals.regions import REGIONS, find
from nngen.types import TrialSpec

__all__ = ["at_fidelity", "fill", "mean_accuracies", "named_parent", "top_parents"]


def at_fidelity(trials: Iterable[StoredTrial], spec: TrialSpec) -> list[StoredTrial]:
    """Pick the trials that were trained as ``spec`` says: same data, shape and epochs."""
    return [
        trial
        for trial in trials
        if trial.spec is not None
        and (trial.spec.dataset, trial.spec.shape, trial.spec.epochs) == (spec.dataset, spec.shape, spec.epochs)
    ]


def mean_accuracies(trials: Iterable[StoredTrial]) -> dict[str, float]:
    """Mean validation accuracy by candidate."""
    found: dict[str, list[float]] = defaultdict(list)
    for trial in trials:
        if trial.validation_accuracy is not None and trial.candidate_id is not None:
            found[trial.candidate_id].append(trial.validation_accuracy)
    return {name: fmean(values) for name, values in found.items()}


def top_parents(archive: Store, trials: Iterable[StoredTrial], count: int) -> list[Parent]:
    """Take the best candidates of these trials, best first."""
    means = mean_accuracies(trials)
    best = sorted(means, key=lambda name: (-means[name], name))[:count]
    return [Parent.of(archive.candidate(name), means[name]) for name in best]


def named_parent(archive: Store, prefix: str, trials: Iterable[StoredTrial]) -> Parent:
    """Find a candidate by the beginning of its id.

    Raises:
        UsageError: If none or several fit.
    """
    stored = archive.candidate(prefix)
    return Parent.of(stored, mean_accuracies(trials).get(stored.id))


def fill(
    archive: Store,
    name: str,
    *,
    parent: str | None,
    region: str,
    families: Sequence[str] | None,
    count: Callable[[str], int],
    budget: int | None = None,
) -> Rendered:
    """Fill in ``plan``, ``region`` or ``file`` from all that the archive holds.

    Raises:
        UsageError: If the prompt is another, or there is no parent for a region or a file.
        RewriterError: If it does not fit its budget.
    """
    trials = [trial for trial in archive.trials() if trial.trained]
    if trials and trials[-1].spec is not None:
        trials = at_fidelity(trials, trials[-1].spec)
    found = [named_parent(archive, parent, trials)] if parent else top_parents(archive, trials, 1)
    asked = prompt(name)
    if name == "plan":
        known = {expert for trial in trials for expert in trial.experts}
        space = PlanSpace(families=tuple(sorted(families if families is not None else known)))
        start = (found[0].plan, found[0].accuracy) if parent and found and found[0].plan else None
        values = plan_values(trials, space, failed=proposals(archive), parent=start)
        return render(asked, values, count, budget)
    if name not in ("region", "file"):
        raise UsageError(f"{name} is not filled from the archive: plan, region and file are")
    if not found:
        raise UsageError("the archive holds no trained candidate: name one with --parent")
    accuracy = "" if found[0].accuracy is None else f"{found[0].accuracy:.4f}"
    if name == "file":
        experts = found[0].plan.experts if found[0].plan else ("four families",)
        return render(asked, {"experts": experts, "accuracy": accuracy, "code": found[0].source}, count, budget)
    code = find(found[0].source, region)
    values = {"region": region, "purpose": REGIONS[region].purpose, "accuracy": accuracy, "code": code}
    return render(asked, values, count, budget)
