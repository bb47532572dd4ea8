"""Static check of a source: every static rule in order, without importing the source."""

from __future__ import annotations

from functools import cache

from nngen.checks.rule import CheckFailed, StaticRule, discover
from nngen.checks.rules import static
from nngen.checks.source import Source
from nngen.types import Outcome, Verdict


@cache
def static_rules() -> tuple[StaticRule, ...]:
    """Return the rules in ``nngen.checks.rules.static``, in order."""
    return discover(static, StaticRule)


def static_check(source: str) -> Verdict:
    """Return ``valid``, or the verdict of the first static rule that the source breaks."""
    parsed = Source(source)
    try:
        for rule in static_rules():
            rule.check(parsed)
    except CheckFailed as failure:
        return failure.verdict
    return Verdict(outcome=Outcome.VALID)
