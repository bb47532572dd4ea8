"""Journalled writes: many files that appear together in a folder with other users.

Guarantees, at whatever moment the process is killed:
    - Before the journal is written, the target's files are unchanged; staged files are in
      ``.nngen-export`` and are deleted by the next export.
    - After that the change is certain: each file is replaced as a whole, in the order of ``put``, and
      the next export first completes what a kill interrupted.
    - Sources and transforms are put before the results that name them, so a concurrent reader may
      find a model without results, but never results without their model.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nngen.errors import ExportError

_WORK = ".nngen-export"
_JOURNAL = "journal.json"


class Staging:
    """Files to be written below a folder; opened by ``staging``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._work = root / _WORK
        self._put: dict[str, bytes] = {}

    def read(self, path: str) -> bytes | None:
        """Return a file's bytes after the export; None for a missing file.

        Raises:
            ExportError: If the file exists and cannot be read.
        """
        if path in self._put:
            return self._put[path]
        try:
            return (self.root / path).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ExportError(f"{self.root / path} cannot be read: {error.strerror}") from error

    def put(self, path: str, content: bytes) -> bool:
        """Stage a file for writing; returns False if it exists with the same bytes."""
        if self.read(path) == content:
            return False
        self._put[path] = content
        return True

    def recover(self) -> None:
        """Complete a journal left by a killed export, and delete staged files without a journal."""
        journal = self._work / _JOURNAL
        if journal.exists():
            self._carry_out(json.loads(journal.read_text()))
        for left in self._work.glob("*.part"):
            left.unlink()

    def commit(self) -> None:
        """Write all staged files."""
        moves = {}
        for number, (path, content) in enumerate(self._put.items()):
            staged = self._work / f"{number:06d}.part"
            _write(staged, content)
            moves[staged.name] = path
        if moves:
            # The rename of the journal is the moment of commitment: staged files are on disk before it.
            draft = self._work / "journal.part"
            _write(draft, json.dumps(moves).encode())
            draft.replace(self._work / _JOURNAL)
            _sync(self._work)
            self._carry_out(moves)

    def _carry_out(self, moves: dict[str, str]) -> None:
        for name, path in moves.items():
            staged, target = self._work / name, self.root / path
            if staged.exists():  # else it was moved before a kill
                target.parent.mkdir(parents=True, exist_ok=True)
                staged.replace(target)
        for folder in {(self.root / path).parent for path in moves.values()}:
            _sync(folder)
        (self._work / _JOURNAL).unlink()


@contextmanager
def staging(root: Path) -> Iterator[Staging]:
    """Open a folder for an export; staged files are written when the block ends without an error.

    Raises:
        ExportError: If the folder cannot be created or written, or another export is writing to it.
    """
    made = not root.exists()
    work = root / _WORK
    try:
        work.mkdir(parents=True, exist_ok=True)
        handle = os.open(work, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ExportError(f"cannot export to {root}: {error.strerror}; name another folder with --out") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ExportError(f"another export is writing to {root}: wait for it to end") from error
        target = Staging(root)
        try:
            target.recover()
            yield target
            target.commit()
        except OSError as error:
            name = error.filename or root
            raise ExportError(f"cannot export to {name}: {error.strerror or error}") from error
        finally:
            if not (work / _JOURNAL).exists():
                shutil.rmtree(work, ignore_errors=True)
                if made and root.exists() and not any(root.iterdir()):
                    root.rmdir()
    finally:
        os.close(handle)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
