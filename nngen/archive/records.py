"""What the archive hands out, and how values are written into its columns."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from nngen.archive.states import TrialState
from nngen.plan import Plan
from nngen.types import EpochResult, Hyperparameters, Outcome, Shape, Trial, TrialSpec, Verdict

__all__ = [
    "Event",
    "Promotion",
    "StoredCampaign",
    "StoredCandidate",
    "StoredTrial",
    "copied_result",
    "dump",
    "environment_to_text",
    "plan_id",
    "spec_from_text",
    "spec_to_text",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCampaign:
    """A campaign: its name, every argument it was started with, and when."""

    name: str
    spec: Mapping[str, Any]
    created_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCandidate:
    """A candidate as the archive holds it.

    Attributes:
        experts: Families in the plan's order; empty for a file that came from outside.
        fingerprints: SHA-256 of each expert's source, "" where unknown.
        verdicts: What its checks found, oldest first.
    """

    id: str
    canonical: str
    source: str
    plan: Plan | None
    experts: tuple[str, ...]
    fingerprints: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    created_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTrial:
    """A trial as the archive holds it; what is not known yet is None.

    Attributes:
        id: Rises with the order of planning.
        position: Place of its quartet in the sampler's order.
        rung: Fidelity's number within the campaign, from 0.
        replicate: Number of the seed, from 0.
        verdict: None until it is done.
        test_accuracy: Only where it was revealed.
        copied_from: The trial whose result this one took over, being the same work.
    """

    id: int
    campaign: str
    position: int
    rung: int
    replicate: int
    plan: Plan
    state: TrialState
    candidate_id: str | None = None
    spec: TrialSpec | None = None
    verdict: Verdict | None = None
    validation_accuracy: float | None = None
    test_accuracy: float | None = None
    curve: tuple[EpochResult, ...] = ()
    parameters: int | None = None
    seconds: float | None = None
    peak_mib: float | None = None
    batch: int | None = None
    batches_tried: tuple[int, ...] = ()
    prm: Hyperparameters = field(default_factory=dict)
    energy_j: float | None = None
    predicted_mib: float | None = None
    data_fingerprint: str = ""
    isolation: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    copied_from: int | None = None
    started_at: str | None = None
    finished_at: str | None = None

    @property
    def experts(self) -> tuple[str, ...]:
        """Families of the mixture, in the plan's order."""
        return self.plan.experts

    @property
    def trained(self) -> bool:
        """Whether it is done and has an accuracy."""
        return self.validation_accuracy is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """A decision to train a candidate again: longer, or with another seed.

    Attributes:
        trial_id: The finished trial that speaks for it.
        rung: Fidelity's number of the new trial.
        replicate: Number of its seed.
        reason: What the decision was made by; kept with its event.
    """

    trial_id: int
    rung: int
    replicate: int = 0
    reason: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened; never changed, never removed."""

    id: int
    at: str
    campaign: str | None
    trial_id: int | None
    kind: str
    detail: Mapping[str, Any]


def dump(value: Any) -> str:
    """Write JSON that is the same for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def plan_id(plan: Plan) -> str:
    """Identify a plan by its content."""
    return hashlib.sha256(dump(plan.to_dict()).encode()).hexdigest()


def spec_to_text(spec: TrialSpec) -> str:
    """Write a trial's specification for a column.

    Equal specifications give equal text, in archives of every version: the time limit keeps its first key.
    """
    data = asdict(spec) | {"shape": str(spec.shape)}
    return dump(data | {"wall_s": data.pop("time_limit_s")})


def spec_from_text(text: str) -> TrialSpec:
    """Read what ``spec_to_text`` wrote."""
    data = json.loads(text)
    if "wall_s" in data:
        data["time_limit_s"] = data.pop("wall_s")
    return TrialSpec(**data | {"shape": Shape.parse(data["shape"])})


def environment_to_text(trial: Trial) -> str:
    """Write a trial's environment for its column: one JSON object of strings, with the conditions of training in it."""
    kept = {
        "data": trial.data_fingerprint or None,
        "isolation": trial.isolation or None,
        "prm": json.dumps(dict(trial.prm), sort_keys=True) if trial.prm else None,
        "batch": None if trial.batch is None else str(trial.batch),
        "batches_tried": ", ".join(map(str, trial.batches_tried)) or None,
        "energy_j": None if trial.energy_j is None else f"{trial.energy_j:.3f}",
        "predicted_mib": None if trial.predicted_mib is None else f"{trial.predicted_mib:.0f}",
    }
    return dump({**trial.environment, **{name: value for name, value in kept.items() if value is not None}})


def _conditions(text: str) -> dict[str, Any]:
    """Read what ``environment_to_text`` wrote as fields of ``StoredTrial``."""
    rest: dict[str, str] = json.loads(text)
    # The first archives called it so.
    fingerprint = rest.pop("data_fingerprint", "")
    batch, tried = rest.pop("batch", None), rest.pop("batches_tried", "")
    energy, predicted = rest.pop("energy_j", None), rest.pop("predicted_mib", None)
    return {
        "data_fingerprint": rest.pop("data", fingerprint),
        "isolation": rest.pop("isolation", ""),
        "prm": json.loads(rest.pop("prm", "{}")),
        "batch": None if batch is None else int(batch),
        "batches_tried": tuple(int(one) for one in tried.split(", ") if one),
        "energy_j": None if energy is None else float(energy),
        "predicted_mib": None if predicted is None else float(predicted),
        "environment": rest,
    }


def copied_result(known: StoredTrial, validation_predictions: bytes, test_predictions: bytes) -> Trial:
    """Return a finished trial's result as the result of the same work in another trial."""
    assert known.candidate_id is not None
    assert known.spec is not None
    assert known.verdict is not None
    same = ["validation_accuracy", "curve", "parameters", "batch", "batches_tried", "prm", "energy_j"]
    same += ["predicted_mib", "data_fingerprint", "isolation", "environment"]
    return Trial(
        candidate_id=known.candidate_id,
        spec=known.spec,
        verdict=known.verdict,
        validation_predictions=validation_predictions,
        test_predictions=test_predictions,
        seconds=known.seconds or 0.0,
        peak_mib=known.peak_mib or 0.0,
        **{name: getattr(known, name) for name in same},
    )


def candidate_from_row(
    row: Mapping[str, Any], experts: list[Mapping[str, Any]], verdicts: list[Mapping[str, Any]]
) -> StoredCandidate:
    """Build a candidate from its row, its experts' rows and its verdicts' rows."""
    return StoredCandidate(
        id=row["id"],
        canonical=row["canonical"],
        source=row["source"],
        plan=Plan.from_dict(json.loads(row["plan"])) if row["plan"] else None,
        experts=tuple(expert["family"] for expert in experts),
        fingerprints=tuple(expert["fingerprint"] or "" for expert in experts),
        verdicts=tuple(verdict_from_row(verdict) for verdict in verdicts),
        created_at=row["created_at"],
    )


def verdict_from_row(row: Mapping[str, Any]) -> Verdict:
    """Build a verdict from the columns ``outcome``, ``rule``, ``message``, ``line``."""
    return Verdict(
        outcome=Outcome(row["outcome"]), rule=row["rule"] or "", message=row["message"] or "", line=row["line"]
    )


def trial_from_row(row: Mapping[str, Any], curve: list[Mapping[str, Any]]) -> StoredTrial:
    """Build a trial from its row (with ``plan`` and ``test_accuracy`` joined) and its curve's rows."""
    same = ("id", "campaign", "position", "rung", "replicate", "candidate_id", "validation_accuracy", "test_accuracy")
    more = ("parameters", "seconds", "peak_mib", "copied_from", "started_at", "finished_at")
    return StoredTrial(
        **{name: row[name] for name in same + more},
        plan=Plan.from_dict(json.loads(row["plan"])),
        state=TrialState(row["state"]),
        spec=spec_from_text(row["spec"]) if row["spec"] else None,
        verdict=verdict_from_row(row) if row["outcome"] else None,
        **_conditions(row["environment"] or "{}"),
        curve=tuple(
            EpochResult(
                epoch=point["epoch"],
                validation_accuracy=point["validation_accuracy"],
                train_accuracy=point["train_accuracy"],
                train_loss=point["train_loss"],
                seconds=point["seconds"],
                usage=tuple(json.loads(point["usage"])),
                entropy=point["entropy"],
            )
            for point in curve
        ),
    )
