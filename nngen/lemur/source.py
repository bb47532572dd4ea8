"""Opening LEMUR: the wheel in the cache, or the wheel, checkout or database that the user names."""

from __future__ import annotations

import json
import os
from pathlib import Path

from nngen.errors import LemurError
from nngen.files import path_kind, read_regular, write_atomically
from nngen.lemur.database import DatabaseLemur
from nngen.lemur.fetch import SOURCE_NOTE, cached_wheel, fetch, install_wheel, lemur_dir
from nngen.lemur.reader import CheckoutLemur, Lemur
from nngen.lemur.wheel import ZIP_MAGIC, WheelLemur

_SQLITE = b"SQLite format 3\0"
_KINDS = "the wheel of nn-dataset 2.1.2, a checkout of nn-dataset, or an ab.nn.db"


def open_lemur(path: Path | None = None) -> Lemur:
    """Open LEMUR for reading.

    Args:
        path: A wheel, a checkout or a database. None takes the path in ``NNGEN_LEMUR``, else the one remembered by
            ``nngen lemur fetch --from``, else the wheel in the cache.

    Raises:
        LemurError: If there is nothing to open, or it is broken or of another kind.
    """
    if path is None:
        named = os.environ.get("NNGEN_LEMUR")
        path = Path(named) if named else _remembered()
    if path is None:
        return WheelLemur(cached_wheel())
    if path_kind(path) == "folder":
        return CheckoutLemur(path)
    head = _head(path)
    if head == _SQLITE:
        return DatabaseLemur(path)
    if head.startswith(ZIP_MAGIC):
        return WheelLemur(path)
    raise LemurError(f"{path} is not LEMUR: name {_KINDS}")


def install(path: Path | None = None) -> Path:
    """Make ``path`` the LEMUR that later commands read; None returns to the fetched wheel.

    A wheel is copied into the cache; a checkout or a database stays in its place and is remembered.

    Raises:
        LemurError: If it is none of the three, or broken.
    """
    note = lemur_dir() / SOURCE_NOTE
    if path is None or (path_kind(path) == "file" and _head(path).startswith(ZIP_MAGIC)):
        installed = fetch() if path is None else install_wheel(path)
        note.unlink(missing_ok=True)
        return installed
    open_lemur(path)
    try:
        write_atomically(note, json.dumps({"path": str(path.resolve())}).encode())
    except OSError as error:
        raise LemurError(f"{note} cannot be written: {error.strerror}") from error
    return path


def _head(path: Path) -> bytes:
    try:
        return read_regular(path, len(_SQLITE))
    except OSError as error:
        raise LemurError(f"{path} cannot be read ({error.strerror}): name {_KINDS}") from error


def _remembered() -> Path | None:
    note = lemur_dir() / SOURCE_NOTE
    try:
        return Path(json.loads(note.read_text())["path"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise LemurError(f"{note} is broken ({error}): run nngen lemur fetch again") from error
