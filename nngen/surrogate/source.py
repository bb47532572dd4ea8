"""Candidate sources of a campaign by the ranking of all mixtures: the sampler ``surrogate``, and a draw that checks it.

The ranking is loaded when a source is asked, because it needs torch and scikit-learn.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from nngen.archive.records import CampaignRecord, TrialLine
from nngen.archive.store import Archive
from nngen.campaign.protocols import CandidateSource, Suggestion
from nngen.campaign.selection import SOURCES, ChosenQuartets
from nngen.errors import UsageError
from nngen.plan import Plan
from nngen.space.adaptive import SURROGATE, alternate
from nngen.space.pool import Pool, Quartet
from nngen.space.registry import Choice, Scores

if TYPE_CHECKING:
    from nngen.surrogate.ranking import Ranking  # loads torch and scikit-learn

_PLAIN = Plan(experts=())

_STRATA = (0.01, 0.1, 1.0)  # ends of the strata of a ranking, as shares from its top


@dataclass(slots=True)
class RankedQuartets(CandidateSource):
    """Quartets from the top of the ranking by families trained alone, with a least share of exploration.

    The ranker is fitted again each turn, to all joint trainings of the campaign's fidelity so far; each choice is the
    best free quartet under a draw from its uncertainty (Thompson 1933).
    """

    _scores: dict[str, Ranking] = field(default_factory=dict)

    def suggest(self, record: CampaignRecord, trials: Sequence[TrialLine], archive: Archive) -> Sequence[Suggestion]:
        chooser = partial(self._choose, record, archive)
        return ChosenQuartets(chooser=chooser).suggest(record, trials, archive)

    def _choose(
        self,
        record: CampaignRecord,
        archive: Archive,
        pool: Pool,
        size: int,
        seed: int,
        scores: Scores,
        *,
        before: Sequence[Choice] = (),
        known: Collection[Quartet] = (),
        min_explore: float = 0.25,
    ) -> tuple[Choice, ...]:
        ranking = self._ranking(record, archive)
        names, by = ranking.experts.families, ranking.default
        quartets = [tuple(names[member] for member in row) for row in ranking.mixtures.tolist()]
        means = ranking.scores[by].tolist()
        doubts = [0.0] * len(means) if ranking.deviation is None else ranking.deviation.tolist()

        def best(taken: Collection[Quartet], rng: Random) -> Quartet | None:
            drawn = [rng.gauss(mean, doubt) for mean, doubt in zip(means, doubts, strict=True)]
            order = sorted(range(len(drawn)), key=lambda number: -drawn[number])
            inside = (quartets[number] for number in order if set(quartets[number]) <= set(pool.families))
            return next((quartet for quartet in inside if quartet not in taken), None)

        return alternate(pool, size, seed, best, before=before, known=known, min_explore=min_explore)

    def _ranking(self, record: CampaignRecord, archive: Archive) -> Ranking:
        """Rank by the last families alone on the campaign's data, of its own epochs or else of the nearest."""
        from nngen.surrogate.experts import joint_accuracies, load_experts
        from nngen.surrogate.ranking import rank_mixtures

        fitting = [
            one for one in archive.campaigns() if one.spec.alone and one.data_fingerprint == record.data_fingerprint
        ]
        if not fitting:
            raise UsageError(
                f"the sampler {SURROGATE} ranks by families trained alone on the same data, and there are none: "
                f"nngen experts train --dataset {record.spec.dataset} --epochs {record.spec.epochs} trains them"
            )
        alone = fitting[-1]
        epochs = min(alone.spec.fidelities, key=lambda epochs: abs(math.log(epochs / record.spec.epochs)))
        experts = load_experts(archive, alone.name, epochs)
        key = f"{alone.name} {epochs} {len(experts.families)} {len(experts.logits)}"
        before = self._scores.get(key)
        joint = joint_accuracies(archive, experts, record.spec.plan)
        found = rank_mixtures(experts, joint, scores=before.scores if before else None)
        self._scores = {key: found}
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnQuartets(CandidateSource):
    """Quartets that were drawn beforehand, as many as a campaign needs to reach its size."""

    quartets: tuple[Quartet, ...]  # the quartets, in order
    plan: Plan = _PLAIN  # plan of each of them, without its experts

    def suggest(self, record: CampaignRecord, trials: Sequence[TrialLine], archive: Archive) -> Sequence[Suggestion]:
        before = sum(trial.rung == trial.replicate == 0 for trial in trials)
        new = self.quartets[: max(0, record.spec.size - before)]
        return [Suggestion(plan=replace(self.plan, experts=quartet), explored=False) for quartet in new]


def stratified(ranking: Ranking, by: str, size: int, seed: int) -> tuple[Quartet, ...]:
    """Draw quartets that were not trained jointly, in equal parts from the top hundredth, the top tenth and the rest.

    Raises:
        UsageError: If fewer are left.
    """
    free = [number for number in ranking.order(by).tolist() if tuple(ranking.mixtures[number]) not in ranking.joint]
    if size > len(free):
        raise UsageError(f"{size:,} quartets were asked for, but {len(free):,} of the ranking are not trained yet")
    random, names, low = Random(seed), ranking.experts.families, 0
    chosen: list[int] = []
    for place, share in enumerate(_STRATA):
        high = max(low + 1, math.ceil(share * len(free))) if share < 1 else len(free)
        left = len(_STRATA) - place
        wanted = size - len(chosen) if left == 1 else round((size - len(chosen)) / left)
        chosen += random.sample(free[low:high], min(wanted, high - low))
        low = high
    rest = [number for number in free if number not in set(chosen)]
    chosen += random.sample(rest, size - len(chosen))
    return tuple(tuple(names[member] for member in ranking.mixtures[number]) for number in chosen)


SOURCES[SURROGATE] = RankedQuartets
