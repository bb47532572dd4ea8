"""Journalled writes: many files that appear together in a folder with other users.

Guarantees, at whatever moment the process is killed:
    - Before the journal is written, the target's files are unchanged; staged files are in
      ``.nngen-export`` and are deleted by the next export.
    - After that the change is certain: each file is replaced as a whole, in the order of ``put``, and
      the next export first completes what a kill interrupted.
    - Sources and transforms are put before the results that name them, so a concurrent reader may
      find a model without results, but never results without their model.

Nothing is read or written outside of the target: its folders are opened one by one, links below it are refused, and
of a journal only staged regular files and paths below the target are accepted, for a checkout may bring its own.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from nngen.errors import ExportError
from nngen.files import open_folder, read_regular

_WORK = ".nngen-export"
_JOURNAL = "journal.json"
_STAGED = re.compile(r"\d{6}\.part")
_MAX_READ = 2**28  # bytes of the longest file that is read


class Staging:
    """Files to be written below a folder; opened by ``staging``."""

    def __init__(self, root: Path, work: int) -> None:
        self.root = root
        self._work = work
        self._put: dict[str, bytes] = {}

    def read(self, path: str, limit: int = _MAX_READ) -> bytes | None:
        """Return a file's bytes after the export, at most ``limit`` and one more; None for a missing file.

        Raises:
            ExportError: If the file exists and cannot be read, or a link stands in its place or on the way to it.
        """
        if path in self._put:
            return self._put[path]
        try:
            return read_regular(self.root / path, limit + 1, root=self.root)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ExportError(
                f"{self.root / path} cannot be read: {error.strerror}; name another folder with --out"
            ) from error

    def put(self, path: str, content: bytes) -> bool:
        """Stage a file for writing; returns False if it exists with the same bytes."""
        if self.read(path, len(content)) == content:
            return False
        self._put[path] = content
        return True

    def recover(self) -> None:
        """Complete a journal left by a killed export, and delete staged files without a journal.

        Raises:
            ExportError: If the journal is not one that ``commit`` writes; nothing is changed then.
        """
        journal = self.read(f"{_WORK}/{_JOURNAL}")
        if journal is not None:
            self._carry_out(self._checked(journal))
        for name in os.listdir(self._work):  # noqa: PTH208 - by descriptor: the path may change meanwhile
            if name.endswith(".part"):
                os.unlink(name, dir_fd=self._work)

    def commit(self) -> None:
        """Write all staged files."""
        moves = {}
        for number, (path, content) in enumerate(self._put.items()):
            staged = f"{number:06d}.part"
            _write(staged, content, self._work)
            moves[staged] = path
        if moves:
            # The rename of the journal is the moment of commitment: staged files are on disk before it.
            _write("journal.part", json.dumps(moves).encode(), self._work)
            os.replace("journal.part", _JOURNAL, src_dir_fd=self._work, dst_dir_fd=self._work)
            os.fsync(self._work)
            self._carry_out(moves)

    def _checked(self, text: bytes) -> Mapping[str, str]:
        """Read a journal, which may be anybody's; look at all of it before anything is moved."""
        work = self.root / _WORK
        try:
            moves = json.loads(text)
            for name, path in moves.items():
                parts = PurePosixPath(path).parts
                below = bool(parts) and not path.startswith("/") and parts[0] != _WORK and ".." not in parts
                if not below or not _STAGED.fullmatch(name):
                    raise ExportError(f"{work} names a file outside of {self.root}: remove it")
                self.read(path, 0)  # refuses links on the way
                with suppress(FileNotFoundError):  # it was moved before a kill
                    if not stat.S_ISREG(os.stat(name, dir_fd=self._work, follow_symlinks=False).st_mode):
                        raise ExportError(f"{work / name} is not a regular file: remove {work}")
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise ExportError(f"{work / _JOURNAL} was not written by nngen: remove {work}") from None
        return dict(moves)

    def _carry_out(self, moves: Mapping[str, str]) -> None:
        for name, path in moves.items():
            target = self.root / path
            # What is missing was moved before a kill.
            with open_folder(self.root, target.parent, make=True) as folder, suppress(FileNotFoundError):
                os.replace(name, target.name, src_dir_fd=self._work, dst_dir_fd=folder)
        for parent in {(self.root / path).parent for path in moves.values()}:
            with open_folder(self.root, parent) as folder:
                os.fsync(folder)
        os.unlink(_JOURNAL, dir_fd=self._work)


@contextmanager
def staging(root: Path) -> Iterator[Staging]:
    """Open a folder for an export; staged files are written when the block ends without an error.

    Raises:
        ExportError: If the folder cannot be created or written, or another export is writing to it.
    """
    made = not root.exists()
    work = root / _WORK
    try:
        root.mkdir(parents=True, exist_ok=True)
        with open_folder(root, work, make=True) as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ExportError(f"another export is writing to {root}: wait for it to end") from error
            target = Staging(root, handle)
            try:
                target.recover()
                yield target
                target.commit()
            finally:
                if not (work / _JOURNAL).exists():
                    shutil.rmtree(work, ignore_errors=True)
                    if made and root.exists() and not any(root.iterdir()):
                        root.rmdir()
    except OSError as error:
        name = error.filename or root
        raise ExportError(
            f"cannot export to {name}: {error.strerror or error}; name another folder with --out"
        ) from error


def _write(name: str, content: bytes, folder: int) -> None:
    # A file of that name was deleted before: what stands there now is somebody else's.
    number = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666, dir_fd=folder)
    with os.fdopen(number, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
