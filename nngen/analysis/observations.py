"""Observations: one line per finished trial, the common input of all statistics; families that hardly ever train."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from nngen.analysis.statistics import Rate, wilson
from nngen.analysis.suspicion import suspicions
from nngen.archive.records import CampaignRecord, StoredTrial, TrialLine, TrialState
from nngen.errors import UsageError
from nngen.space.pool import EXPERTS
from nngen.types import Fidelity, Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """A trial, reduced to the fields that effects are estimated from."""

    quartet: tuple[str, ...]  # families, in any order
    seed: int = 0  # seed of the trial; distinguishes repetitions of one candidate
    accuracy: float | None = None  # validation accuracy, in [0, 1]; None for a failed trial
    outcome: Outcome = Outcome.VALID  # reason of the failure; ``VALID`` for a trained trial
    candidate: str = ""  # id that distinguishes candidates of one quartet (another gate or recipe)
    suspect: bool = False  # whether the accuracy is not comparable with that of the others

    @property
    def trained(self) -> bool:
        """Whether there is a finite accuracy."""
        return self.accuracy is not None and math.isfinite(self.accuracy)

    @property
    def key(self) -> tuple[tuple[str, ...], str]:
        """The candidate: sorted families and id."""
        return tuple(sorted(self.quartet)), self.candidate


def is_quartet(experts: Sequence[str]) -> bool:
    """Tell whether these are four different families."""
    return len(experts) == len(set(experts)) == EXPERTS


def observe(trials: Iterable[TrialLine | StoredTrial], rung: int = 0) -> tuple[Observation, ...]:
    """Read the finished trials of one rung; repeated identical work is counted once.

    Mixtures that repeat a family, or have another number of experts, are not quartets and are left out.
    Later rungs contain only the best of earlier ones, so effects read from them would be effects of the
    selection. Duplicates of another candidate carry no information of their own and are left out. Suspect
    accuracies are marked (``nngen.analysis.suspicion``): they count as trained, and not for effects.
    """
    found: dict[tuple[object, ...], TrialLine | StoredTrial] = {}
    for trial in trials:
        if trial.state is not TrialState.DONE or trial.rung != rung or trial.outcome in (None, Outcome.DUPLICATE):
            continue
        if not is_quartet(trial.experts):
            continue
        found.setdefault((tuple(sorted(trial.experts)), trial.candidate_id or "", trial.seed), trial)
    reasons = suspicions(found.values())
    return tuple(
        Observation(
            quartet=tuple(sorted(trial.experts)),
            seed=trial.seed,
            accuracy=trial.validation_accuracy,
            outcome=trial.outcome or Outcome.VALID,
            candidate=trial.candidate_id or "",
            suspect=trial.id in reasons,
        )
        for trial in found.values()
    )


def with_results(campaigns: Iterable[CampaignRecord], trials: Iterable[TrialLine]) -> list[CampaignRecord]:
    """Return the campaigns that have a finished trial of a quartet on their first rung."""
    done = (trial for trial in trials if trial.rung == 0 and trial.state is TrialState.DONE)
    names = {trial.campaign for trial in done if is_quartet(trial.experts)}
    return [campaign for campaign in campaigns if campaign.name in names]


def refuse_mixture(campaigns: Iterable[CampaignRecord]) -> None:
    """Check that the first rungs of several campaigns can be pooled.

    Raises:
        UsageError: If they differ in fidelity, so that their accuracies cannot be compared; the message names the
            campaigns.
    """
    names: dict[Fidelity, set[str]] = {}
    for campaign in campaigns:
        names.setdefault(campaign.fidelity, set()).add(campaign.name)
    if len(names) > 1:
        known = sorted(set().union(*names.values()))
        raise UsageError(
            "the archive's campaigns differ in data, shape, training images, epochs, batch or rate, and cannot be read "
            "together: "
            f"({', '.join(known[:5])}{', ...' if len(known) > 5 else ''})"
        )


def trained_quartets(observations: Iterable[Observation]) -> Mapping[tuple[str, ...], bool]:
    """Map each quartet to whether any of its trials has an accuracy; further seeds are not further tries."""
    trained: dict[tuple[str, ...], bool] = {}
    for line in observations:
        quartet = line.key[0]
        trained[quartet] = trained.get(quartet, False) or line.trained
    return trained


def success_rates(
    families: Sequence[str], observations: Iterable[Observation], confidence: float = 0.95
) -> Mapping[str, Rate]:
    """Compute, per family, the share of its quartets that could be trained."""
    tries, successes = Counter[str](), Counter[str]()
    for quartet, good in trained_quartets(observations).items():
        tries.update(quartet)
        if good:
            successes.update(quartet)
    return {name: wilson(successes[name], tries[name], confidence) for name in families}


def describe_failures(observations: Iterable[Observation]) -> str:
    """Count the reasons of failure, most frequent first: ``memory 8, timeout 4``."""
    failed = Counter(_failure(line) for line in observations if not line.trained)
    ordered = sorted(failed.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {count:,}" for name, count in ordered)


def _failure(line: Observation) -> str:
    if line.outcome is not Outcome.VALID:
        return line.outcome.value
    return "no accuracy" if line.accuracy is None else "accuracy not a number"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """A family that should not be drawn again."""

    family: str
    success: Rate  # success rate over its quartets, those with a family excluded earlier left out
    reason: str  # evidence in one clause, for the archive


@dataclass(frozen=True, slots=True, kw_only=True)
class LowYield:
    """Families to exclude and to keep."""

    excluded: tuple[Exclusion, ...]  # excluded families, worst first
    kept: tuple[str, ...]  # the other families, sorted
    note: str  # reason for excluding fewer than the evidence supports; "" otherwise


def low_yield(
    observations: Sequence[Observation],
    families: Collection[str],
    *,
    threshold: float = 0.5,
    confidence: float = 0.95,
    least: int = 4,
) -> LowYield:
    """Find the families whose quartets train too rarely.

    A family is low-yield if the upper end of its success rate's Wilson interval lies below the
    threshold. The worst family is excluded first, together with its quartets, before the others are
    evaluated: a family is not excluded because of another one in its quartets. Untried ones stay, and ``least`` in all.

    Raises:
        ValueError: If threshold or confidence is out of range.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"a threshold must be above 0 and at most 1, not {threshold}")
    kept, lines, excluded = sorted(families), list(observations), list[Exclusion]()
    note = ""
    while True:
        rates = success_rates(kept, lines, confidence)
        suspects = sorted((rate.high, name) for name, rate in rates.items() if rate.high < threshold)
        if suspects and len(kept) <= least:
            note = f"{', '.join(name for _, name in suspects)} would be next, but a mixture needs {least} families"
        if not suspects or note:
            return LowYield(excluded=tuple(excluded), kept=tuple(kept), note=note)
        name = suspects[0][1]
        rate = rates[name]
        reason = (
            f"{name}: {rate.successes} of {rate.tries} quartets trained ({rate.successes / rate.tries:.0%}, "
            f"{confidence:.0%} interval {rate.low:.0%} to {rate.high:.0%}), below {threshold:.0%}; "
            f"failures: {describe_failures(line for line in lines if name in line.quartet)}"
        )
        excluded.append(Exclusion(family=name, success=rate, reason=reason))
        kept.remove(name)
        lines = [line for line in lines if name not in line.quartet]
