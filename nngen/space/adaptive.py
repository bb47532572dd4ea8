"""The adaptive sampler: quartets chosen by results, with a guaranteed share of exploration.

Explored quartets are the next ones of a fixed order, so they alone remain an even sample that can be audited.
The others are chosen by Thompson sampling (Thompson 1933): every effect is drawn from its estimated
distribution, and the best quartet under that draw is taken, so uncertain families are tried now and then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import combinations
from random import Random
from typing import TypeAlias

from nngen.errors import UsageError
from nngen.seeds import derive
from nngen.space.pool import Pool, Quartet
from nngen.space.registry import SAMPLERS, Choice, SamplerEntry, Scores
from nngen.space.samplers import Stratified

Best: TypeAlias = Callable[[Collection[Quartet], Random], Quartet | None]
"""Returns the best quartet that is not among those taken, under a random draw; None where all are taken."""

SURROGATE = "surrogate"
"""Sampler of a campaign that alternates between an even order and the ranking of ``nngen.surrogate``."""

_FRONT = 12  # families whose quartets are compared for one choice: the best under the draw; more where all are taken


def ask(
    pool: Pool,
    size: int,
    seed: int,
    scores: Scores,
    *,
    before: Sequence[Choice] = (),
    known: Collection[Quartet] = (),
    min_explore: float = 0.25,
) -> tuple[Choice, ...]:
    """Choose the next quartets; arguments and errors as in ``nngen.space.registry.Chooser``.

    Without any estimated family effect all are explored.
    """
    best = partial(_best, pool, scores) if scores.families else None
    return alternate(pool, size, seed, best, before=before, known=known, min_explore=min_explore)


def alternate(
    pool: Pool,
    size: int,
    seed: int,
    best: Best | None,
    *,
    before: Sequence[Choice] = (),
    known: Collection[Quartet] = (),
    min_explore: float = 0.25,
) -> tuple[Choice, ...]:
    """Choose quartets in turn from an even order and by results; arguments and errors as in ``Chooser``.

    At every prefix of all choices ever made, ``before`` included, at least ``min_explore`` of them are
    explored. All are where ``best``, which returns the best free quartet under a random draw, is None.
    """
    if not 0 < min_explore <= 1:
        raise UsageError(f"the share of exploration must be above 0 and at most 1, not {min_explore}")
    if size < 1:
        raise UsageError(f"--size must be at least 1, not {size}")
    taken = {choice.quartet for choice in before} | set(known)
    explored, count = sum(choice.explored for choice in before), len(before)
    unexplored = (quartet for _, quartet in Stratified(pool, derive(seed, "adaptive")).stream())
    choices: list[Choice] = []
    while len(choices) < size:
        explore = best is None or explored < math.ceil(min_explore * (count + 1))
        # The seed depends on the number of choices so far: a restarted run draws the same effects again.
        rng = Random(derive(seed, "adaptive", "draw", count))
        chosen = None if explore or best is None else best(taken, rng)
        quartet = chosen or next((quartet for quartet in unexplored if quartet not in taken), None)
        if quartet is None:
            break
        choices.append(Choice(quartet=quartet, explored=chosen is None))
        taken.add(quartet)
        explored, count = explored + (chosen is None), count + 1
    return tuple(choices)


SAMPLERS["adaptive"] = SamplerEntry(
    summary="chosen by the effects in the archive, with a share of exploration", choose=ask
)


def _of_an_archive(*_: object, **__: object) -> tuple[Choice, ...]:
    """Refuse a draw by effects alone; ``nngen.surrogate.source`` makes the choices in a campaign."""
    raise UsageError(f"{SURROGATE} ranks by families that an archive holds: it is for nngen campaign run")


SAMPLERS[SURROGATE] = SamplerEntry(
    summary="the top of the ranking by families trained alone, with a share of exploration", choose=_of_an_archive
)


def _best(pool: Pool, scores: Scores, taken: Collection[Quartet], rng: Random) -> Quartet | None:
    """Draw every effect once and return the best free quartet; None if all are taken."""
    doubt = max(error for _, error in scores.families.values())
    families = {name: rng.gauss(*scores.families.get(name, (0.0, doubt))) for name in pool.families}
    pairs = {pair: rng.gauss(*belief) for pair, belief in sorted(scores.pairs.items())}
    # A pair's effect is shared by its two families, so that both of a strong pair come to the front.
    helped = {name: max((v for pair, v in pairs.items() if name in pair), default=0.0) / 2 for name in families}
    ranked = sorted(pool.families, key=lambda name: (-families[name] - helped[name], name))
    # Comparing the quartets of the front alone keeps a choice fast (495 of 12 families, not 23,751 of 29).
    front = max(_FRONT, pool.k)
    while True:
        free = (quartet for quartet in combinations(sorted(ranked[:front]), pool.k) if quartet not in taken)
        best = max(free, key=lambda quartet: _value(quartet, families, pairs), default=None)
        if best is not None or front >= len(ranked):
            return best
        front *= 2


def _value(quartet: Quartet, families: Mapping[str, float], pairs: Mapping[tuple[str, str], float]) -> float:
    own = sum(families[name] for name in quartet)
    return own + sum(pairs.get((a, b), 0.0) for a, b in combinations(quartet, 2))
