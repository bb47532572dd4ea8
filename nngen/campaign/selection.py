"""Candidate sources of a campaign: sampled quartets, and quartets chosen by results.

A sampler, with or without a fixed order, is one entry of ``nngen.space.registry.SAMPLERS``; the first two sources make
a campaign of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from nngen.analysis.effects import effects, scores_of
from nngen.analysis.observations import is_quartet, low_yield, observe
from nngen.archive.records import CampaignRecord, TrialLine
from nngen.archive.store import Archive
from nngen.assembly.plan_validation import check_drawn
from nngen.campaign.protocols import CandidateSource, Suggestion
from nngen.campaign_spec import CampaignSpec
from nngen.errors import ArchiveError, UsageError
from nngen.seeds import derive
from nngen.space import Pool, Quartet, draw, find_sampler
from nngen.space.rank import dimensions
from nngen.space.registry import Choice, Chooser


class SampledQuartets(CandidateSource):
    """All quartets of a campaign at once, in the order of a sampler that does not depend on results."""

    def suggest(self, record: CampaignRecord, trials: Sequence[TrialLine], archive: Archive) -> Sequence[Suggestion]:
        spec, pool = record.spec, sorted(record.pool)
        before = tuple(tuple(sorted(trial.experts)) for trial in _first(trials))
        if len(before) >= spec.size:
            return ()
        known = _known_quartets(record, archive)
        drawn = draw(spec.sampler, pool, spec.size, spec.seed, known=known)
        new = drawn[len(before) :]
        if drawn[: len(before)] != before:
            # A campaign that grew, and whose order is another one by now: more is known, or the sampler has changed.
            new = draw(spec.sampler, pool, spec.size - len(before), spec.seed, known=known | set(before))
        return [Suggestion(plan=replace(spec.plan, experts=quartet)) for quartet in new]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenQuartets(CandidateSource):
    """Quartets chosen turn by turn from the results so far, with a least share of exploration."""

    chooser: Chooser  # sampler that learns

    def suggest(self, record: CampaignRecord, trials: Sequence[TrialLine], archive: Archive) -> Sequence[Suggestion]:
        spec, families = record.spec, sorted(record.pool)
        pool, known = Pool.of(families), _known_quartets(record, archive)
        if not trials or archive.campaign(record.name).spec.size < spec.size:
            # Refused when it begins or grows: a campaign that runs out of quartets later would never be over.
            free = pool.space - sum(set(quartet) <= set(families) for quartet in known)
            if spec.size > free:
                raise UsageError(f"{spec.size:,} new quartets were asked for, but only {free:,} are not known already")
        before = _chosen(record, trials, archive)
        # One turn uses every family once: results flow back often, and an explored turn is even in itself.
        turn = min(math.ceil(len(families) / pool.k), spec.size - len(before))
        if turn < 1:
            return ()
        lines = observe((*_other_trials(record, archive, same_training=True), *trials))
        # Results of other campaigns may have other families, which cannot be drawn here.
        inside = [line for line in lines if set(line.quartet) <= set(families)]
        seed = derive(spec.seed, "campaign", spec.sampler)
        scores = scores_of(effects(inside, families))
        choices = self.chooser(pool, turn, seed, scores, before=before, known=known, min_explore=spec.min_explore)
        return [
            Suggestion(plan=replace(spec.plan, experts=choice.quartet), explored=choice.explored) for choice in choices
        ]


class FamiliesAlone(CandidateSource):
    """Each family of the pool alone under the recipe of the campaigns that sample quartets."""

    def suggest(self, record: CampaignRecord, trials: Sequence[TrialLine], archive: Archive) -> Sequence[Suggestion]:
        return () if trials else [Suggestion(plan=record.spec.plan.alone(name)) for name in sorted(record.pool)]


SOURCES: dict[str, Callable[[], CandidateSource]] = {}
"""Sources of the samplers that read more of an archive than effects, by name; registered beside their classes."""


def source_of(spec: CampaignSpec) -> CandidateSource:
    """Return the source for the sampler of a specification.

    Raises:
        UsageError: If the sampler is unknown, or learns from results and the campaign has rungs.
        PlanError: If no quartet can have its plan.
    """
    if spec.alone:
        return FamiliesAlone()
    check_drawn(spec.plan)
    chooser = find_sampler(spec.sampler).choose
    if chooser is not None and spec.rungs:
        raise UsageError(
            f"{spec.sampler} learns from trials of one fidelity: choose another sampler, or leave out --rungs and more"
            " --epochs"
        )
    if chooser is None:
        return SampledQuartets()
    return SOURCES[spec.sampler]() if spec.sampler in SOURCES else ChosenQuartets(chooser=chooser)


def narrow(record: CampaignRecord, archive: Archive) -> tuple[CampaignRecord, tuple[str, ...]]:
    """Leave out of a new campaign's pool what its specification excludes.

    Results of the archive count only where the specification says so, and only those on the same data at the same
    shape.

    Returns:
        The record with its final pool, and notes for the user.
    """
    notes: list[str] = []
    if record.spec.exclude_low_yield:
        found = low_yield(observe(_other_trials(record, archive)), sorted(record.pool))
        dropped = {row.family: row.reason for row in found.excluded}
        pool = {name: record.pool[name] for name in sorted(found.kept)}
        record = replace(record, pool=pool, left_out={**record.left_out, **dropped})
        notes += [f"low-yield, left out: {reason}" for reason in dropped.values()]
        notes += [found.note] if found.note else []
    known = _known_quartets(record, archive)
    if known:
        notes.append(f"{len(known):,} quartets are known already and are not drawn again")
    return replace(record, known=len(known)), tuple(notes)


def effects_note(record: CampaignRecord, quartets: Sequence[Quartet]) -> str:
    """Say how many quartets a new campaign needs for an effect of every family, and whether it has as many."""
    pool, size = sorted(record.pool), record.spec.size
    missing = len(pool) - dimensions(quartets, pool) if len(quartets) == size else 0
    needed = max(len(pool) + 1, size + missing if missing else 0)
    if needed <= size:
        return f"an effect of each of {len(pool)} families needs at least {needed} trained quartets: {size:,} are drawn"
    return (
        f"too few quartets ({size:,}) for an effect of each of {len(pool)} families: "
        f"at least {needed} must be trained (--size {needed})"
    )


def _known_quartets(record: CampaignRecord, archive: Archive) -> frozenset[Quartet]:
    """Return the quartets that other campaigns tried on the same data at the same shape, failed ones included."""
    if not record.spec.skip_known:
        return frozenset()
    names = _similar(record, archive)
    return frozenset(quartet for name in names for quartet in archive.quartets(name) if is_quartet(quartet))


def _chosen(record: CampaignRecord, trials: Sequence[TrialLine], archive: Archive) -> tuple[Choice, ...]:
    """Read earlier choices: quartets stand in the trials, whether they were explored in the events beside them."""
    events = archive.events(record.name, kinds=("campaign.created", "campaign.extended"))
    try:
        explored = [bool(flag) for event in events for flag in event.detail["explored"]]
        choices = zip(_first(trials), explored, strict=True)
        return tuple(Choice(quartet=tuple(sorted(trial.experts)), explored=flag) for trial, flag in choices)
    except (LookupError, TypeError, ValueError):
        raise ArchiveError(
            f"archive {archive.path}: events of campaign {record.name} do not say which quartets were explored: "
            "restore a copy"
        ) from None


def _first(trials: Sequence[TrialLine]) -> list[TrialLine]:
    """Return the first trial of each candidate, in the order of planning."""
    return sorted((t for t in trials if t.rung == t.replicate == 0), key=lambda trial: trial.position)


def _similar(record: CampaignRecord, archive: Archive, same_training: bool = False) -> list[str]:
    """Name the other campaigns on the same data at the same shape; with the same training and plan, where asked for.

    Effects are read from the first rung, so its epochs are the ones that must be equal.
    """

    def key(other: CampaignRecord) -> tuple[object, ...]:
        return (other.fidelity, other.spec.plan) if same_training else (other.data_fingerprint, other.spec.shape)

    return [other.name for other in archive.campaigns() if key(other) == key(record) and other.name != record.name]


def _other_trials(record: CampaignRecord, archive: Archive, same_training: bool = False) -> Iterator[TrialLine]:
    return (trial for name in _similar(record, archive, same_training) for trial in archive.lines(name))
