"""Accuracy of LEMUR's own models from their code: how far a predictor comes on records nobody here made.

Cases are imported records, the best trial of each model at one epoch of one data set. Models whose
code differs in constants alone are one group, and whole groups are held out.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from statistics import fmean

import numpy as np

from nngen.archive import Archive, ExternalModel
from nngen.errors import UsageError
from nngen.surrogate.plan_accuracy import FEWEST, LM, Embed, Judged, Matrix, fit_ridge, folds, judged

__all__ = ["RecordedCase", "judge_recorded", "recorded_cases"]

_HASH = re.compile(r"-?[0-9a-f]{8}(?:[0-9a-f-]*)$")
_CODE_BUDGET = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedCase:
    """A model of LEMUR and the best accuracy recorded for it.

    Attributes:
        family: Its name without the hash at the end: a base, or the generator that wrote it.
        group: Shared by models whose code differs in constants alone.
        accuracy: On LEMUR's test split.
    """

    model: str
    family: str
    group: str
    code: str
    accuracy: float


def recorded_cases(archive: Archive, dataset: str, epoch: int, count: int, seed: int = 0) -> list[RecordedCase]:
    """Draw models with records at an epoch, uniformly; all of them where there are no more than ``count``.

    Raises:
        UsageError: If too few models have such records.
    """
    best: dict[str, float] = {}
    for row in archive.foreign.records(dataset=dataset, epoch=epoch):
        best[row.model] = max(best.get(row.model, 0.0), row.accuracy)
    models = {model.name: model for model in archive.foreign.models() if model.name in best}
    if len(models) < FEWEST:
        raise UsageError(
            f"{len(models)} imported models have records on {dataset} after {epoch} epochs, at least {FEWEST} are "
            "needed: nngen lemur import brings them in"
        )
    names = sorted(models)
    chosen = names if len(names) <= count else sorted(Random(seed).sample(names, count))
    return [_case(models[name], best[name]) for name in chosen]


def judge_recorded(known: Sequence[RecordedCase], embed: Embed | None = None) -> list[Judged]:
    """Cross-validate on held-out groups: the mean, the families' effects, the code's size, and the language model.

    Raises:
        UsageError: If there are too few different groups.
    """
    groups = [case.group for case in known]
    if len(set(groups)) < FEWEST:
        raise UsageError(f"{len(set(groups))} different models are too few to learn from: take at least {FEWEST}")
    vectors = None if embed is None else embed([case.code for case in known])
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for learned, held in folds(groups):
        train, test = [known[index] for index in learned], [known[index] for index in held]
        wanted = [case.accuracy for case in train]
        views = {"families": _families(train, known), "size of the code": _sizes(known)}
        if vectors is not None:
            views[LM] = vectors
            views[f"families + {LM}"] = np.hstack([views["families"], vectors])
        told = {name: fit_ridge(view[learned], wanted)(view[held]) for name, view in views.items()}
        for name, values in {"mean": [fmean(wanted)] * len(test), **told}.items():
            found[name] += zip([case.accuracy for case in test], values, strict=True)
    return [judged(name, pairs) for name, pairs in found.items()]


def _case(model: ExternalModel, accuracy: float) -> RecordedCase:
    code = model.source.strip()
    return RecordedCase(
        model=model.name,
        family=_HASH.sub("", model.name) or "unnamed",
        group=_form(code),
        code=code[:_CODE_BUDGET],
        accuracy=accuracy,
    )


def _form(code: str) -> str:
    """Hash the code's tree with its constants blanked; the code itself where it does not parse."""
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return hashlib.sha256(code.encode()).hexdigest()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            node.value = None
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _families(train: Sequence[RecordedCase], known: Sequence[RecordedCase]) -> Matrix:
    """Mark the family of each case, of those that the train cases hold at least twice."""
    counted = Counter(case.family for case in train)
    names = sorted(name for name, number in counted.items() if number > 1)
    return np.array([[float(case.family == name) for name in names] or [0.0] for case in known], dtype=np.float64)


def _sizes(known: Sequence[RecordedCase]) -> Matrix:
    rows = [
        [len(case.code), case.code.count("\n"), case.code.count("nn.Conv2d"), case.code.count("nn.Linear")]
        for case in known
    ]
    return np.log1p(np.array(rows, dtype=np.float64))
