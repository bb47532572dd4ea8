"""Training examples from the archive: questions with answers, good or bad.

Every example names its origin and the group that decides its split. The prompts are those of
``llm-propose``, so a model is tuned on the requests that it gets later.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from statistics import variance
from typing import Any

from more_itertools import map_reduce

from nngen.archive.records import StoredCandidate, StoredTrial
from nngen.llm.finetuning.splits import Example, Task
from nngen.llm.prompts import Rendered, estimate_tokens, prompt, render
from nngen.llm.proposals.log import Proposal
from nngen.llm.proposals.parents import Parent, mean_accuracies
from nngen.llm.proposals.parsing import ReplyError, fenced
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.llm.proposals.prompt_context import best_plans, plan_means, plan_values, region_values
from nngen.llm.rewriters.base import Kind
from nngen.plan import Plan
from nngen.seeds import derive
from nngen.space.pool import EXPERTS
from nngen.surrogate.plan_text import by_plan, fixed_fields, plan_text
from nngen.types import Fidelity, Record

_UNLIMITED = 10**9
_SUMMARY_SHARE = 0.25
_ANSWERS = 2  # good ones of a question, and bad ones
_BUDGET = 800  # tokens of a question, so that an answer fits beside it into 1,024
_FITS = 5  # each takes seconds, whatever the number of trials
_PROMPTS = {Task.IMPROVE: "plan", Task.SUMMARY: "plan"}  # other tasks have the prompt of their name
_PLAIN = fixed_fields(Plan(experts=()))


def region_examples(
    proposals: Iterable[Proposal], candidates: Mapping[str, StoredCandidate], trials: Sequence[StoredTrial] = ()
) -> Iterator[Example]:
    """Yield rewritten regions; no duplicates.

    A child that was trained at a fidelity of its parent's is good where it is better, any other where it passed every
    check.
    """
    by_fidelity = map_reduce(trials, lambda trial: trial.fidelity)
    means = [mean_accuracies(same) for fidelity, same in by_fidelity.items() if fidelity is not None]
    for proposal in proposals:
        parent = candidates.get(proposal.parent)
        if proposal.kind is not Kind.REGION or proposal.twin is not None or parent is None or not proposal.written:
            continue
        known = [found for found in means if parent.id in found]
        compared = next((found for found in known if proposal.candidate in found), None)
        accuracy = (compared or next(iter(known), {})).get(parent.id)
        gain = 0.0 if compared is None else compared[proposal.candidate] - compared[parent.id]
        try:
            question = _question(Task.REGION, region_values(Parent.of(parent, accuracy), proposal.region))
        except ReplyError:
            continue  # the archive's candidate is not the file that the region was asked for
        yield Example(
            task=Task.REGION,
            messages=question.messages,
            prompt=question.prompt,
            answer=fenced(proposal.written),
            good=proposal.valid and (compared is None or gain > 0),
            score=float(proposal.valid) + gain,
            group=group_of(parent.experts),
            origin=proposal.candidate,
            place=proposal.region,
            writer=proposal.rewriter,
        )


def improvement_examples(trials: Sequence[StoredTrial], space: PlanSpace) -> Iterator[Example]:
    """Yield parent plans, answered by better plans (good) and worse ones (bad) that were trained later.

    Both plans share at least two experts and differ by more than the noise between seeds; the group names both
    quartets. The question is the one that ``llm-propose`` would have asked when the parent was trained. Its best plans
    are of the parent's quartet, because others may belong to another split.
    """
    for fidelity in _by_fidelity(trials).values():
        plans = plan_means(fidelity)
        order = sorted(range(len(plans)), key=lambda number: (plans[number][1], plans[number][0].experts))
        ranks = {number: rank for rank, number in enumerate(order)}
        noise, history = _noise(fidelity), _History(fidelity, space)
        # Plans that share two experts share a pair. From the last plan to the first, each pair holds the ranks of the
        # later ones; a better and a worse one of each is drawn, so that no answer is that of most questions.
        later: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for number in reversed(range(len(plans))):
            plan, accuracy = plans[number]
            drawn = {True: set[int](), False: set[int]()}
            for pair in combinations(sorted(plan.experts), 2):
                found = later[pair]
                place = bisect_left(found, ranks[number])
                for good, first, last in ((True, place, len(found)), (False, 0, place)):
                    if first < last:
                        draw = derive(0, "answer", plan_text(plan), *pair, good)
                        drawn[good].add(found[first + draw % (last - first)])
                found.insert(place, ranks[number])
            for end in (end for good in (True, False) for end in sorted(drawn[good])[:_ANSWERS]):
                other, score = plans[order[end]]
                if abs(score - accuracy) <= noise or not set(other.experts) <= set(space.families):
                    continue
                question = history.question(plan, accuracy)
                yield Example(
                    task=Task.IMPROVE,
                    messages=question.messages,
                    prompt=question.prompt,
                    answer=plan_text(other),
                    good=score > accuracy,
                    score=score,
                    group="|".join((group_of(plan.experts), group_of(other.experts))),
                    origin=plan_text(plan),
                )


class _History:
    """Questions about plans as they were when these were trained; the effects are fitted at a few moments."""

    def __init__(self, trials: Sequence[StoredTrial], space: PlanSpace) -> None:
        self._trials, self._space = trials, space
        self._first: dict[str, int] = {}
        self._quartets: dict[str, list[int]] = defaultdict(list)
        for number, trial in enumerate(trials):
            self._first.setdefault(plan_text(trial.plan), number)
            self._quartets[group_of(trial.experts)].append(number)
        self._cuts = sorted({len(trials) * part // _FITS for part in range(_FITS)})
        self._values: dict[int, dict[str, Any]] = {}

    def question(self, parent: Plan, accuracy: float) -> Rendered:
        """Render the question about a parent from the trials up to its first one."""
        now = self._first[plan_text(parent)] + 1
        cut = self._cuts[bisect_right(self._cuts, now) - 1]
        if cut not in self._values:
            self._values[cut] = plan_values(self._trials[:cut], self._space)
        own = [self._trials[number] for number in self._quartets[group_of(parent.experts)] if number < now]
        told = {"text": plan_text(parent), "accuracy": f"{accuracy:.4f}"}
        return _question(Task.IMPROVE, {**self._values[cut], "best": best_plans(own), "parent": told}, _BUDGET)


def _noise(trials: Sequence[StoredTrial]) -> float:
    """Compute two standard errors of a difference of two trials from repeated plans; 0 where none was repeated."""
    repeated = [
        [trial.validation_accuracy or 0.0 for trial in same] for same in by_plan(trials).values() if len(same) > 1
    ]
    freedom = sum(len(values) - 1 for values in repeated)
    return (
        2 * math.sqrt(2 * sum(variance(values) * (len(values) - 1) for values in repeated) / freedom)
        if freedom
        else 0.0
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
            question = questions[fold[group]]
            yield Example(
                task=Task.SUMMARY,
                messages=question.messages,
                prompt=question.prompt,
                answer=plan_text(plan),
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
        question = _question(Task.ACCURACY, values, budget=None)
        yield Example(
            task=Task.ACCURACY,
            messages=question.messages,
            prompt=question.prompt,
            answer=f"{trial.validation_accuracy:.3f}",
            group=group_of(trial.experts),
            origin=trial.candidate_id or "",
        )


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
        yield Example(
            task=Task.CODE,
            messages=question.messages,
            prompt=question.prompt,
            answer=f"{row.accuracy:.3f}",
            group=f"lemur:{model}",
            origin=model,
        )


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
