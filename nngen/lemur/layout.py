"""Names, ids and result files in LEMUR's own format, which an export must match to the letter.

The rules were read in the code of nn-dataset 2.1.2 and 2.2.11; ``eval/lemur_ids.py`` compares them with 2.1.2's files.
"""

from __future__ import annotations

import enum
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nngen.errors import UsageError
from nngen.lemur.records import Results

SOURCES = "ab/nn/nn"
TRANSFORMS = "ab/nn/transform"
RESULTS = "ab/nn/stat/train"

_NAME = re.compile(r"(?:[A-Za-z0-9.-]+-)?[0-9a-f]{32}")
_HASH = re.compile(r"-?[0-9a-f]{8}(?:[0-9a-f-]*)$")
_PART = re.compile(r"[A-Za-z0-9.,-]+")
_NOT_IN_UID = frozenset({"uid", "duration", "accuracy", "epoch"})


class LemurVersion(enum.StrEnum):
    """Releases of nn-dataset whose layout is supported."""

    V2_1_2 = "2.1.2"
    V2_2_11 = "2.2.11"


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochScore:
    """Result of one trial after one epoch, as LEMUR stores it."""

    epoch: int  # epochs trained so far; the name of the file
    accuracy: float  # accuracy on the test split, in [0, 1]
    duration_ns: int  # nanoseconds of training so far
    # hyperparameters of the model (``lr``, ``batch``, ``transform``, ``epoch``, ...)
    prm: Mapping[str, float | int | str]
    # further figures of the run, which only 2.2.11 stores
    train_stat: Mapping[str, float | int | str | None] = field(default_factory=dict)


def digest(value: object) -> str:
    """Return the MD5 of a value's text with all white space removed, in hex: the basis of all of LEMUR's ids."""
    # As re.sub(r"\s", "", ...), in a fifth of the time: 0.2 ms for the 40 kB of a mixture.
    return hashlib.md5("".join(str(value).split()).encode(), usedforsecurity=False).hexdigest()


def nn_id(source: str) -> str:
    """Return LEMUR's id of a model's source: the MD5 of its text with all white space removed, in hex.

    Programs that differ in indentation only share it; ``nngen.assembly.identity.canonical_hash`` tells them apart.
    """
    return digest(source)


def family_of(model: str) -> str:
    """Return the name of a model of LEMUR without its trailing hash: a base family, or the generator that wrote it."""
    return _HASH.sub("", model) or "unnamed"


def uid(prm: Mapping[str, Any]) -> str:
    """Return LEMUR's id of a set of hyperparameters, keys sorted; results in ``prm`` are left out."""
    return digest({key: prm[key] for key in sorted(prm) if key not in _NOT_IN_UID})


def stat_id(results: Results, score: EpochScore) -> str:
    """Return the primary key of a trial's row in LEMUR's database; equal keys mean the same trial."""
    return _stat_id(results, score.epoch, entry(results, score, LemurVersion.V2_1_2))


def check_names(results: Results) -> None:
    """Check that LEMUR can read the names back.

    2.1.2 splits a folder's name at underscores; one name too many aborts its whole import.

    Raises:
        UsageError: If task, data set, metric or model holds an underscore or another character
            that no name of LEMUR has, or the model is not ``[<prefix>-]<md5>``.
    """
    for kind, name in zip(("task", "data set", "metric", "model"), results, strict=True):
        if "_" in name:
            raise UsageError(f"{kind} {name!r} has an underscore, at which LEMUR splits names: write a dash instead")
        if not _PART.fullmatch(name):
            raise UsageError(f"{kind} {name!r} cannot be a name in LEMUR: use letters, digits, dots and dashes")
    if not _NAME.fullmatch(results.model):
        raise UsageError(f"model {results.model!r} is not named as LEMUR names what is generated: [<prefix>-]<md5>")


def entry(results: Results, score: EpochScore, version: LemurVersion) -> dict[str, Any]:
    """Return one trial at one epoch as the dictionary in LEMUR's JSON, keys sorted."""
    written: dict[str, Any] = {
        **score.prm,
        "accuracy": score.accuracy,
        "duration": score.duration_ns,
        "uid": uid(score.prm),
    }
    if version is LemurVersion.V2_2_11:
        written |= {
            "duration_seconds": round(score.duration_ns / 1e9, 2),
            f"metric_{results.metric}": score.accuracy,
            "task": results.task,
            "dataset": results.dataset,
            "metric": results.metric,
            "model": results.model,
            "train_stat": dict(score.train_stat),
        }
    return dict(sorted(written.items()))


def merge_entries(
    results: Results, epoch: int, there: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Add trials to those of a file as LEMUR does: best first, older first among equals, each once."""
    known = {_stat_id(results, epoch, trial) for trial in there}
    merged = list(there)
    for trial in new:
        key = _stat_id(results, epoch, trial)
        if key not in known:
            known.add(key)
            merged.append(trial)
    return sorted(merged, key=lambda trial: float(trial["accuracy"]), reverse=True)


def write_entries(trials: Sequence[Mapping[str, Any]]) -> str:
    """Return the content of one result file, indented by 4 as LEMUR does."""
    return json.dumps(list(trials), indent=4, allow_nan=False)


def _stat_id(results: Results, epoch: int, trial: Mapping[str, Any]) -> str:
    values = [trial.get("transform"), trial.get("uid"), *results, epoch, trial.get("duration"), trial.get("accuracy")]
    return digest(values)
