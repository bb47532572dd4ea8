"""Which LEMUR is read: a wheel, a checkout or a database; all three speak alike."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Protocol

from nngen.errors import LemurError
from nngen.files import write_atomically
from nngen.lemur.checkout import CheckoutLemur
from nngen.lemur.database import DatabaseLemur
from nngen.lemur.fetch import SOURCE_NOTE, adopt, cached_wheel, fetch, lemur_dir
from nngen.lemur.wheel import ZIP_MAGIC, WheelLemur
from nngen.types import Record

__all__ = ["Lemur", "bring", "open_lemur"]

_SQLITE = b"SQLite format 3\0"
_KINDS = "the wheel of nn-dataset 2.1.2, a checkout of nn-dataset, or an ab.nn.db"


class Lemur(Protocol):
    """A database of models and of what they reached."""

    @property
    def name(self) -> str:
        """The file's or the folder's name."""
        ...

    @property
    def identity(self) -> str | None:
        """Changes when the content does; None where that cannot be told without reading it all."""
        ...

    def models(self) -> tuple[str, ...]:
        """Names of all models with a source, sorted."""
        ...

    def source(self, model: str) -> str:
        """A model's Python source.

        Raises:
            LemurError: If there is none.
        """
        ...

    def records(self, model: str, dataset: str = "cifar-10") -> tuple[Record, ...]:
        """Every recorded trial, by epoch, best first; empty where there is none.

        A model recorded on the data set under several tasks or metrics gives its
        classification accuracies, or else the first by name.
        """
        ...

    def recorded_models(self, dataset: str = "cifar-10") -> tuple[str, ...]:
        """Names of the models that have classification accuracies on a data set, sorted."""
        ...

    def datasets(self, model: str) -> tuple[str, ...]:
        """Names of the data sets a model has records on, sorted."""
        ...


def open_lemur(path: Path | None = None) -> Lemur:
    """Open LEMUR for reading.

    Args:
        path: A wheel, a checkout or a database. None takes what ``NNGEN_LEMUR`` names, else what
            ``nngen lemur fetch --from`` remembered, else the wheel in the cache.

    Raises:
        LemurError: If there is nothing to open, or it is broken or of another kind.
    """
    if path is None:
        named = os.environ.get("NNGEN_LEMUR")
        path = Path(named) if named else _remembered()
    if path is None:
        return WheelLemur(cached_wheel())
    if path.is_dir():
        return CheckoutLemur(path)
    return _open_file(path)


def bring(path: Path | None = None) -> Path:
    """Make ``path`` the LEMUR that later commands read; None goes back to the fetched wheel.

    A wheel is copied into the cache; a checkout or a database stays where it is and is remembered.

    Raises:
        LemurError: If it is none of the three, or broken.
    """
    if path is None:
        kept = fetch()
        _forget()
        return kept
    if path.is_file() and _head(path).startswith(ZIP_MAGIC):
        kept = adopt(path)
        _forget()
        return kept
    open_lemur(path)
    note = {"path": str(path.resolve())}
    try:
        write_atomically(_note(), json.dumps(note).encode())
    except OSError as error:
        raise LemurError(f"{_note()} cannot be written: {error.strerror}") from error
    return path


def _open_file(path: Path) -> Lemur:
    head = _head(path)
    if head == _SQLITE:
        return DatabaseLemur(path)
    if head.startswith(ZIP_MAGIC):
        return WheelLemur(path)
    raise LemurError(f"{path} is not LEMUR: name {_KINDS}")


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE))
    except OSError as error:
        raise LemurError(f"{path} cannot be read ({error.strerror}): name {_KINDS}") from error


def _note() -> Path:
    return lemur_dir() / SOURCE_NOTE


def _remembered() -> Path | None:
    try:
        return Path(json.loads(_note().read_text())["path"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LemurError(f"{_note()} is broken ({error}): run nngen lemur fetch again") from error


def _forget() -> None:
    _note().unlink(missing_ok=True)
