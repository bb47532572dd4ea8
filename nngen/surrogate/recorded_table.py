"""Recorded tables: trainings of many plans at one fidelity, read from JSON (docs/tables.md), in place of images."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nngen.campaign_spec import TABLE, CampaignSpec, shown
from nngen.datasets.dataset import Dataset
from nngen.errors import DataError, UsageError
from nngen.files import read_regular
from nngen.plan import Plan
from nngen.ranges import check_ranges, flag_of
from nngen.text import listed, one_line
from nngen.types import Outcome, Shape, TrialSpec, Verdict

FIXED = ("shape", "train_size", "epochs", "batch", "lr", "momentum", "augment", "class_weights")
"""Fields of ``TrialSpec`` that a table has one value for; a campaign on it has the same."""

_REQUIRED = ("shape", "batch", "lr")
_MOST_BYTES = 2**27


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedTraining:
    """One training of a table."""

    seed: int  # number of its seed
    curve: tuple[float, ...]  # validation accuracy after each epoch; empty where it failed
    # mean weight of each expert in the last epoch by its name, in the order of the row
    usage: tuple[tuple[str, float], ...]
    seconds: float  # wall time of the training
    parameters: int | None  # number of the network's parameters; None where it is not recorded
    verdict: Verdict  # outcome; its rule says that it is recorded


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordedTable:
    """Trainings of many plans at one fidelity."""

    name: str  # name of the file
    # settings that the trainings share; the data set is ``table:`` and the path, the seed has no meaning
    spec: TrialSpec
    classes: int  # number of classes of the images
    # trainings of each plan by seed; plans have their experts in alphabetic order
    trainings: Mapping[Plan, tuple[RecordedTraining, ...]]
    fingerprint: str  # SHA-256 of the settings and the trainings, in hex

    @property
    def families(self) -> tuple[str, ...]:
        """All families of the recorded plans."""
        return tuple(sorted({family for plan in self.trainings for family in plan.experts}))

    def check(self, spec: CampaignSpec) -> None:
        """Check that trials of a campaign would be trained as those of the table were.

        Raises:
            UsageError: If a setting or a family is not that of the table; the message names it.
        """
        for name in FIXED:
            value, recorded = getattr(spec, name), getattr(self.spec, name)
            if value != recorded:
                raise UsageError(
                    f"{flag_of(name)} {shown(value)} is not the fidelity of {self.name}, which was recorded with"
                    f" {shown(recorded)}: leave it out"
                )
        if spec.rungs and not spec.rungs_continue:
            raise UsageError(
                f"{self.name} holds whole trainings, and rungs train anew: nngen campaign run --rungs-continue"
            )
        if spec.hyperparameters or spec.start:
            raise UsageError(f"{self.name} was recorded without further values of prm, and with new weights")
        if strange := [family for family in spec.families if family not in self.families]:
            raise UsageError(
                f"{self.name} holds no training with {listed(strange, 4)}: choose among {', '.join(self.families)}"
            )

    def dataset(self) -> Dataset:
        """Return a stand-in for the data set, without images, whose fingerprint is that of the table."""
        shape = self.spec.shape
        images = np.zeros((0, shape.channels, shape.height, shape.width), np.uint8)
        labels = np.zeros(0, np.int64)
        return Dataset(
            name=self.spec.dataset,
            classes=self.classes,
            fingerprint=self.fingerprint,
            default_shape=shape,
            mean=(0.5,) * shape.channels,
            std=(0.5,) * shape.channels,
            folder=Path(self.spec.dataset.removeprefix(TABLE)).parent,
            train_images=images,
            train_labels=labels,
            validation_images=images,
            validation_labels=labels,
            test_images=images,
            test_labels=labels,
        )


def by_name(plan: Plan) -> Plan:
    """Return a plan with its experts in alphabetic order, on which a mixture depends by its random draws alone."""
    return replace(plan, experts=tuple(sorted(plan.experts)))


def read_table(path: Path, *, train_size: int | None = None, epochs: int | None = None) -> RecordedTable:
    """Read a table at one fidelity; of several in the file the one with the most trainings that fits the arguments.

    Raises:
        DataError: If the file is missing or cannot be read.
        UsageError: If it is not a table of plans, or has no training at the fidelity asked for.
    """
    try:
        data = read_regular(path, _MOST_BYTES + 1)
    except OSError as error:
        raise DataError(f"the table {path} cannot be read: {error.strerror or error}") from error
    if len(data) > _MOST_BYTES:
        raise DataError(f"the table {path} is larger than {_MOST_BYTES >> 20} MiB")
    try:
        content = json.loads(data)
        settings, rows = content["settings"], content["trials"]
        sizes = Counter((row.get("images"), row["epochs"]) for row in rows)
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        reason = one_line(str(error), 80) if isinstance(error, ValueError) else "it needs settings and trials"
        raise UsageError(f"{path} is not a table of recorded trainings (docs/tables.md): {reason}") from None
    fitting = [
        (count, *size) for size, count in sizes.items() if train_size in (None, size[0]) and epochs in (None, size[1])
    ]
    if not fitting:
        there = [f"{size} epochs of {images or 'all'} images" for images, size in sizes]
        raise UsageError(f"{path.name} has no training at this fidelity: it holds {listed(there, 6) or 'nothing'}")
    _, images, length = max(fitting, key=lambda one: one[0])
    chosen = [row for row in rows if (row.get("images"), row["epochs"]) == (images, length)]
    spec = _spec(path, settings, images, length)
    text = json.dumps([{name: shown(getattr(spec, name)) for name in FIXED}, chosen], sort_keys=True)
    return RecordedTable(
        name=path.name,
        spec=spec,
        classes=settings.get("classes", 10),
        trainings=_trainings(path, chosen, length),
        fingerprint=hashlib.sha256(text.encode()).hexdigest(),
    )


def _spec(path: Path, settings: Mapping[str, Any], images: int | None, epochs: int) -> TrialSpec:
    try:
        values = {name: settings[name] for name in FIXED if name in settings}
        values |= {"shape": Shape.parse(settings["shape"]), "train_size": images, "epochs": epochs}
        if missing := [name for name in _REQUIRED if name not in values]:
            raise UsageError(f"they lack {listed(missing)}")
        spec = TrialSpec(dataset=f"{TABLE}{path}", **values)
        check_ranges(spec)
        classes = settings.get("classes", 10)
        if not isinstance(classes, int) or classes < 2:
            raise UsageError(f"classes is {classes!r:.40}")
    except (UsageError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} is not a table of plans, by its settings: {one_line(str(error), 120)}") from None
    return spec


def _trainings(
    path: Path, rows: Sequence[Mapping[str, Any]], epochs: int
) -> Mapping[Plan, tuple[RecordedTraining, ...]]:
    found: dict[Plan, list[RecordedTraining]] = defaultdict(list)
    for number, row in enumerate(rows, 1):
        try:
            plan = _plan(row)
            found[by_name(plan)].append(_training(row, plan, epochs))
        except (UsageError, LookupError, TypeError, ValueError) as error:
            reason = f"it has no {error.args[0]}" if isinstance(error, KeyError) else one_line(str(error), 120)
            raise UsageError(
                f"{path} is not a table of plans: training {number} of {epochs} epochs: {reason}"
            ) from None
    for plan, same in found.items():
        if len({one.seed for one in same}) < len(same):
            raise UsageError(f"{path} holds a seed of {', '.join(plan.experts)} twice")
    return {plan: tuple(sorted(same, key=lambda one: one.seed)) for plan, same in found.items()}


def _plan(row: Mapping[str, Any]) -> Plan:
    """Return the plan of a row: its own, or the default plan of its experts."""
    if "plan" in row:
        return Plan.from_dict(row["plan"])
    plan = Plan.from_dict({"experts": row["experts"]})
    return plan.alone(plan.experts[0]) if len(plan.experts) == 1 else plan


def _training(row: Mapping[str, Any], plan: Plan, epochs: int) -> RecordedTraining:
    curve = tuple(float(accuracy) for accuracy in row["accuracy"])
    verdict = Verdict(outcome=Outcome.VALID, rule="table.recorded", message=f"recorded with seed {int(row['seed'])}")
    if failure := row.get("outcome"):
        name, _, message = str(failure).partition(": ")
        outcome = Outcome(name) if name in list(Outcome) else Outcome.CRASHED
        verdict, curve = replace(verdict, outcome=outcome, message=message or name), ()
    elif len(curve) != epochs or not all(0 <= accuracy <= 1 for accuracy in curve):
        raise ValueError(f"accuracy is not a list of {epochs} shares")
    usage, parameters = row.get("usage", ()), row.get("parameters")
    if parameters is not None and not (isinstance(parameters, int) and 0 <= parameters < 2**63):
        raise ValueError(f"parameters is {parameters!r:.40}")
    return RecordedTraining(
        seed=int(row["seed"]),
        curve=curve,
        usage=tuple(zip(plan.experts, map(float, usage), strict=True)) if usage else (),
        seconds=float(row.get("seconds", 0.0)),
        parameters=parameters,
        verdict=verdict,
    )
