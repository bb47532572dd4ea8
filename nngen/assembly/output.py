"""Candidates as files ``<id>.py`` in a folder: each is there whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from nngen.assembly.identity import TEMPLATE_VERSION
from nngen.assembly.plan_toml import to_toml
from nngen.errors import UsageError
from nngen.files import write_atomically
from nngen.plan import Plan
from nngen.types import Candidate, Family, Interface


class FolderWriter:
    """Writes candidates into a folder; files that are there already are left alone, so that work can be resumed.

    Attributes:
        position: Always 0: a folder does not record its writer's position.
        finished: Whether all is written.
    """

    def __init__(self, folder: Path) -> None:
        prepare_folder(folder)
        self.folder, self.position, self.finished = folder, 0, False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing: every file is closed."""

    def add(self, candidate: Candidate) -> bool:
        """Write a candidate; return whether it was not there already."""
        return write_candidate(candidate, self.folder)[1]

    def reach(self, position: int) -> None:
        """Do nothing: every file is whole as soon as it is there."""

    def finish(self) -> None:
        """Note that all is written."""
        self.finished = True


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


def _unwritable(folder: Path, error: OSError) -> UsageError:
    return UsageError(f"cannot write into {folder}: {error.strerror or error}; choose another folder with --out")
