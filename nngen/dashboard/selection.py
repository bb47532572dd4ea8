"""Rows of a leaderboard that a reader chose: a fidelity, words, limits; their order, their page, their Pareto front."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

from nngen.analysis.ranking.rows import Row, by_fidelity, describe_fidelity
from nngen.dashboard.snapshot import Snapshot
from nngen.dashboard.view import number
from nngen.errors import UsageError

SORTABLE = ("rank", "validation_accuracy", "test_accuracy", "seeds", "seconds", "parameters")
"""Columns that a leaderboard is sorted by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Rows of one fidelity that a reader chose."""

    campaign: str  # name of the campaign; "" for the whole archive
    fidelities: tuple[str, ...]  # titles of all fidelities that have rows
    fidelity: int  # number of the one that is shown
    rows: tuple[Row, ...]  # rows of that fidelity that fit the filters, in the order asked for
    trained: int  # number of all its rows
    words: str  # words that each row has among its experts and in its id
    least: float | None  # least accuracy; None without a limit
    fair: bool  # whether suspect rows are left out
    sort: str  # column that the rows are sorted by; a minus before it stands for falling

    @property
    def query(self) -> dict[str, str]:
        """The query that chooses the same rows again."""
        least = "" if self.least is None else f"{self.least:g}"
        values = {"campaign": self.campaign, "words": self.words, "least": least, "fair": "1" if self.fair else ""}
        values |= {"fidelity": str(self.fidelity or ""), "sort": "" if self.sort == "rank" else self.sort}
        return {name: value for name, value in values.items() if value}


def select(snapshot: Snapshot, query: Mapping[str, str]) -> Selection:
    """Choose rows of a leaderboard by a query.

    Raises:
        UsageError: If a value of the query is not of its kind, or the campaign does not exist.
    """
    campaign = query.get("campaign", "")
    if campaign:
        snapshot.archive.campaign(campaign)
    groups = by_fidelity(snapshot.rows(campaign or None))
    fidelity = int(number(query, "fidelity", 0))
    if not 0 <= fidelity < max(1, len(groups)):
        raise UsageError(f"fidelity must be a number from 0 to {max(1, len(groups)) - 1}")
    rows = groups[fidelity] if groups else []
    words, least, fair = query.get("words", ""), number(query, "least", -1.0), bool(query.get("fair"))
    sort = query.get("sort", "rank")
    column = sort.removeprefix("-")
    if column not in SORTABLE:
        raise UsageError(f"sort must be one of {', '.join(SORTABLE)}")
    wanted = words.casefold().split()
    chosen = [
        row
        for row in rows
        if row.validation_accuracy >= least
        and not (fair and row.suspect)
        and all(word in f"{', '.join(row.experts)} {row.id}".casefold() for word in wanted)
    ]
    if sort != "rank":
        # Rows without a value come last in both orders.
        known = [row for row in chosen if getattr(row, column) is not None]
        known.sort(key=lambda row: getattr(row, column), reverse=sort.startswith("-"))
        chosen = known + [row for row in chosen if getattr(row, column) is None]
    return Selection(
        campaign=campaign,
        fidelities=tuple(f"{describe_fidelity(group[0])}: {len(group):,}" for group in groups),
        fidelity=fidelity,
        rows=tuple(chosen),
        trained=len(rows),
        words=words,
        least=least if least >= 0 else None,
        fair=fair,
        sort=sort,
    )


def front(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Return the Pareto front: no other row is as accurate with as few parameters in as little time, best first."""
    found: list[Row] = []
    # The fewest seconds of accurate rows up to a number of parameters: parameters rise and seconds fall.
    parameters: list[float] = []
    seconds: list[float] = []
    for row in sorted(rows, key=lambda row: (-row.validation_accuracy, row.parameters or inf, row.seconds)):
        size = row.parameters or inf
        place = bisect_right(parameters, size)
        if place and seconds[place - 1] <= row.seconds:
            continue
        found.append(row)
        start = place - 1 if place and parameters[place - 1] == size else place
        end = start
        while end < len(parameters) and seconds[end] >= row.seconds:
            end += 1
        parameters[start:end], seconds[start:end] = [size], [row.seconds]
    return tuple(found)
