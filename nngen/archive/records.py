"""Values that the archive stores and returns."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

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
    """Purpose of a campaign within one cycle of a closed loop.

    Attributes:
        CYCLE: Trains the proposals of the cycle.
        JUDGE: Trains the best candidate so far with fresh seeds; these trials are held out from proposing.
    """

    CYCLE = "cycle"
    JUDGE = "judge"


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignRecord:
    """A campaign: its specification, the inputs it began with, and its place in a closed loop.

    Attributes:
        spec: Every argument, settled at the beginning.
        pool: Families that quartets are drawn from, with the SHA-256 of each source.
        left_out: Families of the requested pool that are not drawn from, with the reason.
        data_fingerprint: Fingerprint of the data set's content.
        classes: Number of classes of the data set.
        known: Number of quartets passed over because other campaigns tried them.
        candidates: Ids of candidates given ready-made, in order; empty where plans are assembled.
        nngen: Version of nngen that began it.
        loop: Name of the closed loop that the campaign is a stage of; None outside of loops.
        cycle: Number of the loop's cycle; 0 is the common start.
        role: Purpose of the campaign within its cycle.
        created_at: Time of creation; empty until the campaign is stored.
    """

    spec: CampaignSpec
    pool: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    data_fingerprint: str = ""
    classes: int = 0
    known: int = 0
    candidates: tuple[str, ...] = ()
    nngen: str = ""
    loop: str | None = None
    cycle: int | None = None
    role: LoopRole | None = None
    created_at: str = ""

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
    """A candidate as it is stored.

    Attributes:
        experts: Families in the plan's order; empty for a file from outside.
        fingerprints: SHA-256 of each expert's source, "" where unknown.
        verdicts: Verdicts of its checks, oldest first.
        created_at: Time of its first storage.
    """

    experts: tuple[str, ...]
    fingerprints: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    created_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTrial:
    """A trial to add: a plan to assemble, or a stored candidate that was given ready-made.

    Attributes:
        plan: Plan to assemble; of a given candidate its own plan, its parent's, or one without experts.
        candidate_id: Id of the given candidate, which must be stored already; None for a plan.
        seed: Seed of the trial; None for the one derived from campaign and candidate.
    """

    plan: Plan
    candidate_id: str | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTrial(Measurements):
    """A trial as it is stored; values that are not known yet are None.

    Attributes:
        id: Number of the trial; numbers rise in the order of planning.
        campaign: Name of its campaign.
        position: Position of its candidate in the campaign, from 0.
        rung: Number of its fidelity within the campaign, from 0.
        replicate: Number of its seed, from 0.
        plan: Plan of its candidate.
        state: State of the trial.
        given: Whether its candidate was given ready-made; otherwise the plan is assembled.
        given_seed: Seed that was given with it; None for the derived one.
        candidate_id: Id of its candidate; None until a plan is assembled.
        spec: Specification of the training.
        verdict: Verdict; None until the trial is done.
        test_accuracy: Accuracy on the test split, where it was revealed.
        copied_from: Trial whose result was copied, being the same work.
        started_at: Time at which it was started last.
        finished_at: Time at which it was done.
    """

    id: int
    campaign: str
    position: int
    rung: int
    replicate: int
    plan: Plan
    state: TrialState
    given: bool = False
    given_seed: int | None = None
    candidate_id: str | None = None
    spec: TrialSpec | None = None
    verdict: Verdict | None = None
    test_accuracy: float | None = None
    copied_from: int | None = None
    started_at: str | None = None
    finished_at: str | None = None

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


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialLine:
    """The part of a stored trial that decisions and counts are made from; cheap to read by the hundred thousand.

    Attributes:
        experts: Families of the mixture, in the plan's order.
        outcome: Outcome of its verdict; None until the trial is done.
        seed: Seed of its training; its number among the candidate's seeds where it was not trained.
        suspect: Reason why its accuracy is not comparable with others; empty for most.
    """

    id: int
    campaign: str
    position: int
    rung: int
    replicate: int
    state: TrialState
    experts: tuple[str, ...]
    candidate_id: str | None
    outcome: Outcome | None
    validation_accuracy: float | None
    seed: int
    suspect: str

    @property
    def trained(self) -> bool:
        """Whether it is done and has an accuracy."""
        return self.validation_accuracy is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialScore(Score):
    """The part of a trained trial that it is ranked by and listed with; cheap to read by the hundred thousand.

    Attributes:
        spec: Specification of the training with seed 0, shared by all trials that differ in the seed alone.
        seed: Seed of the training.
        fidelity: Fidelity of the training.
        test_accuracy: Accuracy on the test split, where it was revealed.
    """

    id: int
    candidate_id: str
    experts: tuple[str, ...]
    spec: TrialSpec
    seed: int
    fidelity: Fidelity
    test_accuracy: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Number of the trials of a campaign on one rung.

    Attributes:
        campaign: Name of the campaign.
        rung: Number of the rung, from 0.
        again: Whether these are the trials of finalists with further seeds.
        trials: Number of trials.
        done: Number of them that are done.
        running: Number of them that are running.
        trained: Number of them with an accuracy.
        failed: Number of them with an outcome other than valid.
        best: Highest validation accuracy; None without one.
    """

    campaign: str
    rung: int
    again: bool
    trials: int
    done: int
    running: int
    trained: int
    failed: int
    best: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """A decision to train a candidate again: longer, or with another seed.

    Attributes:
        trial_id: Finished trial that the decision rests on.
        rung: Rung of the new trial.
        replicate: Number of the new trial's seed.
        reason: Values behind the decision; stored with its event.
    """

    trial_id: int
    rung: int
    replicate: int = 0
    reason: Mapping[str, Any] = field(default_factory=dict)


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
