"""Candidates as files: ``<id>.py``, whole or absent."""

from __future__ import annotations

import os
from pathlib import Path

from nngen.errors import UsageError
from nngen.types import Candidate

__all__ = ["prepare_folder", "write_candidate"]


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
