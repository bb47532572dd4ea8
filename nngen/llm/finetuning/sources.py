"""Training examples of whole files: assembled mixtures with their plans and accuracies, and LEMUR's models.

They are long (an assembled file has 8,000 tokens or more), so they make a view of their own, for models of 7 billion
parameters and a long context.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise

from nngen.analysis.ranking.reliability import ASSUMED_SD
from nngen.archive.records import StoredCandidate, StoredTrial
from nngen.lemur.layout import family_of
from nngen.llm.finetuning.comparisons import answered, ask, edit_pairs, group_of, trials_by_fidelity, weight_of
from nngen.llm.finetuning.splits import LEMUR, Example, Task
from nngen.llm.proposals.deltas import write_delta
from nngen.llm.proposals.evidence import Noise, TrainedPlan, noise_of, plan_key, trained_candidates
from nngen.llm.proposals.parsing import fenced
from nngen.seeds import derive
from nngen.text import public_name
from nngen.types import Hyperparameters, Record

_MOST_FILES = 300  # of a fidelity; a file has about 40 kB, and is part of three rows
_MOST_PAIRS = 50  # of one family of LEMUR: nearly all pairs with equal hyperparameters are FractalNets
_CLEAR = 2 * 2**0.5 * ASSUMED_SD  # difference of two accuracies of LEMUR, which were taken once each, that counts


def source_examples(trials: Iterable[StoredTrial], candidate: Callable[[str], StoredCandidate]) -> Iterator[Example]:
    """Yield assembled files: as the answer to their plan, with their accuracy, and with the change to a better one.

    A change leads to a file whose plan one edit makes, or whose code a rewriter wrote, and that is better by more than
    two standard errors. The replicated candidates are taken first, and then the best.
    """
    written: set[str] = set()
    for same in trials_by_fidelity(trials):
        spec, noise = same[0].spec, noise_of(same)
        assert spec is not None  # trials with a fidelity have one
        rows = sorted(trained_candidates(same).values(), key=lambda row: (-row.seeds, -row.accuracy, row.candidate))
        files = {row.candidate: candidate(row.candidate) for row in rows[:_MOST_FILES]}
        about = {
            "dataset": public_name(spec.dataset),
            "epochs": spec.epochs,
            "hyperparameters": _listed(
                {"batch": spec.batch, "lr": spec.lr, "momentum": spec.momentum, **spec.hyperparameters}
            ),
        }
        for row in rows[:_MOST_FILES]:
            stored = files[row.candidate]
            yield _example(Task.CODE, {**about, "code": stored.source.strip()}, f"{row.accuracy:.3f}", row)
            if stored.plan is not None and row.candidate not in written:
                written.add(row.candidate)
                text = json.dumps(stored.plan.to_dict(), separators=(",", ":"))
                yield _example(Task.SOURCE, {"text": text}, fenced(stored.source), row)
        for parent, children in _steps(rows[:_MOST_FILES], noise):
            for child in children:
                if (gap := noise.gap(parent, child)) > 1:
                    before, after = (files[item.candidate].source for item in (parent, child))
                    told = {"accuracy": f"{parent.accuracy:.4f}", "code": before.strip()}
                    delta = fenced(write_delta(before, after), "diff")
                    yield _example(Task.DELTA, {**about, **told}, delta, parent, other=child, weight=weight_of(gap))


def _steps(rows: Iterable[TrainedPlan], noise: Noise) -> Iterator[tuple[TrainedPlan, list[TrainedPlan]]]:
    """Yield files with those that are one step away: an edit of the plan, or code that a rewriter wrote."""
    first: dict[str, TrainedPlan] = {}
    rewritten: dict[str, list[TrainedPlan]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.first):
        owner = first.setdefault(plan_key(row.plan), row)
        if owner is not row:  # code that a rewriter changed has its parent's plan
            rewritten[owner.candidate].append(row)
    yield from edit_pairs(list(first.values()), noise)
    yield from ((row, rewritten[row.candidate]) for row in first.values() if row.candidate in rewritten)


def lemur_examples(sources: Mapping[str, str], records: Iterable[Record]) -> Iterator[Example]:
    """Yield LEMUR's models: with their best accuracy at an epoch, and with the change to a better one of their family.

    The two of a change were trained on the same data with the same hyperparameters for as many epochs.
    """
    best: dict[tuple[str, str, int], Record] = {}
    alike: dict[tuple[str, str, int, str], dict[str, float]] = defaultdict(dict)
    for row in records:
        if row.model not in sources or not 0 <= row.accuracy <= 1:  # a foreign database may hold anything
            continue
        key = (row.model, row.dataset, row.epoch)
        if key not in best or row.accuracy > best[key].accuracy:
            best[key] = row
        group = alike[family_of(row.model), row.dataset, row.epoch, _listed(row.hyperparameters)]
        group[row.model] = max(row.accuracy, group.get(row.model, 0.0))
    for (model, dataset, epoch), row in sorted(best.items()):
        about = {"dataset": dataset, "epochs": epoch, "hyperparameters": _listed(row.hyperparameters)}
        yield _lemur(Task.CODE, {**about, "code": sources[model].strip()}, f"{row.accuracy:.3f}", model)
    pairs: Counter[str] = Counter()
    for place, models in sorted(alike.items(), key=lambda item: derive(0, "alike", *item[0])):
        family, dataset, epoch, chosen = place
        for pair in pairwise(sorted(models, key=lambda name: derive(0, "pair", name))):
            worse, better = sorted(pair, key=lambda name: models[name])
            if pairs[family] < _MOST_PAIRS and models[better] - models[worse] > _CLEAR:
                pairs[family] += 1
                about = {"dataset": dataset, "epochs": epoch, "hyperparameters": chosen}
                told = {"accuracy": f"{models[worse]:.4f}", "code": sources[worse].strip()}
                delta = fenced(write_delta(sources[worse], sources[better]), "diff")
                yield _lemur(Task.LEMUR, {**about, **told}, delta, worse)


def _lemur(task: Task, values: Mapping[str, object], answer: str, model: str) -> Example:
    """Make an example of a model; whole families lie in one split."""
    return answered(task, ask(task, values), answer, f"{LEMUR}{family_of(model)}", model)


def _example(
    task: Task,
    values: Mapping[str, object],
    answer: str,
    row: TrainedPlan,
    *,
    other: TrainedPlan | None = None,
    weight: float = 1.0,
) -> Example:
    """Make an example of a candidate, or of a candidate and the better one."""
    quartets = dict.fromkeys(group_of(item.plan.experts) for item in (row, other) if item is not None)
    return answered(task, ask(task, values), answer, "|".join(quartets), row.candidate, weight=weight)


def _listed(values: Hyperparameters) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(values.items()))
