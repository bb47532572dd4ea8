"""What can go wrong, drawn as a tree.

    NngenError            exit 1   the work failed
    ├── UsageError        exit 2   what was typed cannot be done; the message says what can
    │   ├── FamilyError            unknown, repeated or unusable family
    │   ├── RewriterError          a language model, adapter, prompt or feedback set that cannot be used
    │   └── PlanError              a plan that cannot be assembled
    ├── LemurError        exit 1   the database is missing, broken or of another kind
    ├── AssemblyError     exit 1   a family's source cannot become an expert (names family and line)
    ├── DataError         exit 1   a data set is missing, broken or too small
    ├── ArchiveError      exit 1   the archive cannot be read or written
    ├── EngineLostError   exit 1   the engine lost a trial, through no fault of the candidate: it may be tried again
    ├── ExportError       exit 1   what was asked for cannot be exported, or not to there
    ├── MissingExtraError exit 2   an optional part is not installed; the message says the one command
    └── SomeFailedError   exit 3   the command went through, but some candidates failed

Messages are one line: they name the thing and the way out.
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
    """The root: the work failed."""

    exit_code = 1


class UsageError(NngenError):
    """What was typed cannot be done."""

    exit_code = 2


class FamilyError(UsageError):
    """An unknown, repeated or unusable family."""


class PlanError(UsageError):
    """A plan that cannot be assembled."""


class RewriterError(UsageError):
    """A language model, adapter, prompt or feedback set that cannot be used."""


class LemurError(NngenError):
    """The database is missing, broken or of another kind."""


class AssemblyError(NngenError):
    """A family's source cannot become an expert."""


class DataError(NngenError):
    """A data set is missing, broken or too small."""


class ArchiveError(NngenError):
    """The archive cannot be read or written."""


class EngineLostError(NngenError):
    """The engine lost what it ran (a machine went away), through no fault of the candidate: it may be tried again."""


class ExportError(NngenError):
    """What was asked for cannot be exported, or not to there."""


class MissingExtraError(NngenError):
    """An optional part is not installed."""

    exit_code = 2

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'nngen-moe[{extra}]'")


class SomeFailedError(NngenError):
    """The command went through, but some candidates failed."""

    exit_code = 3
