"""Exceptions of nngen, with the exit codes of the command line.

    NngenError            exit 1   the work failed
    ├── UsageError        exit 2   invalid arguments; the message names valid ones
    │   ├── FamilyError            unknown, repeated or unusable family
    │   ├── RewriterError          unusable language model, adapter, prompt or feedback set
    │   └── PlanError              invalid plan
    ├── LemurError        exit 1   LEMUR's database is missing, damaged or of another kind
    ├── AssemblyError     exit 1   a family's source cannot become an expert (names family and line)
    ├── DataError         exit 1   data set missing, damaged or too small
    ├── ArchiveError      exit 1   the archive cannot be read or written
    ├── EngineLostError   exit 1   a trial was lost for a reason outside the candidate; it may be retried
    ├── ExportError       exit 1   the trials cannot be exported, or the target cannot be written
    ├── MissingExtraError exit 2   an optional dependency is missing; the message has the install command
    └── SomeFailedError   exit 3   the command completed, but some candidates failed

A message is one line that names the object and the remedy.
"""

from __future__ import annotations

__all__ = [
    "ArchiveError",
    "AssemblyError",
    "DataError",
    "EngineLostError",
    "ExportError",
    "FamilyError",
    "LemurError",
    "MissingExtraError",
    "NngenError",
    "PlanError",
    "RewriterError",
    "SomeFailedError",
    "UsageError",
]


class NngenError(Exception):
    """Base class: the work failed."""

    exit_code = 1


class UsageError(NngenError):
    """Invalid arguments."""

    exit_code = 2


class FamilyError(UsageError):
    """An unknown, repeated or unusable family."""


class PlanError(UsageError):
    """An invalid plan."""


class RewriterError(UsageError):
    """An unusable language model, adapter, prompt or feedback set."""


class LemurError(NngenError):
    """LEMUR's database is missing, damaged or of another kind."""


class AssemblyError(NngenError):
    """A family's source cannot become an expert."""


class DataError(NngenError):
    """A data set is missing, damaged or too small."""


class ArchiveError(NngenError):
    """The archive cannot be read or written."""


class EngineLostError(NngenError):
    """A trial was lost for a reason outside the candidate (such as a lost machine); it may be retried."""


class ExportError(NngenError):
    """The trials cannot be exported, or the target cannot be written."""


class MissingExtraError(NngenError):
    """An optional dependency is not installed."""

    exit_code = 2

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: pip install '.[{extra}]' in nngen's folder")


class SomeFailedError(NngenError):
    """The command completed, but some candidates failed."""

    exit_code = 3
