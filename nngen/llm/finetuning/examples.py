"""Training examples from the archive: questions with answers, good or bad.

Every example names its origin and the group that decides its split. The prompts are those of
``llm-propose``, so a model is tuned on the requests that it gets later.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from nngen.archive import StoredCandidate, StoredTrial
from nngen.llm.finetuning.splits import Example, Task
from nngen.llm.prompts import estimate_tokens, prompt, render
from nngen.llm.proposals.log import Proposal
from nngen.llm.proposals.parents import Parent
from nngen.llm.proposals.parsing import fenced
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.llm.proposals.prompt_context import plan_means, plan_values, region_values
from nngen.llm.rewriters.base import Kind
from nngen.plan import Plan
from nngen.space.pool import EXPERTS
from nngen.surrogate.plan_text import fixed_fields, plan_text
from nngen.types import Fidelity, Record

_UNLIMITED = 10**9
_SHARED = 2
_SUMMARY_SHARE = 0.25
_PROMPTS = {Task.IMPROVE: "plan", Task.SUMMARY: "plan"}  # other tasks have the prompt of their name
_PLAIN = fixed_fields(Plan(experts=()))


def region_examples(proposals: Iterable[Proposal], candidates: Mapping[str, StoredCandidate]) -> Iterator[Example]:
    """Yield rewritten regions: good where every check passed, bad where a check refused them; no duplicates."""
    for proposal in proposals:
        parent = candidates.get(proposal.parent)
        if proposal.kind is not Kind.REGION or proposal.twin is not None or parent is None or not proposal.written:
            continue
        yield _example(
            Task.REGION,
            region_values(Parent.of(parent), proposal.region),
            fenced(proposal.written),
            good=proposal.valid,
            score=float(proposal.valid),
            group=group_of(parent.experts),
            origin=proposal.candidate,
            place=proposal.region,
        )


def improvement_examples(trials: Sequence[StoredTrial], space: PlanSpace) -> Iterator[Example]:
    """Yield parent plans with their result, answered by a better plan (good) or a worse one (bad) of the same fidelity.

    Both plans share at least two experts; the group names both quartets.
    """
    nothing: dict[str, list[str]] = {name: [] for name in ("families", "unmeasured", "pairs", "best", "failures")}
    for fidelity in _by_fidelity(trials).values():
        plans = plan_means(fidelity)
        for plan, accuracy in plans:
            parent = {"text": plan_text(plan), "accuracy": f"{accuracy:.4f}"}
            near = [
                (other, score)
                for other, score in plans
                if other is not plan and len(set(other.experts) & set(plan.experts)) >= _SHARED
            ]
            for other, score in _extremes(near):
                if score == accuracy or not set(other.experts) <= set(space.families):
                    continue
                yield _example(
                    Task.IMPROVE,
                    {**nothing, "parent": parent},
                    plan_text(other),
                    good=score > accuracy,
                    score=score,
                    group="|".join((group_of(plan.experts), group_of(other.experts))),
                    origin=plan_text(plan),
                )


def summary_examples(trials: Sequence[StoredTrial], space: PlanSpace) -> Iterator[Example]:
    """Yield measured effects, answered by a plan of the best quarter (good) or the worst (bad).

    The trials of the answer's own quartet are left out of the effects.
    """
    for fidelity in _by_fidelity(trials).values():
        plans = sorted(plan_means(fidelity), key=lambda row: -row[1])
        count = max(int(len(plans) * _SUMMARY_SHARE), 1)
        if len(plans) < 4 * count:
            continue
        for place, (plan, accuracy) in enumerate(plans):
            if count <= place < len(plans) - count:
                continue
            others = [trial for trial in fidelity if set(trial.experts) != set(plan.experts)]
            # Effects alone: example plans would belong to other groups, and so to other splits.
            yield _example(
                Task.SUMMARY,
                {**plan_values(others, space), "best": [], "parent": None},
                plan_text(plan),
                budget=None,
                good=place < count,
                score=accuracy,
                group=group_of(plan.experts),
                origin=plan_text(plan),
            )


def accuracy_examples(trials: Sequence[StoredTrial]) -> Iterator[Example]:
    """Yield plans with their first epochs, answered by the accuracy after the last one."""
    for trial in trials:
        # Other plans share their text with a plan of another accuracy.
        if trial.validation_accuracy is None or trial.spec is None or fixed_fields(trial.plan) != _PLAIN:
            continue
        early = [{"epoch": p.epoch, "accuracy": f"{p.validation_accuracy:.4f}"} for p in trial.curve[:-1]]
        values = {
            "text": plan_text(trial.plan),
            "dataset": trial.spec.dataset,
            "epochs": trial.spec.epochs,
            "early": early,
        }
        answer, group = f"{trial.validation_accuracy:.3f}", group_of(trial.experts)
        yield _example(Task.ACCURACY, values, answer, budget=None, group=group, origin=trial.candidate_id or "")


def code_examples(sources: Mapping[str, str], records: Iterable[Record]) -> Iterator[Example]:
    """Yield LEMUR's model files, answered by the best recorded accuracy at an epoch."""
    best: dict[tuple[str, str, int], Record] = {}
    for row in records:
        key = (row.model, row.dataset, row.epoch)
        if row.model in sources and (key not in best or row.accuracy > best[key].accuracy):
            best[key] = row
    for (model, dataset, epoch), row in sorted(best.items()):
        chosen = ", ".join(f"{name} {value}" for name, value in sorted(row.hyperparameters.items()))
        values = {"dataset": dataset, "epochs": epoch, "hyperparameters": chosen, "code": sources[model].strip()}
        yield _example(Task.CODE, values, f"{row.accuracy:.3f}", group=f"lemur:{model}", origin=model)


def group_of(experts: Iterable[str]) -> str:
    """Name a quartet independent of the order of its experts."""
    return "+".join(sorted(experts))


def _by_fidelity(trials: Iterable[StoredTrial]) -> dict[tuple[Fidelity, str], list[StoredTrial]]:
    """Group the trials of quartets by fidelity and by the fields that a plan's text leaves out."""
    found: dict[tuple[Fidelity, str], list[StoredTrial]] = defaultdict(list)
    for trial in trials:
        if trial.trained and trial.spec is not None and len(set(trial.experts)) == EXPERTS:
            found[trial.spec.fidelity, fixed_fields(trial.plan)].append(trial)
    return found


def _example(
    task: Task,
    values: Mapping[str, Any],
    answer: str,
    *,
    group: str,
    origin: str,
    good: bool = True,
    score: float = 1.0,
    place: str = "",
    budget: int | None = _UNLIMITED,
) -> Example:
    """Render the question of a task, within the prompt's own budget where ``budget`` is None."""
    rendered = render(prompt(_PROMPTS.get(task, task.value)), values, estimate_tokens, budget)
    return Example(
        task=task,
        messages=rendered.messages,
        answer=answer,
        good=good,
        score=score,
        group=group,
        origin=origin,
        prompt=rendered.prompt,
        place=place,
    )


def _extremes(rows: Sequence[tuple[Plan, float]]) -> list[tuple[Plan, float]]:
    """Return the best and the worst plan, or the only one."""
    ordered = sorted(rows, key=lambda row: (row[1], row[0].experts))
    return ordered[-1:] + ordered[:1] if len(ordered) > 1 else ordered
