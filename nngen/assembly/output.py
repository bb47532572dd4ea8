"""Writers of candidates: files ``<id>.py`` in a folder, or one Zstandard-compressed tar that can be resumed.

A file in a folder is there whole or not at all. The tar is a sequence of pairs: a skippable frame (RFC 8878, 3.1.2),
which every decoder passes over, and a data frame. The first gives the length of the second and the position in the
order of quartets that it ends at. A tar whose writer was killed is cut back to its last whole pair, and the next writer
starts from there. The data frames are concatenated tar members; the last one is the end of the archive.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import tarfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from nngen.assembly.identity import TEMPLATE_VERSION
from nngen.assembly.plan_toml import to_toml
from nngen.errors import UsageError
from nngen.files import write_atomically
from nngen.plan import Plan
from nngen.types import Candidate, Family, Interface

_MAGIC = 0x184D2A50
_HEAD = struct.Struct("<II")
_END = b"\0" * 1024
_MAX_HEAD = 4096  # bytes of the longest head that is read


class FolderWriter(AbstractContextManager["FolderWriter"]):
    """Writes candidates into a folder; files that are there already are left alone, so that work can be resumed."""

    position, finished = 0, False

    def __init__(self, folder: Path) -> None:
        prepare_folder(folder)
        self.folder = folder

    def __exit__(self, *_: object) -> None:
        """Do nothing: every file is closed."""

    def add(self, candidate: Candidate) -> bool:
        """Write a candidate; return whether it was not there already."""
        return write_candidate(candidate, self.folder)[1]

    def reach(self, position: int) -> None:
        """Do nothing: a folder does not record its writer's position."""

    def finish(self) -> None:
        """Do nothing: every file is whole as soon as it is there."""


def order_of(plan: Plan, pool: Mapping[str, tuple[Family, Interface]], count: int) -> str:
    """Identify the candidates that a walk through a pool's quartets gives, and their order, by a hash in hex."""
    families = [(name, family.fingerprint, repr(interface)) for name, (family, interface) in sorted(pool.items())]
    return hashlib.sha256(repr((TEMPLATE_VERSION, to_toml(plan), families, count)).encode()).hexdigest()


def prepare_folder(folder: Path) -> None:
    """Make sure that a folder exists and takes files.

    Raises:
        UsageError: If it cannot be made, is a file, or cannot be written.
    """
    try:
        trial = folder / f".nngen-{os.getpid()}.part"
        write_atomically(trial, b"")
        trial.unlink()
    except OSError as error:
        raise _unwritable(folder, error) from None


def write_candidate(candidate: Candidate, folder: Path) -> tuple[Path, bool]:
    """Write a candidate's source, unless the same file is there already.

    Returns:
        Its path, and whether it was written now.

    Raises:
        UsageError: If the folder is missing or cannot be written.
    """
    path = folder / f"{candidate.id}.py"
    content = candidate.source.encode()
    try:
        if path.is_file() and path.read_bytes() == content:
            return path, False
        folder.stat()
        write_atomically(path, content)
    except OSError as error:
        raise _unwritable(folder, error) from None
    return path, True


class TarWriter(AbstractContextManager["TarWriter"]):
    """Appends candidates to a ``.tar.zst``; the same candidates in the same order give the same bytes.

    Args:
        path: Path of the file; made if it is missing, resumed if it is there.
        order: Hash of the plans and their order; a file that was begun with another is refused.
        batch: Candidates per frame, which is the most that is lost when the writer is killed.

    Attributes:
        position: Number of plans of the order that the file covers.
        count: Number of candidates in the file.
        finished: Whether the file covers the whole order.

    Raises:
        UsageError: If the file cannot be written, now or later, or is another's.
    """

    def __init__(self, path: Path, order: str, *, batch: int = 256) -> None:
        self.path, self.order, self.batch = path, order, batch
        self.position = self.count = 0
        self.finished = False
        self._members: list[bytes] = []
        self._compressor = zstandard.ZstdCompressor(level=6)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = path.open("r+b" if path.exists() else "x+b")
            try:
                self._go_on()
            except BaseException:
                self._file.close()
                raise
        except OSError as error:
            raise self._unwritable(error) from None
        self._reached = self.position

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None or issubclass(kind, KeyboardInterrupt):
                self._flush()
        finally:
            self._file.close()

    def add(self, candidate: Candidate) -> bool:
        """Add a candidate; return true, because the file never holds one that is yet to be given."""
        content = candidate.source.encode()
        info = tarfile.TarInfo(f"{candidate.id}.py")
        info.size = len(content)
        padding = b"\0" * (-len(content) % tarfile.BLOCKSIZE)
        self._members.append(info.tobuf(tarfile.USTAR_FORMAT) + content + padding)
        return True

    def reach(self, position: int) -> None:
        """Record that every plan before ``position`` was added or passed over; write a frame when it is full."""
        self._reached = position
        if len(self._members) >= self.batch:
            self._flush()

    def finish(self) -> None:
        """Write the end of the tar: the file covers the whole order."""
        self._flush()
        self._write(_END, {"finished": True})
        self.finished = True

    def _flush(self) -> None:
        if self._reached > self.position:
            self._write(b"".join(self._members), {})
            self.count += len(self._members)
            self.position, self._members = self._reached, []

    def _write(self, data: bytes, more: Mapping[str, Any]) -> None:
        frame = self._compressor.compress(data)
        members = len(self._members)
        head = {"order": self.order, "bytes": len(frame), "position": self._reached, "members": members, **more}
        payload = json.dumps(head).encode()
        try:
            self._file.write(_HEAD.pack(_MAGIC, len(payload)) + payload + frame)
            self._file.flush()
        except OSError as error:
            raise self._unwritable(error) from None

    def _go_on(self) -> None:
        """Find the end of the last whole pair of frames, and cut off the rest."""
        size, end = self._file.seek(0, io.SEEK_END), 0
        while (head := self._read_head(end, size)) is not None:
            if head["order"] != self.order:
                raise UsageError(f"{self.path} was begun with other families or another plan: choose another file")
            end = self._file.tell() + head["bytes"]
            self.position, self.count = head["position"], self.count + head["members"]
            self.finished = bool(head.get("finished"))
        self._file.seek(0)
        if not end and not _HEAD.pack(_MAGIC, 0)[:4].startswith(self._file.read(4)):
            raise UsageError(f"{self.path} is there already and was not written by nngen: choose another file")
        self._file.seek(end)
        self._file.truncate()

    def _read_head(self, start: int, size: int) -> Mapping[str, Any] | None:
        self._file.seek(start)
        begin = self._file.read(_HEAD.size)
        if len(begin) < _HEAD.size:
            return None
        magic, length = _HEAD.unpack(begin)
        if magic != _MAGIC:
            return None
        try:
            head = json.loads(self._file.read(min(length, _MAX_HEAD)))
            counts = [head[name] for name in ("bytes", "position", "members")]
            # Of another's file nothing is believed: a negative length would lead back to the same place for ever.
            whole = all(type(count) is int and count >= 0 for count in counts)
            whole = whole and isinstance(head["order"], str) and self._file.tell() + head["bytes"] <= size
            return head if whole else None
        except (ValueError, TypeError, KeyError, RecursionError):
            return None

    def _unwritable(self, error: OSError) -> UsageError:
        return UsageError(f"cannot write {self.path}: {error.strerror or error}; choose another place with --out")


def _unwritable(folder: Path, error: OSError) -> UsageError:
    return UsageError(f"cannot write into {folder}: {error.strerror or error}; choose another folder with --out")
