"""Interface of a check rule: a name, an order, a check, and the cases that it accepts and refuses."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar, TypeVar

from nngen.checks.source import Source
from nngen.types import Outcome, Verdict

if TYPE_CHECKING:  # it loads torch, which static rules do without
    from nngen.checks.context import CheckContext


class CheckFailed(Exception):  # noqa: N818 - it carries a verdict, it is not a fault of ours
    """Raised where a candidate breaks a rule; carries the verdict."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.message)
        self.verdict = verdict


def fail(outcome: Outcome, rule: str, message: str, *, line: int | None = None) -> CheckFailed:
    """Make the exception for one broken rule; a line number is put in front of the message."""
    place = f"line {line}: " if line is not None else ""
    return CheckFailed(Verdict(outcome=outcome, rule=rule, message=place + message, line=line))


@dataclass(frozen=True, slots=True, kw_only=True)
class Invalid:
    """A source that a rule refuses, and the verdict expected of it."""

    source: str
    message: str  # part of the verdict's message
    outcome: Outcome
    line: int | None = None  # the verdict's line, from 1; None where the verdict has none


class _Rule:
    """Class variables of every rule.

    Attributes:
        name: The name that verdicts give.
        order: Position among the rules of its kind, ascending: a rule may rely on those before it.
        VALID: Sources that the rule accepts.
        INVALID: Sources that the rule refuses.
    """

    name: ClassVar[str]
    order: ClassVar[int]
    VALID: ClassVar[tuple[str, ...]]
    INVALID: ClassVar[tuple[Invalid, ...]]


class StaticRule(_Rule):
    """A rule that reads the source and never runs it."""

    def check(self, source: Source) -> None:
        """Return if the source keeps the rule.

        Raises:
            CheckFailed: If the source breaks the rule.
        """
        raise NotImplementedError


class DynamicRule(_Rule):
    """A rule that runs the candidate, inside a worker; it finds in the context what earlier rules built."""

    def check(self, context: CheckContext) -> None:
        """Return if the candidate keeps the rule.

        Raises:
            CheckFailed: If the candidate breaks the rule.
        """
        raise NotImplementedError


_RuleType = TypeVar("_RuleType", StaticRule, DynamicRule)


def discover(package: ModuleType, kind: type[_RuleType]) -> tuple[_RuleType, ...]:
    """Import every module of ``package`` and instantiate the rules of a kind defined there, in ascending order."""
    rules: list[_RuleType] = []
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        # Only classes defined in the module itself: each imports the base class too.
        own = [value for value in vars(module).values() if getattr(value, "__module__", None) == module.__name__]
        rules += [value() for value in own if isinstance(value, type) and issubclass(value, kind)]
    return tuple(sorted(rules, key=lambda rule: rule.order))
