"""Results of a campaign as plain rows: per family, per outcome, and per stage of the funnel."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from nngen.analysis.observations import is_quartet
from nngen.archive.records import StoredTrial, TrialLine, TrialState
from nngen.assembly.identity import TEMPLATE_VERSION
from nngen.space import Quartet


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyRow:
    """Results of the quartets that contain one family."""

    name: str
    drawn: int  # quartets with the family in the campaign
    done: int  # finished quartets among them
    trained: int  # quartets among them with an accuracy
    accuracies: tuple[float, ...]  # validation accuracies, in the order of the trials

    @property
    def mean(self) -> float | None:
        return fmean(self.accuracies) if self.accuracies else None

    @property
    def std(self) -> float | None:
        """Sample standard deviation; None below two accuracies."""
        return stdev(self.accuracies) if len(self.accuracies) > 1 else None

    @property
    def best(self) -> float | None:
        return max(self.accuracies, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeRow:
    """Number of trials with one outcome and rule, with one of their messages."""

    outcome: str
    rule: str
    count: int
    example: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Funnel:
    """Number of quartets that reached each stage."""

    drawn: int
    done: int  # finished quartets, with any outcome
    assembled: int
    checked: int  # quartets that passed every check
    trained: int  # quartets with an accuracy

    def stages(self) -> tuple[tuple[str, int], ...]:
        """Return the stages in order, as (name, count)."""
        return tuple((name, getattr(self, name)) for name in self.__slots__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RungRow:
    """Results of one rung of a campaign."""

    epochs: int  # epochs of each of its trials
    trials: int  # number of candidates on it
    done: int  # number of them that are done
    trained: int  # number of them with an accuracy
    best: float | None  # highest accuracy; None without one
    promoted: int  # number of candidates that went on to the next rung
    lowest_promoted: float | None  # lowest accuracy among these; None without any
    highest_left: float | None  # highest accuracy among the others; None without any


def rung_rows(epochs: Sequence[int], trials: Sequence[StoredTrial]) -> tuple[RungRow, ...]:
    """Summarise each rung of a campaign by all its trials, further seeds of finalists left out."""
    rows = []
    for number, length in enumerate(epochs):
        here = [trial for trial in trials if trial.rung == number and trial.replicate == 0]
        went = {trial.position for trial in trials if trial.rung == number + 1}
        known = [(trial.position in went, trial.validation_accuracy) for trial in here]
        on = [accuracy for gone, accuracy in known if gone and accuracy is not None]
        left = [accuracy for gone, accuracy in known if not gone and accuracy is not None]
        rows.append(
            RungRow(
                epochs=length,
                trials=len(here),
                done=sum(trial.state is TrialState.DONE for trial in here),
                trained=len(on) + len(left),
                best=max(on + left, default=None),
                promoted=len(went),
                lowest_promoted=min(on, default=None),
                highest_left=max(left, default=None),
            )
        )
    return tuple(rows)


def finished_quartets(trials: Iterable[StoredTrial | TrialLine]) -> list[Quartet]:
    """Return the quartets of finished trials, without mixtures that repeat a family or have not four experts."""
    return [trial.experts for trial in trials if trial.state is TrialState.DONE and is_quartet(trial.experts)]


def family_rows(pool: Iterable[str], trials: Sequence[StoredTrial]) -> tuple[FamilyRow, ...]:
    """Summarise the quartets of each family, best mean first, families without accuracies last."""
    rows, by_family = [], defaultdict[str, list[StoredTrial]](list)
    for trial in trials:
        for name in set(trial.experts):
            by_family[name].append(trial)
    for name in pool:
        own = by_family[name]
        accuracies = tuple(trial.validation_accuracy for trial in own if trial.validation_accuracy is not None)
        done = sum(trial.state is TrialState.DONE for trial in own)
        rows.append(FamilyRow(name=name, drawn=len(own), done=done, trained=len(accuracies), accuracies=accuracies))
    return tuple(sorted(rows, key=lambda row: (-(row.mean if row.mean is not None else -1.0), row.name)))


def outcome_rows(trials: Iterable[StoredTrial]) -> tuple[OutcomeRow, ...]:
    """Count the verdicts by outcome and rule, most frequent first."""
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], str] = {}
    for trial in trials:
        if trial.verdict is not None:
            key = (trial.verdict.outcome.value, trial.verdict.rule)
            counts[key] += 1
            examples.setdefault(key, trial.verdict.message)
    return tuple(
        OutcomeRow(outcome=outcome, rule=rule, count=count, example=examples[outcome, rule])
        for (outcome, rule), count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )


def funnel(trials: Sequence[StoredTrial], valid: Iterable[str]) -> Funnel:
    """Count the quartets of one campaign per stage; ``valid`` are the ids of the candidates that passed their check."""
    passed = frozenset(valid)
    done = [trial for trial in trials if trial.state is TrialState.DONE]
    return Funnel(
        drawn=len(trials),
        done=len(done),
        assembled=sum(trial.candidate_id is not None for trial in done),
        checked=sum(trial.candidate_id in passed for trial in done),
        trained=sum(trial.trained for trial in done),
    )


def template_note(versions: Mapping[int, int], *, over: bool) -> str:
    """Describe the template versions of a campaign's candidates if they differ, or will unless it is over; else ""."""
    if set(versions) <= {TEMPLATE_VERSION} or (over and len(versions) == 1):
        return ""
    counts = ", ".join(f"{count} with version {version}" for version, count in versions.items())
    rest = "" if over else f"; open quartets are assembled with version {TEMPLATE_VERSION}"
    return f"candidates assembled with older templates: {counts}{rest}"


def replay_note(answers: Mapping[str, int]) -> str:
    """Say how many trials a recorded table answered, and how; the numbers are by the rule of the verdict."""
    total = sum(answers.values())
    words = {"table.recorded": "recorded", "table.predicted": "predicted", "table.outside": "refused"}
    parts = [f"{count:,} {words.get(rule, rule)} ({count / total:.0%})" for rule, count in answers.items()]
    return f"{total:,} trial{'' if total == 1 else 's'} answered from a recorded table, not trained: {', '.join(parts)}"
