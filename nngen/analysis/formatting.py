"""Numbers as a report writes them; what is not known is a dash."""

from __future__ import annotations

from nngen.analysis.effects import Interval

__all__ = ["accuracy", "amount", "count", "duration", "p", "percent", "points", "sentence", "span"]


def percent(share: float) -> str:
    """Write a share; small ones with two decimals."""
    return f"{share:.2%}" if 0 < share < 0.1 else f"{share:.0%}" if share in (0, 1) else f"{share:.1%}"


def accuracy(value: float | None) -> str:
    """Write an accuracy with the four decimals it is compared by."""
    return "-" if value is None else f"{value:.4f}"


def count(value: int | None) -> str:
    """Write a count with thousands set apart."""
    return "-" if value is None else f"{value:,}"


def duration(seconds: float | None) -> str:
    """Write seconds in the unit that suits them."""
    if seconds is None:
        return "-"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def points(value: float | None) -> str:
    """Write an effect on accuracy in points (0.01), signed."""
    return "-" if value is None else f"{100 * value:+.2f}".replace("-", "\N{MINUS SIGN}")


def span(interval: Interval | None) -> str:
    """Write an interval in points."""
    return "-" if interval is None else f"{points(interval.low)} to {points(interval.high)}"


def p(value: float | None) -> str:
    """Write an error probability."""
    if value is None:
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def amount(value: float | None) -> str:
    """Write hours, energy or money with four digits that say something."""
    return "-" if value is None else f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"


def sentence(text: str) -> str:
    """Write a clause as a sentence."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"
