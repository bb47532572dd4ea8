"""Training examples from the archive: questions with answers, good or bad.

Every example names its origin and the group that decides its split. The prompts are those of
``llm-propose``, so a model is tuned on the requests that it gets later.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from more_itertools import map_reduce

from nngen.archive.records import StoredCandidate, StoredTrial
from nngen.llm.finetuning.comparisons import answered, ask, edit_pairs, group_of, trials_by_fidelity, weight_of
from nngen.llm.finetuning.splits import Example, Task
from nngen.llm.prompts import Rendered, estimate_tokens
from nngen.llm.proposals.edits import edit_between, edit_text
from nngen.llm.proposals.evidence import Noise, TrainedPlan, noise_of, trained_candidates, trained_plans
from nngen.llm.proposals.log import Proposal
from nngen.llm.proposals.parents import Parent
from nngen.llm.proposals.parsing import ReplyError, fenced
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.llm.proposals.prompt_context import best_plans, plan_values, region_values, tried_values
from nngen.llm.rewriters.base import Kind
from nngen.plan import Plan
from nngen.seeds import derive
from nngen.surrogate.plan_text import fixed_fields, plan_text
from nngen.text import public_name

_LIMIT = 1024
_SUMMARY_SHARE = 0.25
_FITS = 5  # each takes seconds, whatever the number of trials
_PLAIN = fixed_fields(Plan(experts=()))


def region_examples(
    proposals: Iterable[Proposal], candidates: Mapping[str, StoredCandidate], trials: Sequence[StoredTrial] = ()
) -> Iterator[Example]:
    """Yield rewritten regions; no duplicates.

    A child that differs from its parent by more than two standard errors at one fidelity is good where it is better,
    and weighs more than one of which it is only known that it passed every check.
    """
    by_fidelity = map_reduce((trial for trial in trials if trial.fidelity is not None), lambda trial: trial.fidelity)
    measured = [(trained_candidates(same), noise_of(same)) for same in by_fidelity.values()]
    for proposal in proposals:
        parent = candidates.get(proposal.parent)
        if proposal.kind is not Kind.REGION or proposal.twin is not None or parent is None or not proposal.written:
            continue
        known = [(found, noise) for found, noise in measured if parent.id in found]
        both = next(((found, noise) for found, noise in known if proposal.candidate in found), None)
        own = both or next(iter(known), None)
        accuracy = own[0][parent.id].accuracy if own else None
        gap = both[1].gap(both[0][parent.id], both[0][proposal.candidate]) if both else 0.0
        clear = abs(gap) > 1
        try:
            question = ask(Task.REGION, region_values(Parent.of(parent, accuracy), proposal.region))
        except ReplyError:
            continue  # the archive's candidate is not the file that the region was asked for
        yield answered(
            Task.REGION,
            question,
            fenced(proposal.written),
            group_of(parent.experts),
            proposal.candidate,
            good=proposal.valid and (gap > 0 or not clear),
            score=float(proposal.valid) + (gap if clear else 0.0),
            weight=weight_of(gap),
            place=proposal.region,
            writer=proposal.rewriter,
        )


def improvement_examples(
    trials: Sequence[StoredTrial],
    space: PlanSpace,
    judged: Collection[str] = (),
    *,
    count: Callable[[str], int] = estimate_tokens,
    limit: int = _LIMIT,
) -> Iterator[Example]:
    """Yield plans, answered by the edits that lead to better plans (good) and to worse ones (bad).

    A plan and its answer have one fidelity and differ in one to three fields and by more than two standard errors; the
    group names both quartets. The question is the one that ``llm-propose`` would have asked before the answer was
    trained. Its plans are of the parent's quartet, because others may belong to another split.
    The question drops items to stay inside ``limit``; campaigns that judge on fresh seeds tell the noise alone.
    """
    for same in trials_by_fidelity(trials):
        noise = noise_of(same)
        fidelity = [trial for trial in same if trial.campaign not in judged]
        begun: dict[str, int] = {}
        for place, trial in enumerate(fidelity):
            begun.setdefault(trial.campaign, place)
        plans = [row for row in trained_plans(fidelity) if set(row.plan.experts) <= set(space.families)]
        history = _History(fidelity, space, noise, count, limit)
        for parent, children in edit_pairs(plans, noise):
            # Of a pair in the other order neither plan was known.
            before = min((child.first for child in children if child.first < parent.first), default=0)
            for child in children:
                moment = before if child.first < parent.first else max(parent.first + 1, begun[child.campaign])
                edit = edit_between(parent.plan, child.plan)
                if edit is None:
                    continue
                question, gap = history.question(parent, moment), noise.gap(parent, child)
                group = "|".join((group_of(parent.plan.experts), group_of(child.plan.experts)))
                worth = {"good": gap > 0, "score": child.accuracy, "weight": weight_of(gap)}
                yield answered(Task.IMPROVE, question, edit_text(edit), group, plan_text(parent.plan), **worth)


class _History:
    """Questions about plans as they were at a moment; the effects are fitted at a few moments."""

    def __init__(
        self, trials: Sequence[StoredTrial], space: PlanSpace, noise: Noise, count: Callable[[str], int], limit: int
    ) -> None:
        self._trials, self._space, self._noise = trials, space, noise
        self._count, self._limit = count, limit
        self._quartets: dict[str, list[int]] = defaultdict(list)
        self._begun: dict[str, int] = {}
        for number, trial in enumerate(trials):
            self._quartets[group_of(trial.experts)].append(number)
            for name in trial.experts:
                self._begun.setdefault(name, number)
        self._cuts = sorted({len(trials) * part // _FITS for part in range(_FITS)})
        self._values: dict[int, dict[str, Any]] = {}

    def question(self, parent: TrainedPlan, moment: int) -> Rendered:
        """Render the question about a plan from the trials before a moment."""
        cut = self._cuts[bisect_right(self._cuts, moment) - 1]
        if cut not in self._values:
            self._values[cut] = plan_values(self._trials[:cut], self._space)
        numbers = self._quartets[group_of(parent.plan.experts)]
        own = [self._trials[number] for number in numbers if number < moment]
        plans = trained_plans(own)
        tried = tried_values(parent, plans, self._noise)
        about = {"text": plan_text(parent.plan), "accuracy": f"{parent.accuracy:.4f}", "edited": True}
        values = {**self._values[cut], "noise": self._noise.points, "best": best_plans(own), "tried": tried}
        # Since the effects were fitted, further families were trained, the plan's own among them.
        untrained = (name for name in values["unmeasured"] if self._begun.get(name, moment) >= moment)
        values["unmeasured"] = [name for name in untrained if name not in parent.plan.experts]
        return ask(Task.IMPROVE, {**values, "parent": about}, self._limit, self._count)


def summary_examples(
    trials: Sequence[StoredTrial],
    space: PlanSpace,
    *,
    count: Callable[[str], int] = estimate_tokens,
    limit: int = _LIMIT,
) -> Iterator[Example]:
    """Yield measured effects, answered by a plan of the best quarter (good) or the worst (bad).

    The effects are fitted five times, each time without a fifth of the quartets; the answer's own quartet is never
    among those that are fitted.
    """
    for fidelity in trials_by_fidelity(trials):
        plans = sorted(trained_plans(fidelity), key=lambda row: -row.accuracy)
        share = max(int(len(plans) * _SUMMARY_SHARE), 1)
        if len(plans) < 4 * share:
            continue
        quartets = sorted({group_of(row.plan.experts) for row in plans}, key=lambda name: derive(0, "summary", name))
        fold = {name: place % _FITS for place, name in enumerate(quartets)}
        questions: dict[int, Rendered] = {}
        for place, row in enumerate(plans):
            if share <= place < len(plans) - share:
                continue
            group = group_of(row.plan.experts)
            if fold[group] not in questions:
                others = [trial for trial in fidelity if fold[group_of(trial.experts)] != fold[group]]
                # Effects alone: example plans would belong to other groups, and so to other splits.
                values = {**plan_values(others, space), "best": []}
                questions[fold[group]] = ask(Task.SUMMARY, values, limit, count)
            question = questions[fold[group]]
            text = plan_text(row.plan)
            yield answered(Task.SUMMARY, question, text, group, text, good=place < share, score=row.accuracy)


def accuracy_examples(trials: Sequence[StoredTrial]) -> Iterator[Example]:
    """Yield plans with their first epochs, answered by the accuracy after the last one."""
    own = {row.candidate for row in trained_plans(trials)}
    for trial in trials:
        # Other plans, and code that a rewriter changed, share their text with a plan of another accuracy.
        if trial.validation_accuracy is None or trial.spec is None or fixed_fields(trial.plan) != _PLAIN:
            continue
        if trial.candidate_id is not None and trial.candidate_id not in own:
            continue
        early = [{"epoch": p.epoch, "accuracy": f"{p.validation_accuracy:.4f}"} for p in trial.curve[:-1]]
        values = {
            "text": plan_text(trial.plan),
            "dataset": public_name(trial.spec.dataset),
            "epochs": trial.spec.epochs,
            "early": early,
        }
        question = ask(Task.ACCURACY, values)
        accuracy = f"{trial.validation_accuracy:.3f}"
        yield answered(Task.ACCURACY, question, accuracy, group_of(trial.experts), trial.candidate_id or "")
