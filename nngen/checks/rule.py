"""What a rule is: a name, a check, and the cases that show what it accepts and what it refuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from nngen.types import Outcome, Verdict

if TYPE_CHECKING:
    from nngen.checks.context import CheckContext
    from nngen.checks.source import Source

__all__ = ["CheckFailed", "DynamicRule", "Invalid", "StaticRule", "refuse"]


class CheckFailed(Exception):  # noqa: N818 - it carries a verdict, it is not a fault of ours
    """A candidate was refused; the verdict says what failed, where, and the way out."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.message)
        self.verdict = verdict


def refuse(outcome: Outcome, rule: str, message: str, *, line: int | None = None) -> CheckFailed:
    """Make the exception of one refusal; the message gets its line number in front."""
    place = f"line {line}: " if line is not None else ""
    return CheckFailed(Verdict(outcome=outcome, rule=rule, message=place + message, line=line))


@dataclass(frozen=True, slots=True, kw_only=True)
class Invalid:
    """A source that a rule refuses.

    Attributes:
        message: Part of the verdict's message.
        outcome: The verdict's outcome.
        line: The line the verdict names, from 1; None where it names none.
    """

    source: str
    message: str
    outcome: Outcome
    line: int | None = None


class StaticRule(Protocol):
    """A rule that reads the source and never runs it."""

    name: ClassVar[str]
    VALID: ClassVar[tuple[str, ...]]
    INVALID: ClassVar[tuple[Invalid, ...]]

    def check(self, source: Source) -> None:
        """Accept the source silently.

        Raises:
            CheckFailed: If the rule is broken.
        """


class DynamicRule(Protocol):
    """A rule that runs the candidate; it is only ever called inside a worker.

    The rules run in order over one bench: a later rule finds there what an earlier one built.
    """

    name: ClassVar[str]
    VALID: ClassVar[tuple[str, ...]]
    INVALID: ClassVar[tuple[Invalid, ...]]

    def check(self, bench: CheckContext) -> None:
        """Accept the candidate silently.

        Raises:
            CheckFailed: If the rule is broken.
        """
