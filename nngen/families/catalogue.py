"""The base families: what mixtures are made of."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from nngen.errors import FamilyError, LemurError
from nngen.families.user_families import named_places, user_families
from nngen.files import write_atomically
from nngen.lemur.fetch import lemur_dir
from nngen.lemur.source import Lemur
from nngen.text import did_you_mean
from nngen.types import Family, Record

__all__ = ["LIST_FAMILIES", "best_record", "choose", "is_base", "load_families"]

LIST_FAMILIES = "nngen families lists the base families"

DATASET = "cifar-10"
_GENERATED = re.compile(r"-[0-9a-f]{8}")


def is_base(model: str) -> bool:
    """Whether a name is that of a base family: upper case first, no hash in it, no mixture."""
    return model[:1].isupper() and _GENERATED.search(model) is None and "MoE" not in model


def load_families(lemur: Lemur, outside: Iterable[str] = ()) -> dict[str, Family]:
    """Read the base families with CIFAR-10 accuracies (34 in nn-dataset 2.1.2), sorted by name.

    Args:
        lemur: Where they come from.
        outside: Further places to take families from, as in ``nngen.families.user_families``; those of the environment
            variable ``NNGEN_FAMILIES_FROM`` are added.

    Raises:
        LemurError: If there is none, or what is there cannot be read.
        FamilyError: If a family from outside cannot be read, or has the name of one of LEMUR's.
    """
    more = user_families(named_places(outside))
    own = _load_base(lemur)
    if taken := sorted(more.keys() & own.keys()):
        raise FamilyError(f"LEMUR has a family {taken[0]} already: rename the file from outside")
    return dict(sorted((own | more).items()))


def _load_base(lemur: Lemur) -> dict[str, Family]:
    best = _kept_best(lemur)
    if best is None:
        models = set(lemur.models())
        names = [model for model in lemur.recorded_models(DATASET) if is_base(model) and model in models]
        best = {name: best_record(lemur.records(name, DATASET)) for name in sorted(names)}
        _keep_best(lemur, best)
    if not best:
        raise LemurError(f"{lemur.name} holds no family with {DATASET} accuracies: nngen needs nn-dataset 2.1.2")
    return {name: _family(name, lemur.source(name), record) for name, record in best.items()}


def choose(families: Mapping[str, Family], names: Iterable[str]) -> tuple[Family, ...]:
    """Look families up by name, in the order given.

    Raises:
        FamilyError: If a name is unknown (the message names the nearest) or comes twice.
    """
    chosen: dict[str, Family] = {}
    for name in names:
        if name not in families:
            raise FamilyError(f"no family is called {name!r}: {did_you_mean(name, families, otherwise=LIST_FAMILIES)}")
        if name in chosen:
            raise FamilyError(f"family {name} is named twice: name different ones")
        chosen[name] = families[name]
    return tuple(chosen.values())


def best_record(records: Iterable[Record]) -> Record | None:
    """The record with the highest accuracy; the earliest epoch of equal ones."""
    return max(records, key=lambda record: (record.accuracy, -record.epoch), default=None)


def _family(name: str, source: str, best: Record | None) -> Family:
    return Family(name=name, source=source, fingerprint=hashlib.sha256(source.encode()).hexdigest(), best=best)


def _kept_best(lemur: Lemur) -> dict[str, Record | None] | None:
    """What an earlier run found in the same LEMUR: 20,000 records need not be read again."""
    try:
        rows = json.loads(_best_file(lemur).read_bytes()) if lemur.identity else None
        return None if rows is None else {name: row and Record(**row) for name, row in rows.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _keep_best(lemur: Lemur, best: Mapping[str, Record | None]) -> None:
    if lemur.identity is None:
        return
    rows = {name: record and asdict(record) for name, record in best.items()}
    # A cache that cannot be written only costs the time.
    with suppress(OSError):
        write_atomically(_best_file(lemur), json.dumps(rows).encode())


def _best_file(lemur: Lemur) -> Path:
    return lemur_dir() / f"best-{lemur.identity}.json"
