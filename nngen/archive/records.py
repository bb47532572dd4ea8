"""Values that the archive stores and returns."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from nngen.campaign_spec import CampaignSpec, shown
from nngen.plan import Plan
from nngen.types import Candidate, Fidelity, Measurements, Outcome, Score, Trial, TrialSpec, Verdict


class TrialState(enum.StrEnum):
    """State of a trial: ``ready`` -> ``running`` -> ``done``.

    A trial returns from ``running`` to ``ready`` when its driver died. Nothing leaves ``done``.
    """

    READY = "ready"
    RUNNING = "running"
    DONE = "done"


class LoopRole(enum.StrEnum):
    """Purpose of a campaign within one cycle of a closed loop."""

    CYCLE = "cycle"  # trains the proposals of the cycle
    JUDGE = "judge"  # trains the best candidate so far with fresh seeds; these trials are held out from proposing


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignRecord:
    """A campaign: its specification, the inputs it began with, and its place in a closed loop."""

    spec: CampaignSpec  # every argument, settled at the beginning
    # families that quartets are drawn from, with the SHA-256 of each source
    pool: Mapping[str, str] = field(default_factory=dict)
    # families of the requested pool that are not drawn from, with the reason
    left_out: Mapping[str, str] = field(default_factory=dict)
    data_fingerprint: str = ""  # fingerprint of the data set's content
    classes: int = 0  # number of classes of the data set
    known: int = 0  # number of quartets passed over because other campaigns tried them
    candidates: tuple[str, ...] = ()  # ids of candidates given ready-made, in order; empty where plans are assembled
    nngen: str = ""  # version of nngen that began it
    loop: str | None = None  # name of the closed loop that the campaign is a stage of; None outside of loops
    cycle: int | None = None  # number of the loop's cycle; 0 is the common start
    role: LoopRole | None = None  # purpose of the campaign within its cycle
    created_at: str = ""  # time of creation; empty until the campaign is stored

    @property
    def name(self) -> str:
        """Name of the campaign."""
        return self.spec.name

    @property
    def fidelity(self) -> Fidelity:
        """Fidelity of the trials of its first rung."""
        return self.spec.trial(seed=0).fidelity(self.data_fingerprint)

    def arguments(self) -> dict[str, Any]:
        """Write the specification and the scalar inputs as JSON types, for tables and reports."""
        inputs = ("data_fingerprint", "classes", "known", "nngen")
        found = self.spec.to_dict() | {"plan": shown(self.spec.plan)}
        return found | {name: getattr(self, name) for name in inputs}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCandidate(Candidate):
    """A candidate as it is stored."""

    experts: tuple[str, ...]  # families in the plan's order; empty for a file from outside
    fingerprints: tuple[str, ...]  # SHA-256 of each expert's source, "" where unknown
    verdicts: tuple[Verdict, ...]  # verdicts of its checks, oldest first
    created_at: str  # time of its first storage


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTrial:
    """A trial to add: a plan to assemble, or a stored candidate that was given ready-made."""

    plan: Plan  # plan to assemble; of a given candidate its own plan, its parent's, or one without experts
    candidate_id: str | None = None  # id of the given candidate, which must be stored already; None for a plan
    seed: int | None = None  # seed of the trial; None for the one derived from campaign and candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTrial(Measurements):
    """A trial as it is stored; values that are not known yet are None."""

    id: int  # number of the trial; numbers rise in the order of planning
    campaign: str  # name of its campaign
    position: int  # position of its candidate in the campaign, from 0
    rung: int  # number of its fidelity within the campaign, from 0
    replicate: int  # number of its seed, from 0
    plan: Plan  # plan of its candidate
    state: TrialState  # state of the trial
    given: bool = False  # whether its candidate was given ready-made; otherwise the plan is assembled
    given_seed: int | None = None  # seed that was given with it; None for the derived one
    candidate_id: str | None = None  # id of its candidate; None until a plan is assembled
    spec: TrialSpec | None = None  # specification of the training
    verdict: Verdict | None = None  # verdict; None until the trial is done
    test_accuracy: float | None = None  # accuracy on the test split, where it was revealed
    copied_from: int | None = None  # trial whose result was copied, being the same work
    started_at: str | None = None  # time at which it was started last
    finished_at: str | None = None  # time at which it was done

    @property
    def experts(self) -> tuple[str, ...]:
        """Families of the mixture, in the plan's order."""
        return self.plan.experts

    @property
    def fidelity(self) -> Fidelity | None:
        """Fidelity of its training; None where it was not started."""
        return None if self.spec is None else self.spec.fidelity(self.data_fingerprint, self.batch)

    @property
    def outcome(self) -> Outcome | None:
        """Outcome of its verdict."""
        return self.verdict.outcome if self.verdict else None

    @property
    def seed(self) -> int:
        """Seed of its training; its number among the candidate's seeds where it was not trained."""
        return self.spec.seed if self.spec else self.replicate

    @property
    def trained(self) -> bool:
        """Whether it is done and has an accuracy."""
        return self.validation_accuracy is not None

    @property
    def epochs_trained(self) -> int:
        """Epochs that it trained itself, without those of the rung before."""
        return (self.spec.epochs if self.spec else 1) - (self.epochs_before or 0)


class TrialLine(NamedTuple):
    """The part of a stored trial that decisions and counts are made from; cheap to read by the hundred thousand."""

    id: int
    campaign: str
    position: int
    rung: int
    replicate: int
    state: TrialState
    experts: tuple[str, ...]  # families of the mixture, in the plan's order
    candidate_id: str | None
    outcome: Outcome | None  # outcome of its verdict; None until the trial is done
    validation_accuracy: float | None
    seed: int  # seed of its training; its number among the candidate's seeds where it was not trained
    suspect: str  # reason why its accuracy is not comparable with others; empty for most

    @property
    def trained(self) -> bool:
        """Whether it is done and has an accuracy."""
        return self.validation_accuracy is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialScore(Score):
    """The part of a trained trial that it is ranked by and listed with; cheap to read by the hundred thousand."""

    id: int
    candidate_id: str
    experts: tuple[str, ...]
    spec: TrialSpec  # specification of the training with seed 0, shared by all trials that differ in the seed alone
    seed: int  # seed of the training
    fidelity: Fidelity  # fidelity of the training
    test_accuracy: float | None  # accuracy on the test split, where it was revealed


class BriefScore(NamedTuple):
    """The part of a trained trial that it is ranked by; fields as those of ``TrialScore``."""

    id: int
    candidate_id: str
    spec: TrialSpec
    seed: int
    fidelity: Fidelity
    validation_accuracy: float | None
    test_accuracy: float | None
    suspect: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Number of the trials of a campaign on one rung."""

    campaign: str  # name of the campaign
    rung: int  # number of the rung, from 0
    again: bool  # whether these are the trials of finalists with further seeds
    trials: int  # number of trials
    done: int  # number of them that are done
    running: int  # number of them that are running
    trained: int  # number of them with an accuracy
    failed: int  # number of them with an outcome other than valid
    best: float | None  # highest validation accuracy; None without one


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """A decision to train a candidate again: longer, or with another seed."""

    trial_id: int  # finished trial that the decision rests on
    rung: int  # rung of the new trial
    replicate: int = 0  # number of the new trial's seed
    reason: Mapping[str, Any] = field(default_factory=dict)  # values behind the decision; stored with its event


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An entry of the archive's log; never changed, never removed."""

    id: int
    at: str
    campaign: str | None
    trial_id: int | None
    kind: str
    detail: Mapping[str, Any]


def copied_result(
    known: StoredTrial, validation_predictions: bytes, test_predictions: bytes, validation_logits: bytes = b""
) -> Trial:
    """Return a finished trial's result as the result of the same work in another trial."""
    assert known.candidate_id is not None and known.spec is not None and known.verdict is not None
    same: dict[str, Any] = {item.name: getattr(known, item.name) for item in fields(Trial) if hasattr(known, item.name)}
    predictions = {"validation_predictions": validation_predictions, "test_predictions": test_predictions}
    predictions["validation_logits"] = validation_logits
    return Trial(**same | predictions | {"seconds": known.seconds or 0.0, "peak_mib": known.peak_mib or 0.0})
