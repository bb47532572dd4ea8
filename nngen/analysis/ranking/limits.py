"""Limits of a leaderboard, one clause each, for the terminal, the report and the dashboard."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from nngen.analysis.ranking.fidelity import fidelity_note
from nngen.analysis.ranking.reliability import Reliability, reliability
from nngen.analysis.ranking.rows import Place, Row, by_fidelity, describe_fidelity
from nngen.campaign_spec import TABLE
from nngen.text import listed

_NAMED = 5  # most rows that are named as equal to the best


def limits(rows: Sequence[Row | Place]) -> tuple[str, ...]:
    """State what a leaderboard cannot tell: replays, ties at the top, noise, rankings that longer trainings change."""
    noise = (f"{describe_fidelity(best)}: {found.sentence}" for best, found in reliabilities(rows))
    first = [best for best, _ in _by_fidelity(rows)]
    epochs = (fidelity_note(row.dataset, row.epochs) for row in first)
    tables = dict.fromkeys(row.dataset for row in first if row.dataset.startswith(TABLE))
    replayed = (f"the accuracies on {name} are replayed from a recorded table, not trained" for name in tables)
    return (*replayed, *ties(rows), *noise, *filter(None, dict.fromkeys(epochs)))


def ties(rows: Sequence[Row | Place]) -> tuple[str, ...]:
    """Name, for each fidelity, the rows that cannot be told from its best one, in one clause each."""
    found = []
    for best, same in _by_fidelity(rows):
        tied = [row.id[:13] for row in same[1:] if row.rank_low == 1]
        if tied:
            more = f"{len(tied)} more cannot be told from the best (95 %)"
            found.append(f"{describe_fidelity(best)}: {more}: {listed(tied, _NAMED)}")
    return tuple(found)


def reliabilities(rows: Sequence[Row | Place]) -> list[tuple[Row, Reliability]]:
    """Return the best row of each fidelity with three candidates, and the reliability of its unsuspected accuracies."""
    found = []
    for best, same in _by_fidelity(rows):
        fair = [row for row in same if not row.suspect]
        within = math.fsum((row.seeds - 1) * (row.validation_std or 0.0) ** 2 for row in fair)
        means, seeds = [row.validation_accuracy for row in fair], [row.seeds for row in fair]
        if (estimate := reliability(means, seeds, within, best.images)) is not None:
            found.append((best, estimate))
    return found


def _by_fidelity(rows: Sequence[Row | Place]) -> Iterator[tuple[Row, list[Row | Place]]]:
    """Yield the best row of each fidelity, and all of it in their order."""
    for same in by_fidelity(rows):
        if isinstance(best := same[0], Row):
            yield best, same
