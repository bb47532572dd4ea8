"""The closed loop of a rewriter, cycle by cycle: how much of what it proposed was valid and new, and how good it was.

``nngen evolve NAME`` keeps its cycles as campaigns ``NAME-0`` (the common start), ``NAME-1``, ..., each proposal as an
event of its cycle, and the judging of the best on fresh seeds as ``NAME-judge-0``, ``NAME-judge-1``, ...
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from nngen.analysis.statistics import Rate, Span, difference_interval, mean_interval, wilson
from nngen.archive import Store, StoredCampaign

__all__ = ["LoopCycle", "LoopGap", "Loops", "last_cycle", "loops"]

_STAGE = re.compile(r"(?P<loop>.+?)-(?P<judge>judge-)?(?P<number>\d+)")
_FIDELITY = ("dataset", "shape", "epochs", "batch", "lr")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopCycle:
    """One cycle of one loop.

    Attributes:
        loop: The loop's name.
        number: From 1; 0 is the common start.
        rewriter: Who proposed.
        valid: Share of the proposals that passed every check.
        new: Share of the valid ones that repeat nothing.
        accuracies: Validation accuracy of each trial of the cycle.
        span: Of their mean.
        judged: Mean accuracy of the best candidate so far on fresh seeds; None where it was not judged.
    """

    loop: str
    number: int
    rewriter: str
    valid: Rate
    new: Rate
    accuracies: tuple[float, ...]
    span: Span | None
    judged: float | None

    @property
    def mean(self) -> float | None:
        return fmean(self.accuracies) if self.accuracies else None

    @property
    def best(self) -> float | None:
        return max(self.accuracies, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopGap:
    """Mean accuracy of all that one loop proposed after the start, less another loop's; Welch's interval."""

    other: str
    rewriter: str
    gap: float
    span: Span | None

    @property
    def verdict(self) -> str:
        """Say in words what the interval allows to conclude."""
        if self.span is None:
            return "too few trials to compare"
        return "better" if self.span[0] > 0 else "worse" if self.span[1] < 0 else "not told apart"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loops:
    """A loop, beside the others of the archive at the same fidelity.

    Attributes:
        name: The loop's.
        cycles: Of this loop, then of the others.
        gaps: To each other loop.
    """

    name: str
    cycles: tuple[LoopCycle, ...]
    gaps: tuple[LoopGap, ...]

    @property
    def baselines(self) -> frozenset[str]:
        """Which of ``random`` and ``mutate`` it can be compared with."""
        return frozenset({gap.rewriter for gap in self.gaps} & {"random", "mutate"})


def loops(archive: Store, name: str) -> Loops | None:
    """Read the loop that a campaign belongs to; None where it belongs to none."""
    stages = _stages(archive)
    mine = next((loop for loop, found in stages.items() if name in (loop, *(row.name for row in found.values()))), None)
    if mine is None:
        return None
    spec = _fidelity(stages[mine])
    names = [mine, *(loop for loop in stages if loop != mine and _fidelity(stages[loop]) == spec)]
    cycles = {loop: _cycles(archive, loop, stages[loop]) for loop in names}
    gaps = (_gap(cycles[mine], loop, cycles[loop]) for loop in names[1:])
    return Loops(
        name=mine,
        cycles=tuple(cycle for loop in names for cycle in cycles[loop]),
        gaps=tuple(gap for gap in gaps if gap is not None),
    )


def last_cycle(archive: Store, name: str) -> str | None:
    """Name the campaign of a loop's last cycle; None where no loop is called so."""
    found = _stages(archive).get(name, {})
    numbers = [int(stage) for stage in found if stage.isdigit()]
    return found[str(max(numbers))].name if numbers else None


def _stages(archive: Store) -> Mapping[str, Mapping[str, StoredCampaign]]:
    """Group campaigns by loop, then by what follows the loop's name; a loop is what has been judged."""
    found: dict[str, dict[str, StoredCampaign]] = {}
    for campaign in archive.campaigns():
        told = _STAGE.fullmatch(campaign.name)
        if told is not None:
            found.setdefault(told["loop"], {})[f"{told['judge'] or ''}{told['number']}"] = campaign
    return {loop: rows for loop, rows in found.items() if "0" in rows and any(key.startswith("judge-") for key in rows)}


def _fidelity(found: Mapping[str, StoredCampaign]) -> list[object]:
    return [found["0"].spec.get(key) for key in _FIDELITY]


def _cycles(archive: Store, loop: str, found: Mapping[str, StoredCampaign]) -> list[LoopCycle]:
    return [
        _cycle(archive, loop, int(stage), campaign, found.get(f"judge-{stage}"))
        for stage, campaign in sorted(found.items(), key=lambda row: (len(row[0]), row[0]))
        if stage.isdigit()
    ]


def _cycle(archive: Store, loop: str, number: int, campaign: StoredCampaign, judge: StoredCampaign | None) -> LoopCycle:
    # A second try replaces the first: the last event of a proposal stands.
    asked = {row.detail["index"]: row.detail for row in archive.events(campaign.name) if row.kind == "proposal"}
    valid = [row for row in asked.values() if row["stage"] == "checked"]
    fresh = [row for row in valid if row["twin"] is None]
    accuracies = _accuracies(archive, campaign)
    judged = _accuracies(archive, judge) if judge is not None else ()
    return LoopCycle(
        loop=loop,
        number=number,
        rewriter=next((str(row["rewriter"]) for row in asked.values()), ""),
        valid=wilson(len(valid), len(asked)),
        new=wilson(len(fresh), len(valid)),
        accuracies=accuracies,
        span=mean_interval(accuracies),
        judged=fmean(judged) if judged else None,
    )


def _accuracies(archive: Store, campaign: StoredCampaign) -> tuple[float, ...]:
    found = (trial.validation_accuracy for trial in archive.trials(campaign.name))
    return tuple(value for value in found if value is not None)


def _gap(mine: Sequence[LoopCycle], name: str, theirs: Sequence[LoopCycle]) -> LoopGap | None:
    ones, others = ([v for cycle in side if cycle.number > 0 for v in cycle.accuracies] for side in (mine, theirs))
    if not ones or not others:
        return None
    writers = {cycle.rewriter for cycle in theirs if cycle.number > 0}
    return LoopGap(
        other=name,
        rewriter=writers.pop() if len(writers) == 1 else "a model",
        gap=fmean(ones) - fmean(others),
        span=difference_interval(ones, others),
    )
