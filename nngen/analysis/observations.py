"""What the analysis looks at: one line per finished trial, whatever archive it came from."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nngen.archive.records import StoredTrial
from nngen.archive.states import TrialState
from nngen.errors import UsageError
from nngen.space.pool import EXPERTS
from nngen.types import Outcome

__all__ = ["Observation", "describe_failures", "is_quartet", "observe", "refuse_mixture"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """A trial reduced to what an effect can be read from.

    Attributes:
        quartet: Its families, in any order.
        seed: Tells repetitions of one candidate apart.
        accuracy: Validation accuracy, in [0, 1]; None where the trial failed.
        outcome: Why it failed; ``VALID`` where it did not.
        candidate: Tells candidates of one quartet apart (other gate, other recipe).
    """

    quartet: tuple[str, ...]
    seed: int = 0
    accuracy: float | None = None
    outcome: Outcome = Outcome.VALID
    candidate: str = ""

    @property
    def trained(self) -> bool:
        """Whether there is an accuracy that is a number."""
        return self.accuracy is not None and math.isfinite(self.accuracy)

    @property
    def key(self) -> tuple[tuple[str, ...], str]:
        """The candidate that was trained: its families, sorted, and its name."""
        return tuple(sorted(self.quartet)), self.candidate


def is_quartet(experts: Sequence[str]) -> bool:
    """Say whether these are four different families."""
    return len(experts) == len(set(experts)) == EXPERTS


def observe(trials: Iterable[StoredTrial], rung: int = 0) -> tuple[Observation, ...]:
    """Read the finished trials of one rung; repeats of the very same work are taken once.

    Mixtures that repeat a family, or have not four, are another kind of thing than quartets and are left out.
    Later rungs hold only what did well on earlier ones: an effect read off them would be one of
    the selection. Duplicates of another candidate say nothing of their own and are left out.
    """
    found: dict[tuple[object, ...], Observation] = {}
    for trial in trials:
        if trial.state is not TrialState.DONE or trial.rung != rung or trial.verdict is None:
            continue
        if trial.verdict.outcome is Outcome.DUPLICATE or not is_quartet(trial.experts):
            continue
        seed = trial.spec.seed if trial.spec else trial.replicate
        line = Observation(
            quartet=tuple(sorted(trial.experts)),
            seed=seed,
            accuracy=trial.validation_accuracy,
            outcome=trial.verdict.outcome,
            candidate=trial.candidate_id or "",
        )
        found.setdefault((*line.key, seed), line)
    return tuple(found.values())


def refuse_mixture(trials: Iterable[StoredTrial]) -> None:
    """See that the first rungs of several campaigns can be thrown together.

    Raises:
        UsageError: If they differ in data, shape, epochs, batch or rate, so that their accuracies
            cannot be compared; the message names the campaigns.
    """
    kinds: dict[tuple[object, ...], set[str]] = {}
    for trial in trials:
        if trial.spec is not None and trial.rung == 0:
            spec = trial.spec
            kind = (spec.dataset, spec.shape, spec.epochs, spec.batch, spec.lr)
            kinds.setdefault(kind, set()).add(trial.campaign)
    if len(kinds) > 1:
        names = sorted(set().union(*kinds.values()))
        raise UsageError(
            "the archive's campaigns differ in data, shape, epochs, batch or rate, and cannot be read together: "
            f"({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
        )


def describe_failures(observations: Sequence[Observation]) -> str:
    """Count the ways in which trials failed, the commonest first: ``memory 8, timeout 4``."""
    failed = Counter(_failure(line) for line in observations if not line.trained)
    return ", ".join(
        f"{name} {count:,}" for name, count in sorted(failed.items(), key=lambda item: (-item[1], item[0]))
    )


def _failure(line: Observation) -> str:
    if line.outcome is not Outcome.VALID:
        return line.outcome.value
    return "no accuracy" if line.accuracy is None else "accuracy that is no number"
