"""Accuracy of LEMUR's imported models predicted from their code, on recorded results.

A case is an imported model with its best recorded accuracy at one epoch of one data set. Models
whose code differs in constants alone form one group, and whole groups are left out of a fit.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from nngen.archive.store import Archive
from nngen.errors import UsageError
from nngen.lemur.layout import family_of
from nngen.surrogate.plan_accuracy import (
    LANGUAGE_MODEL,
    MIN_GROUPS,
    Embed,
    Matrix,
    PredictorScore,
    cross_validate,
    fit_ridge,
)
from nngen.text import counted, parse_python

_CODE_LIMIT = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedCase:
    """A model of LEMUR with its best recorded accuracy."""

    model: str
    family: str  # name without the trailing hash: a base family, or the generator that wrote the model
    group: str  # key shared by models whose code differs in constants alone
    code: str
    accuracy: float  # best accuracy on LEMUR's test split; the code is cut at 20,000 characters


def recorded_cases(archive: Archive, dataset: str, epoch: int, count: int, seed: int = 0) -> list[RecordedCase]:
    """Draw models with records at an epoch uniformly; all of them where there are at most ``count``.

    Raises:
        UsageError: If too few models have such records.
    """
    best: dict[str, float] = {}
    for row in archive.external.records(dataset=dataset, epoch=epoch):
        if 0 <= row.accuracy <= 1:  # a foreign database may hold anything
            best[row.model] = max(best.get(row.model, 0.0), row.accuracy)
    models = {model.name: model for model in archive.external.models() if model.name in best}
    if len(models) < MIN_GROUPS:
        raise UsageError(
            f"{len(models)} imported models have records on {dataset} after {counted(epoch, 'epoch')}, at least "
            f"{MIN_GROUPS} are needed: nngen lemur import brings them in"
        )
    names = sorted(models)
    chosen = names if len(names) <= count else sorted(Random(seed).sample(names, count))
    cases = []
    for name in chosen:
        code = models[name].source.strip()
        cases.append(
            RecordedCase(
                model=name, family=family_of(name), group=_shape_of(code), code=code[:_CODE_LIMIT], accuracy=best[name]
            )
        )
    return cases


def compare_on_records(known: Sequence[RecordedCase], embed: Embed | None = None) -> list[PredictorScore]:
    """Cross-validate the mean, family effects, the size of the code and a language model, whole groups left out.

    Raises:
        UsageError: If there are too few different groups.
    """
    groups = [case.group for case in known]
    if len(set(groups)) < MIN_GROUPS:
        raise UsageError(f"{len(set(groups))} different models are too few to learn from: take at least {MIN_GROUPS}")
    accuracies = [case.accuracy for case in known]
    vectors = None if embed is None else embed([case.code for case in known])

    def predict(train: Sequence[int], test: Sequence[int]) -> dict[str, list[float]]:
        families = _family_columns([known[index] for index in train], known)
        views = {"families": families, "size of the code": _sizes(known)}
        if vectors is not None:
            views[LANGUAGE_MODEL] = vectors
            views[f"families + {LANGUAGE_MODEL}"] = np.hstack([families, vectors])
        truth = [accuracies[index] for index in train]
        return {name: fit_ridge(view[train], truth)(view[test]) for name, view in views.items()}

    return cross_validate(groups, accuracies, predict)


def _shape_of(code: str) -> str:
    """Hash the syntax tree with its constants blanked; the text itself where it cannot be read."""
    form = code
    with contextlib.suppress(SyntaxError, RecursionError):
        tree = parse_python(code)
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant):
                node.value = None
        form = ast.dump(tree)
    return hashlib.sha256(form.encode("utf-8", "surrogatepass")).hexdigest()


def _family_columns(train: Sequence[RecordedCase], known: Sequence[RecordedCase]) -> Matrix:
    """Encode the family of each case; families with a single train case get no column."""
    often = Counter(case.family for case in train)
    names = sorted(name for name, number in often.items() if number > 1)
    return np.array([[float(case.family == name) for name in names] or [0.0] for case in known], dtype=np.float64)


def _sizes(known: Sequence[RecordedCase]) -> Matrix:
    rows = [
        [len(case.code), case.code.count("\n"), case.code.count("nn.Conv2d"), case.code.count("nn.Linear")]
        for case in known
    ]
    return np.log1p(np.array(rows, dtype=np.float64))
