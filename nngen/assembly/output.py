"""Candidates as files: ``<id>.py``, whole or absent."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from nngen.assembly.expert import transform_code
from nngen.assembly.plan_toml import to_toml
from nngen.errors import UsageError
from nngen.files import package_folder as templates
from nngen.plan import Plan
from nngen.types import Candidate, Family, Interface

__all__ = ["FolderWriter", "order_of", "prepare_folder", "write_candidate"]


class FolderWriter:
    """Writes candidates into a folder; what is there already is left alone, so that the same work goes on.

    Attributes:
        position: Always 0: a folder does not say how far its writer came, its files do.
        finished: Whether all was written.
    """

    def __init__(self, folder: Path) -> None:
        prepare_folder(folder)
        self.folder, self.position, self.finished = folder, 0, False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is left to do."""

    def add(self, candidate: Candidate) -> bool:
        """Write a candidate; tell whether it was not there already."""
        return write_candidate(candidate, self.folder)[1]

    def reach(self, position: int) -> None:
        """Every file is whole as soon as it is there."""

    def finish(self) -> None:
        self.finished = True


def order_of(plan: Plan, pool: Mapping[str, tuple[Family, Interface]], count: int) -> str:
    """Identify the candidates that a walk through a pool's quartets gives, and their order."""
    families = [(name, family.fingerprint, repr(interface)) for name, (family, interface) in sorted(pool.items())]
    digest = hashlib.sha256(repr((transform_code(), to_toml(plan), families, count)).encode())
    for file in sorted((*(Path(__file__).parent / "snippets").glob("*.py"), *templates("templates").rglob("*.py.j2"))):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def prepare_folder(folder: Path) -> None:
    """Make sure that a folder exists and takes files.

    Raises:
        UsageError: If it cannot be made, is a file, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial = folder / f".nngen-{os.getpid()}.part"
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise _unwritable(folder, error) from None


def write_candidate(candidate: Candidate, folder: Path) -> tuple[Path, bool]:
    """Write a candidate's source, unless the same file is there already.

    A reader sees the whole file or none: it is written beside its place and then moved there.

    Returns:
        Its path, and whether it was written now.

    Raises:
        UsageError: If the folder cannot be written.
    """
    path = folder / f"{candidate.id}.py"
    content = candidate.source.encode()
    part = folder / f".{candidate.id}-{os.getpid()}.part"
    try:
        if path.is_file() and path.read_bytes() == content:
            return path, False
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise _unwritable(folder, error) from None
    return path, True


def _unwritable(folder: Path, error: OSError) -> UsageError:
    return UsageError(f"cannot write into {folder}: {error.strerror or error}; choose another folder with --out")
