"""The rules that read a source without running it, in order."""

from __future__ import annotations

from nngen.checks.rule import CheckFailed, StaticRule
from nngen.checks.rules.contract import Contract
from nngen.checks.rules.forbidden import Forbidden
from nngen.checks.rules.syntax import Syntax
from nngen.checks.source import Source
from nngen.types import Outcome, Verdict

__all__ = ["STATIC_RULES", "static_check"]

STATIC_RULES: tuple[StaticRule, ...] = (Syntax(), Forbidden(), Contract())
"""Syntax comes first: the others need a tree."""


def static_check(source: str) -> Verdict:
    """Look at a source without importing it; the first rule that refuses it decides."""
    subject = Source(source)
    try:
        for rule in STATIC_RULES:
            rule.check(subject)
    except CheckFailed as refused:
        return refused.verdict
    return Verdict(outcome=Outcome.VALID)
