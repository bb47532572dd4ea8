"""Formatting of numbers for reports and tables; unknown values become a dash."""

from __future__ import annotations

from collections.abc import Iterable

from nngen.analysis.statistics import Difference, Interval

__all__ = ["accuracy", "amount", "count", "data_titles", "duration", "p", "percent", "points", "sentence", "span"]


def percent(share: float) -> str:
    """Format a share in percent; small ones with two decimals."""
    return f"{share:.2%}" if 0 < share < 0.1 else f"{share:.0%}" if share in (0, 1) else f"{share:.1%}"


def accuracy(value: float | None) -> str:
    """Format an accuracy with four decimals."""
    return "-" if value is None else f"{value:.4f}"


def count(value: int | None) -> str:
    """Format a count with thousands separators."""
    return "-" if value is None else f"{value:,}"


def duration(seconds: float | None) -> str:
    """Format seconds in seconds, minutes or hours."""
    if seconds is None:
        return "-"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def points(value: float | None) -> str:
    """Format an effect on accuracy in points (0.01), signed."""
    return "-" if value is None else f"{100 * value:+.2f}".replace("-", "\N{MINUS SIGN}")


def span(interval: Interval | Difference | None) -> str:
    """Format an interval in points."""
    return "-" if interval is None or interval.low is None else f"{points(interval.low)} to {points(interval.high)}"


def p(value: float | None) -> str:
    """Format an error probability."""
    if value is None:
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def amount(value: float | None) -> str:
    """Format hours, energy or money with four significant digits."""
    return "-" if value is None else f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"


def data_titles(data: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Return the title of each data set in a listing, by name and fingerprint.

    The title is the name. Where a listing has several versions of one name, as of a folder whose images changed, the
    start of the fingerprint tells them apart.
    """
    versions: dict[str, set[str]] = {}
    for name, fingerprint in (known := set(data)):
        versions.setdefault(name, set()).add(fingerprint)
    return {
        (name, fingerprint): f"{name} ({fingerprint[:8]})" if fingerprint and len(versions[name]) > 1 else name
        for name, fingerprint in known
    }


def sentence(text: str) -> str:
    """Turn a clause into a sentence."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"
