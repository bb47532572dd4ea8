"""Comparisons of trained plans, for examples: trials of one fidelity, pairs one edit apart, weights, and questions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from random import Random
from typing import Any

import numpy as np

from nngen.analysis.suspicion import suspicions
from nngen.archive.records import StoredTrial
from nngen.llm.finetuning.splits import Example, Task
from nngen.llm.prompts import BudgetError, Rendered, estimate_tokens, prompt, render
from nngen.llm.proposals.edits import MOST_CHANGES
from nngen.llm.proposals.evidence import Noise, TrainedPlan
from nngen.seeds import derive
from nngen.space.pool import EXPERTS
from nngen.surrogate.plan_text import CHOICES, Value, field_value, fixed_fields, plan_text
from nngen.types import Fidelity

_UNLIMITED = 10**9
_ANSWERS = 4  # good ones of a plan, and bad ones
_REPLY = 130  # tokens kept for a plan beside its question
_MOST_PLANS = 3000  # of one fidelity that are compared with one another
_MOST_WEIGHT = 3.0
_PROMPTS = {Task.IMPROVE: "plan", Task.SUMMARY: "plan", Task.LEMUR: "delta"}  # others: the prompt of the task's name


def group_of(experts: Iterable[str]) -> str:
    """Name a quartet independent of the order of its experts."""
    return "+".join(sorted(experts))


def trials_by_fidelity(trials: Iterable[StoredTrial]) -> list[list[StoredTrial]]:
    """Group the trials of quartets by fidelity and by the fields outside of a plan's text, without suspect ones."""
    found: dict[tuple[Fidelity, str], list[StoredTrial]] = defaultdict(list)
    for trial in trials:
        if trial.trained and trial.fidelity is not None and len(set(trial.experts)) == EXPERTS:
            found[trial.fidelity, fixed_fields(trial.plan)].append(trial)
    suspect = [suspicions(same) for same in found.values()]
    return [
        [trial for trial in same if trial.id not in reasons]
        for same, reasons in zip(found.values(), suspect, strict=True)
    ]


def edit_pairs(plans: Sequence[TrainedPlan], noise: Noise) -> Iterator[tuple[TrainedPlan, list[TrainedPlan]]]:
    """Yield each plan with plans that one edit makes of it, up to four clearly better and four clearly worse ones.

    Of many plans the replicated ones are taken, and then the best.
    """
    chosen = sorted(plans, key=lambda row: (-row.seeds, -row.accuracy, row.first))[:_MOST_PLANS]
    chosen.sort(key=lambda row: row.first)
    if len(chosen) < 2:
        return
    names = sorted({name for row in chosen for name in row.plan.experts})
    members = np.array([[name in row.plan.experts for name in names] for row in chosen], dtype=np.float32)
    fields = np.array([[_place(path, field_value(row.plan, path)) for path in CHOICES] for row in chosen])
    rates = np.array([[field_value(row.plan, f"rates.{name}") for name in names] for row in chosen], dtype=np.float64)
    accuracies, shares = (np.array(values) for values in ([r.accuracy for r in chosen], [1 / r.seeds for r in chosen]))
    swaps = EXPERTS - members @ members.T  # (n, n)
    for number, parent in enumerate(chosen):
        rated = (rates != rates[number]) & (members * members[number] > 0)  # of experts that both have
        changed = (fields != fields[number]).sum(axis=1) + rated.sum(axis=1) + swaps[number]  # (n,)
        gaps = (accuracies - parent.accuracy) / (2 * noise.sd * np.sqrt(shares + shares[number]))
        near = (swaps[number] <= 1) & (changed > 0) & (changed <= MOST_CHANGES)
        rng = Random(derive(0, "answers", plan_text(parent.plan)))
        drawn = []
        for found in (near & (gaps > 1), near & (gaps < -1)):
            places = np.flatnonzero(found).tolist()
            drawn += sorted(rng.sample(places, min(_ANSWERS, len(places))))
        if drawn:
            yield parent, [chosen[place] for place in drawn]


def _place(path: str, value: Value) -> float:
    """Return a value as a number: of a word its place among the choices."""
    return float(CHOICES[path].index(value)) if isinstance(value, str) else float(value)


def weight_of(gap: float) -> float:
    """Weigh an answer by its distance from the parent, in units of two standard errors."""
    return round(min(max(abs(gap), 1.0), _MOST_WEIGHT), 3)


def ask(
    task: Task, values: Mapping[str, Any], limit: int = _UNLIMITED, count: Callable[[str], int] = estimate_tokens
) -> Rendered:
    """Render the question of a task as it is asked: within the prompt's own budget, and within a limit with its answer.

    Questions that hold code, and others that cannot be shortened, are left out later where they are too long.
    """
    chosen = prompt(_PROMPTS.get(task, task.value))
    try:
        return render(chosen, values, count, min(chosen.budget, limit - _REPLY) if chosen.drop else _UNLIMITED)
    except BudgetError:
        return render(chosen, values, count, _UNLIMITED)


def answered(task: Task, question: Rendered, answer: str, group: str, origin: str, **more: Any) -> Example:
    """Make an example of a question and its answer; ``more`` are other fields of ``Example``."""
    turns, name = question.messages, question.prompt
    return Example(task=task, messages=turns, prompt=name, answer=answer, group=group, origin=origin, **more)
