"""``nngen train``: trains one file in an isolated worker and scores it outside."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from nngen.checks import CheckFailed
from nngen.cli.options import Assignments, DataOptions, Flag, OutputOptions, hyperparameters
from nngen.cli.output import print_json, print_table
from nngen.datasets import Dataset
from nngen.errors import NngenError, UsageError
from nngen.training import LocalEngine, TrainJob, accuracy, pick_device
from nngen.training.candidate_files import check_isolation, choose_isolation, read_candidate
from nngen.types import Candidate, EpochResult, Trial, TrialSpec

__all__ = ["train"]


def train(
    path: Path,
    /,
    *,
    data: DataOptions = DataOptions(),
    epochs: int = 1,
    seed: int = 0,
    batch: int = 64,
    lr: float = 1e-3,
    momentum: float = 0.9,
    prm: Assignments = (),
    device: str = "auto",
    threads: int | None = None,
    time_limit: float = 3600.0,
    memory_mib: int = 12_288,
    isolation: str = "auto",
    compiled: Flag = False,
    test: Flag = False,
    output: OutputOptions = OutputOptions(),
) -> None:
    """Train one file in an isolated worker and score it outside, on the validation split.

    The worker holds the labels of the train split alone; it returns predictions, and the accuracy is computed from
    them outside. On a CPU the same command gives the same accuracy to the last digit.

    Args:
        path: A file in LEMUR's contract.
        epochs: Passes over the train split.
        seed: Seed of everything random in the worker.
        batch: Images per step.
        lr: Learning rate, passed to the file in prm.
        momentum: Momentum, passed to the file in prm.
        prm: A further hyperparameter as NAME=VALUE.
        device: auto, cpu or cuda.
        threads: CPU threads of the worker; all cores by default.
        time_limit: Seconds per trial.
        memory_mib: MiB of resident memory per trial.
        isolation: sandbox (bubblewrap: no network, no files, no rights), process (own process, limits), none (time
            and memory alone), or auto: process for a file that its plan assembles to byte for byte, else sandbox.
        compiled: Compile the network with torch.compile before it trains; takes minutes, and pays for many epochs
            on a card.
        test: Print the accuracy on the test split too.

    Examples:
        nngen train generated/first.py --epochs 3
        nngen train generated/first.py --dataset fashion-mnist --shape 1x32x32 --seed 1 --json
    """
    check_isolation(isolation)
    candidate = _read(path)
    dataset = data.load()
    spec = TrialSpec(
        dataset=data.dataset,
        shape=data.shape or dataset.default_shape,
        epochs=epochs,
        batch=batch,
        lr=lr,
        momentum=momentum,
        seed=seed,
        device=pick_device(device),
        threads=threads or os.cpu_count() or 1,
        time_limit_s=time_limit,
        memory_mib=memory_mib,
        hyperparameters=hyperparameters(prm),
    )
    level = choose_isolation(isolation, candidate.source)
    with LocalEngine(compiled=compiled) as engine:
        job = TrainJob(candidate=candidate, spec=spec, dataset=dataset, isolation=level)
        trial = engine.train(job, _reporter(spec))
    result = _result(trial, dataset, test=test)
    if output.json:
        print_json(result)
    else:
        print_table([result], list(result)[: list(result).index("id")])
    if not trial.verdict.valid:
        raise NngenError(f"{path}: {trial.verdict.outcome.value}: {trial.verdict.message}")


def _read(path: Path) -> Candidate:
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    try:
        return read_candidate(path)
    except CheckFailed as refused:
        raise NngenError(f"{path}: {refused.verdict.outcome.value}: {refused.verdict.message}") from None


def _reporter(spec: TrialSpec) -> Callable[[EpochResult], None]:
    """Return a callback that prints one line per epoch on stderr, if that is a terminal."""
    console = Console(stderr=True, highlight=False)

    def report(point: EpochResult) -> None:
        if console.is_terminal:
            loss = "" if point.train_loss is None else f", train loss {point.train_loss:.4f}"
            console.print(
                f"epoch {point.epoch} of {spec.epochs}: validation accuracy {point.validation_accuracy:.4f}{loss},"
                f" {point.seconds:.1f} s"
            )

    return report


def _result(trial: Trial, data: Dataset, *, test: bool) -> dict[str, Any]:
    result: dict[str, Any] = {
        "verdict": trial.verdict.outcome.value,
        "validation_accuracy": trial.validation_accuracy,
    }
    if test:
        scored = trial.verdict.valid
        result["test_accuracy"] = accuracy(trial.test_predictions, data.test_labels) if scored else None
    return {
        **result,
        "seconds": trial.seconds,
        "epochs": trial.spec.epochs,
        "seed": trial.spec.seed,
        "batch": trial.spec.batch if trial.batch is None else trial.batch,
        "parameters": trial.parameters,
        "message": trial.verdict.message,
        "id": trial.candidate_id,
        "curve": [asdict(point) for point in trial.curve],
        "batches_tried": list(trial.batches_tried),
        "prm": dict(trial.prm),
        "energy_j": trial.energy_j,
        "data_fingerprint": trial.data_fingerprint,
        "isolation": trial.isolation,
        "environment": dict(trial.environment),
    }
