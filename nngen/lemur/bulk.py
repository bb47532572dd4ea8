"""All of LEMUR's results in one pass: 100,000 files, or one query.

Reading them model by model opens the wheel 20,000 times; this opens it once.
"""

from __future__ import annotations

import json
import sqlite3
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from itertools import groupby
from typing import Any, NamedTuple

from nngen.errors import LemurError
from nngen.lemur.checkout import CheckoutLemur
from nngen.lemur.database import DatabaseLemur
from nngen.lemur.layout import RESULTS
from nngen.lemur.records import Results
from nngen.lemur.source import Lemur
from nngen.lemur.wheel import WheelLemur

__all__ = ["ResultFile", "models_with_results", "read_results"]

_ROWS = """
    SELECT rowid, task, dataset, metric, nn, epoch, accuracy, duration, transform, prm AS uid
    FROM stat WHERE accuracy IS NOT NULL ORDER BY task, dataset, metric, nn, epoch, accuracy DESC, rowid
"""


class ResultFile(NamedTuple):
    """The trials of one model at one epoch, as LEMUR wrote them."""

    results: Results
    epoch: int
    trials: list[Mapping[str, Any]]


def read_results(
    lemur: Lemur, datasets: Collection[str] | None = None, models: Collection[str] | None = None
) -> Iterator[ResultFile]:
    """Read every result file, or those of some data sets and models; empty ones are left out.

    Raises:
        LemurError: If one cannot be read, or does not hold a list of trials.
    """

    def wanted(results: Results) -> bool:
        return (datasets is None or results.dataset in datasets) and (models is None or results.model in models)

    if isinstance(lemur, WheelLemur):
        found = _from_wheel(lemur, wanted)
    elif isinstance(lemur, CheckoutLemur):
        found = _from_checkout(lemur, wanted)
    elif isinstance(lemur, DatabaseLemur):
        found = _from_database(lemur, wanted)
    else:
        raise LemurError(f"{lemur.name} cannot be read as a whole: name a wheel, a checkout or an ab.nn.db")
    return (file for file in found if file.trials)


def models_with_results(lemur: Lemur, dataset: str) -> frozenset[str]:
    """Name the models that have a trial of any kind on a data set.

    Raises:
        LemurError: If LEMUR cannot be read.
    """
    return frozenset(file.results.model for file in read_results(lemur, {dataset}))


def _from_wheel(lemur: WheelLemur, wanted: Callable[[Results], bool]) -> Iterator[ResultFile]:
    try:
        with zipfile.ZipFile(lemur.path) as wheel:
            for info in wheel.infolist():
                if not info.filename.startswith(f"{RESULTS}/"):
                    continue
                folder, _, file = info.filename.removeprefix(f"{RESULTS}/").partition("/")
                results, epoch = Results.parse(folder), file.removesuffix(".json")
                if results is not None and epoch.isdigit() and wanted(results):
                    yield _parse(lemur.name, results, int(epoch), wheel.read(info))
    except (OSError, zipfile.BadZipFile) as error:
        raise LemurError(f"{lemur.path} is broken ({error}): run nngen lemur fetch") from error


def _from_checkout(lemur: CheckoutLemur, wanted: Callable[[Results], bool]) -> Iterator[ResultFile]:
    for folder in sorted((lemur.path / RESULTS).iterdir()):
        results = Results.parse(folder.name)
        if results is None or not wanted(results):
            continue
        for file in sorted(folder.glob("*.json")):
            if file.stem.isdigit():
                try:
                    content = file.read_bytes()
                except OSError as error:
                    raise LemurError(f"{file} cannot be read: {error.strerror}") from error
                yield _parse(lemur.name, results, int(file.stem), content)


def _from_database(lemur: DatabaseLemur, wanted: Callable[[Results], bool]) -> Iterator[ResultFile]:
    try:
        with closing(sqlite3.connect(f"{lemur.path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            prm: dict[str, dict[str, Any]] = {}
            for uid, name, value in connection.execute("SELECT DISTINCT uid, name, value FROM prm"):
                prm.setdefault(uid, {})[name] = value
            rows = connection.execute(_ROWS)
            for key, group in groupby(rows, key=lambda row: row[1:6]):
                results = Results(*(str(part) for part in key[:4]))
                if wanted(results):
                    yield ResultFile(results, int(key[4]), [_trial(row, prm) for row in group])
    except sqlite3.Error as error:
        raise LemurError(f"{lemur.path} cannot be read as LEMUR's database: {error}") from error


def _trial(row: tuple[Any, ...], prm: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    accuracy, duration, transform, uid = row[6:]
    chosen = prm.get(uid, {})
    return {**chosen, "transform": transform, "accuracy": accuracy, "duration": duration, "uid": uid}


def _parse(origin: str, results: Results, epoch: int, content: bytes) -> ResultFile:
    try:
        trials = json.loads(content)
    except ValueError as error:
        raise LemurError(f"{origin}: {'_'.join(results)}/{epoch}.json is broken: {error}") from error
    if not isinstance(trials, list) or not all(isinstance(trial, dict) for trial in trials):
        raise LemurError(f"{origin}: {'_'.join(results)}/{epoch}.json does not hold a list of trials")
    return ResultFile(results, epoch, trials)
