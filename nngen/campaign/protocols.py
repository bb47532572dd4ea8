"""Protocols of a campaign: candidate sources, samplers, stopping rules and watchers.

A campaign runs one loop whatever it tries. Its parts are replaced through these protocols:

==================  ================================================================================
``CandidateSource``  suggests what to try next: plans to assemble, or ready-made candidates
``Sampler``          orders the quartets of a pool; a stream that resumes at any position
``StopRule``         ends a campaign before all of it is done, as budgets do
``Watcher``          reports progress
``Assemble``         turns a plan into a candidate
``Engine``           checks and trains candidates in isolated workers (``nngen.training.engine``)
==================  ================================================================================

A source of its own, and a campaign with it::

    class Neighbours(CandidateSource):
        def suggest(self, record, trials, archive):
            if len(trials) >= record.spec.size:
                return ()
            best = max(trials, key=lambda trial: trial.validation_accuracy or 0.0, default=None)
            return [Suggestion(plan=neighbour(archive.trial(best.id).plan) if best else START)]

    Campaign(spec=spec, archive=archive, inputs=inputs, engine=engine, source=Neighbours()).run()

Candidates that exist already (files, proposals of a language model) are suggested by ``GivenCandidates`` of
``nngen.campaign.selection``; each may have its own isolation level and its own seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias

from nngen.archive.records import CampaignRecord, TrialLine
from nngen.archive.store import Archive
from nngen.campaign.watcher import Watcher
from nngen.datasets.dataset import Dataset
from nngen.plan import Plan
from nngen.space.registry import Sampler
from nngen.training.engine import Engine
from nngen.types import Candidate, Family, Interface

__all__ = [
    "Assemble",
    "CampaignInputs",
    "CandidateSource",
    "Engine",
    "GivenCandidates",
    "Sampler",
    "StopRule",
    "Suggestion",
    "Watcher",
]

Assemble: TypeAlias = Callable[[Plan, Sequence[tuple[Family, Interface]]], Candidate]
"""Assembles a plan from its families; ``nngen.assembly.assemble.Assembler.assemble``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignInputs:
    """Families and data of a campaign."""

    families: Mapping[str, tuple[Family, Interface]]  # usable families by name, with the inputs they accept
    dataset: Dataset  # data set that every training job carries
    # families of the requested pool that cannot be used at the shape, with the reason
    left_out: Mapping[str, str] = field(default_factory=dict)
    start: Path | None = None  # file of the weights that every training starts from; None for new ones
    # kept weights of each family trained alone, one file for each seed, from which the experts of mixtures start; empty
    # for new ones. A replicate takes those of the next seed
    experts: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)

    def expert_weights(self, plan: Plan, replicate: int) -> tuple[Path, ...]:
        """Return the file of each expert's weights for a replicate of a mixture; none where all are new."""
        if not self.experts or plan.kind == "single":
            return ()
        return tuple(self.experts[name][replicate % len(self.experts[name])] for name in plan.experts)

    @property
    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of each family's source, by name."""
        return {name: family.fingerprint for name, (family, _) in sorted(self.families.items())}


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """One candidate to try."""

    plan: Plan  # plan to assemble; of a ready-made candidate its own plan, its parent's, or one without experts
    # ready-made candidate that is checked and trained as it is, at the level that its source allows; None where the
    # plan is assembled
    candidate: Candidate | None = None
    seed: int | None = None  # seed of the trial of a ready-made candidate; None derives it from campaign and candidate
    explored: bool = True  # whether it was chosen without regard to results


class CandidateSource(Protocol):
    """Suggests what a campaign tries; ``spec.size`` candidates in all.

    The campaign asks when it begins, and again each time all its trials are done. It stores the suggestions in one
    transaction before the first of them runs, so a source keeps no state: it decides by the record and the stored
    trials, results included. Asked again after a kill, it must suggest the same.
    """

    @property
    def candidates(self) -> tuple[str, ...]:
        """Ids of the ready-made candidates it suggests in all, in order; empty where it suggests plans.

        A campaign is resumed only with the ids that it began with.
        """
        return ()

    def suggest(self, record: CampaignRecord, trials: Sequence[TrialLine], archive: Archive) -> Sequence[Suggestion]:
        """Return the next candidates to try; none when there is nothing more to try.

        Args:
            record: The campaign; its pool is narrowed already.
            trials: All trials of the campaign so far; empty at its beginning.
            archive: The archive, for more of a trial and for other campaigns. The source may store candidates and
                events in it.

        Raises:
            UsageError: If the campaign cannot be begun like this; nothing is stored then.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenCandidates(CandidateSource):
    """Candidates that exist already, all at once: files, proposals, or the best of a closed loop with fresh seeds."""

    # suggestions with a candidate each; the same candidate may be given with several seeds
    suggestions: tuple[Suggestion, ...] = ()
    stored: tuple[str, ...] = ()  # ids of the candidates of a campaign that is resumed, in place of suggestions

    @property
    def candidates(self) -> tuple[str, ...]:
        given = tuple(suggestion.candidate.id for suggestion in self.suggestions if suggestion.candidate)
        return given or self.stored

    def suggest(self, record: CampaignRecord, trials: Sequence[TrialLine], archive: Archive) -> Sequence[Suggestion]:
        # A campaign stores all of them at its beginning, in one transaction.
        return () if trials else self.suggestions


class StopRule(Protocol):
    """Ends a campaign early; evaluated about once a second and after every result."""

    def reason(self) -> str | None:
        """Return why the campaign is to stop now, as a noun; None to continue. Running trainings are finished."""
        ...
