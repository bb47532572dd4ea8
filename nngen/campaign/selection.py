"""Which quartets a campaign takes: all at its beginning, or turn by turn where results decide."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nngen.analysis.effects import effects, scores_of
from nngen.analysis.low_yield import low_yield
from nngen.analysis.observations import is_quartet, observe
from nngen.archive import Store, StoredTrial
from nngen.campaign.spec import CampaignSpec
from nngen.errors import UsageError
from nngen.plan import Plan
from nngen.seeds import derive
from nngen.space import Pool, Quartet, coverage, draw, find_sampler
from nngen.space.registry import Choice, Chooser

__all__ = ["Beginning", "begin", "explored", "next_turn"]

_SAME_DATA = ("data_fingerprint", "shape")
_SAME_WORK = (*_SAME_DATA, "first_rung", "batch", "lr")
_ASKED = ("campaign.created", "campaign.extended")


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """What a campaign begins with.

    Attributes:
        ground: What it stands on, the pool narrowed to what is worth drawing from.
        choices: The first quartets; all of them, unless results decide on the rest.
        notes: What to say of it, one line each.
    """

    ground: Mapping[str, Any]
    choices: tuple[Choice, ...]
    notes: tuple[str, ...]

    @property
    def plans(self) -> list[Plan]:
        return [Plan(experts=choice.quartet) for choice in self.choices]


def begin(spec: CampaignSpec, archive: Store, ground: Mapping[str, Any]) -> Beginning:
    """Draw a campaign's first quartets.

    What the archive knows is used only where the specification says so, and only from campaigns on
    the same data at the same shape.

    Raises:
        UsageError: If the pool has too few quartets, or too few that are new.
    """
    dropped: dict[str, str] = {}
    notes: list[str] = []
    pool = sorted(ground["pool"])
    if spec.exclude_low_yield:
        found = low_yield(observe(_trials(archive, spec, ground, _SAME_DATA)), pool)
        pool, dropped = sorted(found.kept), {row.family: row.reason for row in found.excluded}
        notes += [f"low-yield, left out: {reason}" for reason in dropped.values()]
        notes += [found.note] if found.note else []
    held = _known(archive, spec, ground)
    if held:
        notes.append(f"{len(held):,} quartets are known already and are not drawn again")
    narrowed = dict(ground) | {
        "pool": {name: ground["pool"][name] for name in pool},
        "left_out": {**ground["left_out"], **dropped},
        "known": len(held),
    }
    chooser = find_sampler(spec.sampler).choose
    if chooser is not None:
        _check_room(spec, pool, held)
        choices = _ask(chooser, spec, archive, narrowed, ())
    else:
        drawn = draw(spec.sampler, pool, spec.size, spec.seed, known=held)
        choices = tuple(Choice(quartet=quartet, explored=True) for quartet in drawn)
    audit = coverage(pool, (choice.quartet for choice in choices))
    if audit.biased:
        notes.append(f"biased: {audit.verdict}")
    return Beginning(ground=narrowed, choices=choices, notes=tuple(notes))


def explored(choices: Iterable[Choice]) -> list[bool]:
    """Give the marks that the archive keeps beside the quartets."""
    return [choice.explored for choice in choices]


def next_turn(spec: CampaignSpec, archive: Store) -> tuple[Choice, ...]:
    """Choose the next quartets of a campaign whose trials are all done; none when it has its size.

    A pure function of the archive: asked again after a kill, it chooses the same.
    """
    chooser = find_sampler(spec.sampler).choose
    if chooser is None:
        return ()
    explored = (
        flag for event in archive.events(spec.name) if event.kind in _ASKED for flag in event.detail["explored"]
    )
    trials = sorted((t for t in archive.trials(spec.name) if t.rung == t.replicate == 0), key=lambda t: t.position)
    before = tuple(
        Choice(quartet=tuple(sorted(trial.experts)), explored=flag)
        for trial, flag in zip(trials, explored, strict=True)
    )
    return _ask(chooser, spec, archive, archive.campaign(spec.name).spec, before)


def _ask(
    chooser: Chooser, spec: CampaignSpec, archive: Store, ground: Mapping[str, Any], before: tuple[Choice, ...]
) -> tuple[Choice, ...]:
    pool = sorted(ground["pool"])
    # One turn of every family: results flow back often, and an explored turn is even in itself.
    turn = min(math.ceil(len(pool) / Pool.of(pool).k), spec.size - len(before))
    if turn < 1:
        return ()
    known = observe(_trials(archive, spec, ground, _SAME_WORK))
    inside = [line for line in known if set(line.quartet) <= set(pool)]
    seed = derive(spec.seed, "campaign", spec.sampler)
    held = _known(archive, spec, ground)
    scores = scores_of(effects(inside, pool))
    return chooser(Pool.of(pool), turn, seed, scores, before=before, known=held, min_explore=spec.floor)


def _known(archive: Store, spec: CampaignSpec, ground: Mapping[str, Any]) -> frozenset[Quartet]:
    """Quartets that were tried on the same data at the same shape, failed ones included."""
    if not spec.skip_known:
        return frozenset()
    names = (name for name in _alike(archive, spec, ground, _SAME_DATA) if name != spec.name)
    return frozenset(quartet for name in names for quartet in archive.quartets(name) if is_quartet(quartet))


def _trials(
    archive: Store, spec: CampaignSpec, ground: Mapping[str, Any], keys: tuple[str, ...]
) -> Iterator[StoredTrial]:
    for name in _alike(archive, spec, ground, keys):
        yield from archive.trials(name)


def _alike(archive: Store, spec: CampaignSpec, ground: Mapping[str, Any], keys: tuple[str, ...]) -> list[str]:
    """Campaigns that agree with this one in all keys."""
    own = _with_first_rung(spec.to_dict() | dict(ground))
    others = ((campaign.name, _with_first_rung(campaign.spec)) for campaign in archive.campaigns())
    return [name for name, other in others if all(other.get(key) == own[key] for key in keys)]


def _with_first_rung(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Effects are read from the first rung, so its epochs are what must be equal."""
    return dict(spec) | {"first_rung": (spec.get("rungs") or [spec.get("epochs")])[0]}


def _check_room(spec: CampaignSpec, pool: list[str], held: frozenset[Quartet]) -> None:
    inside = sum(set(quartet) <= set(pool) for quartet in held)
    free = Pool.of(pool).space - inside
    if spec.size > free:
        raise UsageError(f"{spec.size:,} new quartets were asked for, but only {free:,} are not known already")
