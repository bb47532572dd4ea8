"""Reports of finished trials to experiment trackers: TensorBoard, Trackio, Weights & Biases."""

from __future__ import annotations

import importlib
import io
import re
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from contextvars import copy_context
from pathlib import Path
from typing import Any, TypeAlias

from nngen.archive.records import StoredTrial
from nngen.campaign.successive_halving import Workload
from nngen.campaign.watcher import Watcher
from nngen.errors import MissingExtraError, UsageError
from nngen.plan import Gate, Losses, Recipe
from nngen.text import did_you_mean, one_line
from nngen.types import EpochResult

Report: TypeAlias = Callable[[StoredTrial], None]
"""Reports a finished trial."""

PROJECT = "nngen"
"""Project of Trackio and Weights & Biases."""

_POINT = ("validation_accuracy", "train_accuracy", "train_loss", "entropy", "seconds")
_RESULTS = ("validation_accuracy", "parameters", "seconds", "peak_mib", "energy_j")


class Tracked(Watcher):
    """Watcher that passes everything on to another one, and each finished trial to a tracker too.

    A tracker that fails is named once and asked no more: the campaign goes on without it.
    """

    def __init__(self, watcher: Watcher, name: str, report: Report) -> None:
        self._watcher, self._name = watcher, name
        self._report: Report | None = report

    def note(self, line: str) -> None:
        self._watcher.note(line)

    def begin(self, name: str, work: Workload) -> None:
        self._watcher.begin(name, work)

    def stage(self, trial: StoredTrial, stage: str) -> None:
        self._watcher.stage(trial, stage)

    def epoch(self, trial: StoredTrial, result: EpochResult) -> None:
        self._watcher.epoch(trial, result)

    def requeued(self, trial: StoredTrial) -> None:
        self._watcher.requeued(trial)

    def finished(self, trial: StoredTrial) -> None:
        self._watcher.finished(trial)
        if self._report is None:
            return
        try:
            # Trackio prints on stdout, which is for results alone; without the context, it ends its last run once more
            # when the process ends, and prints then too.
            with redirect_stdout(io.StringIO()):
                copy_context().run(self._report, trial)
        except Exception as error:  # trackers, their networks and their logins raise anything
            self._report = None
            self._watcher.note(f"{self._name} failed, and gets no more trials: {one_line(repr(error), 200)}")


def _tensorboard(folder: Path) -> Report:
    _imported("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    def report(trial: StoredTrial) -> None:
        # The signs of a campaign's name that a file name may not have; the number keeps trials apart.
        campaign = re.sub(r"[^\w.-]", "_", trial.campaign)
        with SummaryWriter(str(folder / campaign / f"{trial.id:06}")) as writer:
            for step, values in _curve(trial):
                for name, value in values.items():
                    writer.add_scalar(name, value, step)
            results = {f"result/{name}": value for name, value in _results(trial).items()}
            writer.add_hparams(_settings(trial), results, run_name=".")

    return report


def _runs(package: str) -> Callable[[Path], Report]:
    """Return the maker of reports to a package with the interface of ``wandb``: each trial is a run of its own."""

    def make(_: Path) -> Report:
        module = _imported(package)

        def report(trial: StoredTrial) -> None:
            run = module.init(
                project=PROJECT, group=trial.campaign, name=f"{trial.campaign}-{trial.id}", config=_settings(trial)
            )
            for step, values in _curve(trial):
                run.log(values, step=step)
            run.log({f"result/{name}": value for name, value in _results(trial).items()})
            run.finish()

        return report

    return make


TRACKERS: Mapping[str, Callable[[Path], Report]] = {
    "tensorboard": _tensorboard,
    "trackio": _runs("trackio"),
    "wandb": _runs("wandb"),
}
"""Trackers by name, each with the function that makes its reports."""


def tracker(name: str, folder: Path) -> Report:
    """Return the function that reports a finished trial to one of ``TRACKERS``; TensorBoard writes to ``folder``.

    Raises:
        UsageError: If no tracker has the name.
        MissingExtraError: If its package is not installed.
    """
    if name not in TRACKERS:
        hint = did_you_mean(name, TRACKERS, otherwise=f"there are {', '.join(TRACKERS)}")
        raise UsageError(f"no tracker is called {name!r}: {hint}")
    return TRACKERS[name](folder)


def _imported(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingExtraError(package, package) from error


def _curve(trial: StoredTrial) -> list[tuple[int, dict[str, float]]]:
    values = ((point.epoch, {name: getattr(point, name) for name in _POINT}) for point in trial.curve)
    return [(epoch, {name: value for name, value in found.items() if value is not None}) for epoch, found in values]


def _results(trial: StoredTrial) -> dict[str, float]:
    found = {name: getattr(trial, name) for name in _RESULTS}
    return {name: value for name, value in found.items() if value is not None}


def _settings(trial: StoredTrial) -> dict[str, int | float | str | bool]:
    """Return plan and specification as flat names and plain values."""
    found: dict[str, Any] = {"campaign": trial.campaign, "candidate": trial.candidate_id or "", "rung": trial.rung}
    found |= {"outcome": trial.outcome.value if trial.outcome else "", "experts": ", ".join(trial.experts)}
    if trial.spec is not None:
        names = ("dataset", "epochs", "batch", "lr", "momentum", "augment", "class_weights", "seed")
        found |= {name: getattr(trial.spec, name) for name in names} | {"shape": str(trial.spec.shape)}
    for part in (Gate, Losses, Recipe):
        own: Any = getattr(trial.plan, part.__name__.lower())
        found |= {f"{part.__name__.lower()}.{name}": getattr(own, name) for name in part.__slots__ if name != "others"}
    found |= {f"losses.{name}": weight for name, weight in trial.plan.losses.others}
    found |= {f"rates.{name}": rate for name, rate in trial.plan.rates}
    return found
