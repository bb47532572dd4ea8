"""Base families, of which mixtures are made: LEMUR's own and the user's."""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from nngen.errors import FamilyError, LemurError
from nngen.families.family_scopes import top_level_names
from nngen.files import load_json, path_kind, read_regular, store_json
from nngen.lemur.fetch import lemur_dir
from nngen.lemur.reader import Lemur
from nngen.lemur.records import to_records
from nngen.text import decode_python, did_you_mean, one_line, parse_python
from nngen.types import MAX_SOURCE_BYTES, Family, Record

LIST_FAMILIES = "nngen families lists the base families"

DATASET = "cifar-10"
"""The data set by whose records base families are found."""

GROUP = "nngen.families"
"""The entry point group under which packages register families."""

VARIABLE = "NNGEN_FAMILIES_FROM"
"""Environment variable with more places of families, joined as in ``PATH``."""

_GENERATED = re.compile(r"-[0-9a-f]{8}")
_NAME = re.compile(r"[A-Z][A-Za-z0-9.-]*")
_log = logging.getLogger(__name__)
_OBJECT = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def is_base(model: str) -> bool:
    """Return whether a model is a base family by its name: upper case first, no hash in it, not a mixture."""
    return model[:1].isupper() and _GENERATED.search(model) is None and "MoE" not in model


def load_families(lemur: Lemur, outside: Iterable[str] = ()) -> dict[str, Family]:
    """Read the base families with CIFAR-10 accuracies (34 in nn-dataset 2.1.2), sorted by name.

    Those in ``outside`` and in the environment variable ``NNGEN_FAMILIES_FROM`` are added; see ``user_families``.

    Raises:
        LemurError: If LEMUR has no base family, or cannot be read.
        FamilyError: If a family from outside cannot be read, or has the name of one of LEMUR's.
    """
    places = (*outside, *os.environ.get(VARIABLE, "").split(os.pathsep))
    more = user_families(dict.fromkeys(place for place in places if place))
    own = _load_base(lemur)
    if taken := sorted(more.keys() & own.keys()):
        raise FamilyError(f"LEMUR has a family {taken[0]} already: rename the file from outside")
    return dict(sorted((own | more).items()))


def _load_base(lemur: Lemur) -> dict[str, Family]:
    """Read the families from LEMUR, or from the cache: 20,000 records and the wheel's directory take seconds."""
    cache = None if lemur.identity is None else lemur_dir() / f"families-{lemur.identity}.json"
    rows = None if cache is None else load_json(cache)
    with suppress(AttributeError, KeyError, TypeError):
        if rows:
            return {n: make_family(n, row["source"], row["best"] and Record(**row["best"])) for n, row in rows.items()}
    models = set(lemur.models())
    names = [model for model in lemur.recorded_models(DATASET) if is_base(model) and model in models]
    records: dict[str, list[Record]] = {name: [] for name in sorted(names)}
    for file in lemur.read_results({DATASET}, set(names)):
        if file.results.classification:
            records[file.results.model] += to_records(file)
    if not records:
        raise LemurError(f"{lemur.name} holds no family with {DATASET} accuracies: nngen needs nn-dataset 2.1.2")
    families: dict[str, Family] = {}
    for name, found in records.items():
        # The earliest epoch among equal accuracies, and the first trial among these.
        best = max(found, key=lambda record: (record.accuracy, -record.epoch), default=None)
        try:
            families[name] = make_family(name, lemur.source(name), best)
        except LemurError as error:
            lemur.skip(error)
    if cache is not None:
        rows = {name: {"source": one.source, "best": one.best and asdict(one.best)} for name, one in families.items()}
        store_json(cache, rows)
    return families


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


def user_families(places: Iterable[str]) -> dict[str, Family]:
    """Read the user's families from some places, sorted by name.

    A place is a file, a folder with ``*.py`` files (``_*.py`` are left out, helpers are named), the name of an entry
    point of the group ``nngen.families``, or ``package.module:object``. An entry point or object is a mapping, or a
    function without arguments that returns one, of a family's name to its source or to the path of its file.
    Entry points run in this process; the sources run in a worker only.

    Raises:
        FamilyError: If a place is none of these, cannot be read, or two families have one name.
    """
    found: dict[str, Family] = {}
    place_of: dict[str, str] = {}
    for place in places:
        for family in _families(place):
            if family.name in found and family.fingerprint != found[family.name].fingerprint:
                raise FamilyError(
                    f"family {family.name} comes from {place_of[family.name]} and from {place}: rename one of them"
                )
            found[family.name], place_of[family.name] = family, place
    return dict(sorted(found.items()))


def read_family(path: Path, *, root: Path | None = None) -> Family:
    """Read one file as a family; its name is the file's.

    Args:
        path: The file.
        root: Folder that the user named, out of which no link leads; None where the user named the file itself.

    Raises:
        FamilyError: If it cannot be read, or its name cannot be a family's.
    """
    try:
        content = read_regular(path, MAX_SOURCE_BYTES + 1, root=root)
    except OSError as error:
        raise FamilyError(f"{path} cannot be read: {error.strerror}; name regular files") from error
    if path.suffix != ".py":
        raise FamilyError(f"{path} is not a Python file: a family is a file Name.py")
    if len(content) > MAX_SOURCE_BYTES:
        raise FamilyError(f"{path} is longer than {MAX_SOURCE_BYTES // 2**20} MiB, the limit for a family")
    try:
        return _user_family(path.stem, decode_python(content), str(path))
    except UnicodeDecodeError as error:
        raise FamilyError(f"{path} is not {error.encoding.upper()} text: save it as UTF-8") from error
    except ValueError as error:
        raise FamilyError(f"{path} cannot be read as Python: {error}") from error


def _families(place: str) -> list[Family]:
    path = Path(place).expanduser()
    if path_kind(path) == "folder":
        files = sorted(file for file in path.glob("*.py") if not file.name.startswith("_"))
        if not files:
            raise FamilyError(f"{place} holds no .py file: name a folder of families")
        found = [family for file in files if (family := _family_in_folder(file, path))]
        if not found:
            raise FamilyError(f"{place} holds no family: name a folder with files Name.py, each with a class Net")
        return found
    if path.suffix == ".py" or path_kind(path) == "file":
        return [read_family(path)]
    return _from_mapping(_load(place), place)


def _family_in_folder(file: Path, folder: Path) -> Family | None:
    """Read a file of a folder as a family; pass over, with a line, what is a helper by its name or its content."""
    if not _NAME.fullmatch(file.stem):
        _pass_over(file, "a family's name is a capital, then letters, digits, dots, dashes")
        return None
    family = read_family(file, root=folder)
    with suppress(SyntaxError):  # the verdict on the family names the line
        if "Net" not in top_level_names(parse_python(family.source).body):
            _pass_over(file, "it has no class Net")
            return None
    return family


@cache
def _pass_over(file: Path, reason: str) -> None:
    _log.warning("%s is passed over: %s", file, reason)


def _load(place: str) -> Any:
    with _installed_packages_only():
        known = {entry.name: entry for entry in entry_points(group=GROUP)}
        if place not in known and not _OBJECT.fullmatch(place):
            named = f"; installed entry points: {', '.join(sorted(known))}" if known else ""
            raise FamilyError(f"{one_line(place)!r} is not a folder, file or entry point of families{named}")
        try:
            if place in known:
                loaded = known[place].load()
            else:
                module, _, name = place.partition(":")
                loaded = getattr(importlib.import_module(module), name)
            return loaded() if callable(loaded) else loaded
        except Exception as error:  # the user's own code may raise anything
            raise FamilyError(f"the entry point {place!r} cannot be loaded: {one_line(str(error))}") from error


@contextmanager
def _installed_packages_only() -> Iterator[None]:
    """Import nothing from the folder that nngen happens to run in: files there are data, not the user's own code.

    Python puts that folder before its own modules (``python -m``, an empty entry of ``PYTHONPATH``). One that stands
    after them was put there by an editable installation, and stays.
    """
    here = {"", "."}
    with suppress(OSError):  # the folder is gone
        here.add(str(Path.cwd()))
    packages = [Path(entry).name in ("site-packages", "dist-packages") for entry in sys.path]
    end = packages.index(True) if True in packages else len(packages)
    dropped = [(number, entry) for number, entry in enumerate(sys.path[:end]) if entry in here]
    for _, entry in dropped:
        sys.path.remove(entry)
    try:
        yield
    finally:
        for number, entry in dropped:
            sys.path.insert(number, entry)


def _from_mapping(sources: Any, place: str) -> list[Family]:
    if not isinstance(sources, Mapping) or not sources:
        raise FamilyError(f"the entry point {place!r} does not give a mapping of names to sources")
    families = []
    for name, source in sorted(sources.items(), key=lambda item: str(item[0])):
        if isinstance(source, os.PathLike):
            families.append(_user_family(name, read_family(Path(source)).source, place))
        elif isinstance(source, str):
            families.append(_user_family(name, source, place))
        else:
            raise FamilyError(
                f"the entry point {place!r} gives {type(source).__name__} for {name}: give text or a path"
            )
    return families


def _user_family(name: str, source: str, origin: str) -> Family:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise FamilyError(
            f"{origin}: {name!r} cannot be a family's name: a capital, then letters, digits, dots, dashes"
        )
    try:
        size = len(source.encode())
    except UnicodeEncodeError as error:
        raise FamilyError(f"{origin}: {name} is not UTF-8 text: save it as UTF-8") from error
    if size > MAX_SOURCE_BYTES:
        raise FamilyError(f"{origin}: {name} is longer than {MAX_SOURCE_BYTES // 2**20} MiB, the limit for a family")
    return make_family(name, source)


def make_family(name: str, source: str, best: Record | None = None) -> Family:
    """Return the family of a source, with the source's SHA-256 as its fingerprint."""
    return Family(name=name, source=source, fingerprint=hashlib.sha256(source.encode()).hexdigest(), best=best)
