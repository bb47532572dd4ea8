"""Training examples from the archive: questions with answers, good or bad.

Every example names its origin and the group that decides its split. The prompts are those of
``llm-propose``, so a model is tuned on the requests that it gets later.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from nngen.archive.records import StoredCandidate, StoredTrial
from nngen.llm.finetuning.splits import Example, Task
from nngen.llm.prompts import Rendered, estimate_tokens, prompt, render
from nngen.llm.proposals.log import Proposal
from nngen.llm.proposals.parents import Parent
from nngen.llm.proposals.parsing import ReplyError, fenced
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.llm.proposals.prompt_context import plan_means, plan_values, region_values
from nngen.llm.rewriters.base import Kind
from nngen.plan import Plan
from nngen.seeds import derive
from nngen.space.pool import EXPERTS
from nngen.surrogate.plan_text import fixed_fields, plan_text
from nngen.types import Fidelity, Record

_UNLIMITED = 10**9
_SUMMARY_SHARE = 0.25
_FITS = 5  # each takes seconds, whatever the number of trials
_PROMPTS = {Task.IMPROVE: "plan", Task.SUMMARY: "plan"}  # other tasks have the prompt of their name
_PLAIN = fixed_fields(Plan(experts=()))


def region_examples(proposals: Iterable[Proposal], candidates: Mapping[str, StoredCandidate]) -> Iterator[Example]:
    """Yield rewritten regions: good where every check passed, bad where a check refused them; no duplicates."""
    for proposal in proposals:
        parent = candidates.get(proposal.parent)
        if proposal.kind is not Kind.REGION or proposal.twin is not None or parent is None or not proposal.written:
            continue
        try:
            question = _question(Task.REGION, region_values(Parent.of(parent), proposal.region))
        except ReplyError:
            continue  # the archive's candidate is not the file that the region was asked for
        yield _example(
            Task.REGION,
            question,
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
    nothing: dict[str, list[str]] = {
        name: [] for name in ("families", "inseparable", "unmeasured", "pairs", "best", "failures")
    }
    for fidelity in _by_fidelity(trials).values():
        plans = plan_means(fidelity)
        order = sorted(range(len(plans)), key=lambda number: (plans[number][1], plans[number][0].experts))
        # Plans that share two experts share a pair. Of each pair only the two best and the two worst plans are looked
        # at, since one of the two may be the parent itself: the extremes are found in linear time.
        ranks: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for rank, number in enumerate(order):
            for pair in _pairs(plans[number][0]):
                ranks[pair].append(rank)
        ends = {pair: (*found[:2], *found[-2:]) for pair, found in ranks.items()}
        for rank, number in sorted(enumerate(order), key=lambda row: row[1]):
            plan, accuracy = plans[number]
            near = {other for pair in _pairs(plan) for other in ends[pair]} - {rank}
            if not near:
                continue
            parent = {"text": plan_text(plan), "accuracy": f"{accuracy:.4f}"}
            question = _question(Task.IMPROVE, {**nothing, "parent": parent})
            for other, score in (plans[order[end]] for end in sorted({min(near), max(near)}, reverse=True)):
                if score == accuracy or not set(other.experts) <= set(space.families):
                    continue
                yield _example(
                    Task.IMPROVE,
                    question,
                    plan_text(other),
                    good=score > accuracy,
                    score=score,
                    group="|".join((group_of(plan.experts), group_of(other.experts))),
                    origin=plan_text(plan),
                )


def summary_examples(trials: Sequence[StoredTrial], space: PlanSpace) -> Iterator[Example]:
    """Yield measured effects, answered by a plan of the best quarter (good) or the worst (bad).

    The effects are fitted five times, each time without a fifth of the quartets; the answer's own quartet is never
    among those that are fitted.
    """
    for fidelity in _by_fidelity(trials).values():
        plans = sorted(plan_means(fidelity), key=lambda row: -row[1])
        count = max(int(len(plans) * _SUMMARY_SHARE), 1)
        if len(plans) < 4 * count:
            continue
        quartets = sorted({group_of(plan.experts) for plan, _ in plans}, key=lambda name: derive(0, "summary", name))
        fold = {name: place % _FITS for place, name in enumerate(quartets)}
        questions: dict[int, Rendered] = {}
        for place, (plan, accuracy) in enumerate(plans):
            if count <= place < len(plans) - count:
                continue
            group = group_of(plan.experts)
            if fold[group] not in questions:
                others = [trial for trial in fidelity if fold[group_of(trial.experts)] != fold[group]]
                # Effects alone: example plans would belong to other groups, and so to other splits.
                values = {**plan_values(others, space), "best": []}
                questions[fold[group]] = _question(Task.SUMMARY, values, budget=None)
            yield _example(
                Task.SUMMARY,
                questions[fold[group]],
                plan_text(plan),
                good=place < count,
                score=accuracy,
                group=group,
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
        question, answer = _question(Task.ACCURACY, values, budget=None), f"{trial.validation_accuracy:.3f}"
        yield _example(Task.ACCURACY, question, answer, group=group_of(trial.experts), origin=trial.candidate_id or "")


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
        question = _question(Task.CODE, values)
        yield _example(Task.CODE, question, f"{row.accuracy:.3f}", group=f"lemur:{model}", origin=model)


def group_of(experts: Iterable[str]) -> str:
    """Name a quartet independent of the order of its experts."""
    return "+".join(sorted(experts))


def _by_fidelity(trials: Iterable[StoredTrial]) -> dict[tuple[Fidelity, str], list[StoredTrial]]:
    """Group the trials of quartets by fidelity and by the fields that a plan's text leaves out."""
    found: dict[tuple[Fidelity, str], list[StoredTrial]] = defaultdict(list)
    for trial in trials:
        if trial.trained and trial.fidelity is not None and len(set(trial.experts)) == EXPERTS:
            found[trial.fidelity, fixed_fields(trial.plan)].append(trial)
    return found


def _question(task: Task, values: Mapping[str, Any], budget: int | None = _UNLIMITED) -> Rendered:
    """Render the question of a task, within the prompt's own budget where ``budget`` is None."""
    return render(prompt(_PROMPTS.get(task, task.value)), values, estimate_tokens, budget)


def _example(
    task: Task,
    question: Rendered,
    answer: str,
    *,
    group: str,
    origin: str,
    good: bool = True,
    score: float = 1.0,
    place: str = "",
) -> Example:
    return Example(
        task=task,
        messages=question.messages,
        answer=answer,
        good=good,
        score=score,
        group=group,
        origin=origin,
        prompt=question.prompt,
        place=place,
    )


def _pairs(plan: Plan) -> Iterator[tuple[str, ...]]:
    return combinations(sorted(plan.experts), 2)
