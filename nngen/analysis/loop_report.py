"""Report of a closed loop, cycle by cycle: the share of valid and of new proposals, and their accuracies.

The stages of a loop are campaigns whose records name the loop, the cycle (0 is the common start) and a role: training
the proposals of the cycle, or judging the best candidate so far with fresh seeds. Each proposal is an event of its
cycle's campaign.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import TypeAlias

from nngen.analysis.statistics import Rate, Span, difference_interval, mean_share_interval, wilson
from nngen.analysis.suspicion import suspicions
from nngen.archive.records import CampaignRecord, LoopRole, StoredTrial
from nngen.archive.store import Archive
from nngen.types import Fidelity

Stages: TypeAlias = Mapping[LoopRole, Mapping[int, CampaignRecord]]
"""Campaigns of one loop by role and cycle."""

_Z = 1.959964


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopCycle:
    """One cycle of one loop."""

    loop: str
    number: int  # number of the cycle, from 1; 0 is the common start
    rewriter: str  # name of the rewriter; of several, their names
    writers: Mapping[str, int]  # number of proposals by the rewriter that wrote them
    valid: Rate  # share of the proposals that passed every check
    new: Rate  # share of the valid proposals that duplicate no known candidate
    accuracies: tuple[float, ...]  # validation accuracy of each trial of the cycle that can be compared
    left_out: int  # number of its trained trials that cannot: suspect ones, and those with a smaller batch
    span: Span | None  # 95 % interval of their mean; None for fewer than two
    judged: float | None  # mean accuracy of the best candidate so far on fresh seeds; None without such trials
    judged_candidate: str  # id of that candidate
    gain: float | None  # difference of ``judged`` to the cycle before
    noise: float | None  # half the width of the 95 % interval of that difference

    @property
    def shares(self) -> str:
        """Name of the rewriter; of several, each with its share of the proposals."""
        if len(self.writers) < 2:
            return self.rewriter
        asked = sum(self.writers.values())
        return ", ".join(f"{name} {count / asked:.0%}" for name, count in self.writers.items())

    @property
    def mean(self) -> float | None:
        return fmean(self.accuracies) if self.accuracies else None

    @property
    def best(self) -> float | None:
        return max(self.accuracies, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopGap:
    """Difference between the mean accuracies of two loops' proposals after the start, with Welch's interval."""

    other: str
    rewriter: str
    gap: float
    span: Span | None

    @property
    def verdict(self) -> str:
        """Conclusion that the interval allows, in words."""
        if self.span is None:
            return "too few trials to compare"
        return "better" if self.span[0] > 0 else "worse" if self.span[1] < 0 else "not distinguishable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loops:
    """A loop, compared with the other loops of the archive at the same fidelity."""

    name: str
    cycles: tuple[LoopCycle, ...]  # cycles of this loop, followed by those of the others
    gaps: tuple[LoopGap, ...]
    missing_baselines: tuple[str, ...]  # baseline rewriters that no other loop used


def loops(archive: Archive, name: str, baselines: Sequence[str] = ()) -> Loops | None:
    """Read the loop of this name, or of a campaign of this name, beside rewriters for comparison; None without one."""
    stages = _stages(archive)
    own = next((campaign.loop for campaign in archive.campaigns() if campaign.name == name), None)
    mine = own or name
    if mine not in stages:
        return None
    spec = _fidelity(stages[mine])
    names = [mine, *(loop for loop in stages if loop != mine and _fidelity(stages[loop]) == spec)]
    cycles = {loop: _cycles(archive, loop, stages[loop]) for loop in names}
    gaps = [gap for loop in names[1:] if (gap := _gap(cycles[mine], loop, cycles[loop])) is not None]
    compared = {gap.rewriter for gap in gaps}
    return Loops(
        name=mine,
        cycles=tuple(cycle for loop in names for cycle in cycles[loop]),
        gaps=tuple(gaps),
        missing_baselines=tuple(name for name in baselines if name not in compared),
    )


def last_cycle(archive: Archive, name: str) -> str | None:
    """Return the name of the campaign of a loop's last cycle; None if the loop does not exist."""
    found = _stages(archive).get(name)
    return found[LoopRole.CYCLE][max(found[LoopRole.CYCLE])].name if found else None


def _stages(archive: Archive) -> Mapping[str, Stages]:
    """Group campaigns by loop; a loop without its start, or before its first judging, is left out."""
    found: dict[str, dict[LoopRole, dict[int, CampaignRecord]]] = {}
    for campaign in archive.campaigns():
        if campaign.loop is not None and campaign.cycle is not None and campaign.role is not None:
            stages = found.setdefault(campaign.loop, {role: {} for role in LoopRole})
            stages[campaign.role][campaign.cycle] = campaign
    return {loop: stages for loop, stages in found.items() if 0 in stages[LoopRole.CYCLE] and stages[LoopRole.JUDGE]}


def _fidelity(stages: Stages) -> Fidelity:
    return stages[LoopRole.CYCLE][0].fidelity


def _cycles(archive: Archive, loop: str, stages: Stages) -> list[LoopCycle]:
    cycles, judges = stages[LoopRole.CYCLE], stages[LoopRole.JUDGE]
    found: list[LoopCycle] = []
    for number in sorted(cycles):
        trials = archive.trials(cycles[number].name)
        judging = archive.trials(judges[number].name) if number in judges else ()
        before = found[-1] if found else None
        found.append(read_cycle(archive, loop, number, cycles[number].name, trials, judging, before))
    return found


def read_cycle(
    archive: Archive,
    loop: str,
    number: int,
    batch: str,
    trials: Sequence[StoredTrial],
    judging: Sequence[StoredTrial],
    before: LoopCycle | None,
) -> LoopCycle:
    """Summarise a cycle of a loop from the proposals of its batch, its trials, and those of its best candidate."""
    # A second try replaces the first: the last event of a proposal stands.
    asked = {row.detail.get("index"): row.detail for row in archive.events(batch, kinds=("proposal",))}
    valid = [row for row in asked.values() if row.get("stage") == "checked"]
    fresh = [row for row in valid if row.get("twin") is None]
    accuracies, judged = _accuracies(trials), _accuracies(judging)
    gain = noise = None
    if before is not None and before.judged is not None and judged:
        gain = fmean(judged) - before.judged
        spread = variance(judged) if len(judged) > 1 else 0.0
        # Both means are over as many seeds, so the variance of their difference is twice that of one mean.
        noise = _Z * math.sqrt(2 * spread / len(judged))
    writers = Counter(sorted(str(row.get("rewriter", "")) for row in asked.values()))
    return LoopCycle(
        loop=loop,
        number=number,
        rewriter=", ".join(writers),
        writers=dict(writers),
        valid=wilson(len(valid), len(asked)),
        new=wilson(len(fresh), len(valid)),
        accuracies=accuracies,
        left_out=sum(trial.trained for trial in trials) - len(accuracies),
        span=mean_share_interval(accuracies),
        judged=fmean(judged) if judged else None,
        judged_candidate=next((trial.candidate_id or "" for trial in judging), ""),
        gain=gain,
        noise=noise,
    )


def _accuracies(trials: Sequence[StoredTrial]) -> tuple[float, ...]:
    """Return the accuracies that can be compared: of trials that are not suspect, with the batch asked for."""
    reasons = suspicions(trials)
    comparable = (
        trial.validation_accuracy
        for trial in trials
        if trial.id not in reasons and trial.spec and trial.batch in (None, trial.spec.batch)
    )
    return tuple(accuracy for accuracy in comparable if accuracy is not None)


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
