"""``nngen train``: train one file in an isolated worker and score it outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from nngen.cli.output import print_json, print_table
from nngen.cli.values import parse_values

if TYPE_CHECKING:
    from nngen.datasets import Dataset
    from nngen.types import EpochResult, Trial, TrialSpec

__all__ = ["train"]


def train(
    path: Path,
    /,
    *,
    dataset: str = "digits",
    epochs: int = 1,
    seed: int = 0,
    batch: int = 64,
    lr: float = 1e-3,
    momentum: float = 0.9,
    prm: Annotated[list[str] | None, Parameter(negative="")] = None,
    shape: str | None = None,
    data_root: Path | None = None,
    device: str = "auto",
    threads: int | None = None,
    wall: float = 3600.0,
    memory_mib: int = 12_288,
    isolation: str = "auto",
    compiled: bool = False,
    test: bool = False,
    json: bool = False,
) -> None:
    """Train one file in an isolated worker and score it outside, on the validation split.

    The worker holds the labels of the train split alone; it returns predictions, and the accuracy is
    made of them here. On a CPU the same command gives the same accuracy to the last digit.

    Args:
        path: A file in LEMUR's contract.
        dataset: digits, fashion-mnist, mnist, cifar-10, cifar-100, svhn, or folder:PATH (one folder per class).
        epochs: How often the train split is shown.
        seed: Seeds everything random in the worker.
        batch: Images per step.
        lr: Learning rate, handed to the file in prm.
        momentum: Handed to the file in prm.
        prm: A further hyperparameter as NAME=VALUE.
        shape: Channels, height and width that images are brought to; the data set's own by default.
        data_root: Where torchvision's files lie or are downloaded to.
        device: auto, cpu or cuda.
        threads: CPU threads of the worker; all cores by default.
        wall: Seconds that the trial may take.
        memory_mib: MiB of memory that it may use.
        isolation: sandbox (bubblewrap: no network, no files, no rights), process (own process, limits), none (time
            and memory alone), or auto: process for what assembling its plan gives byte for byte, else sandbox.
        compiled: Have torch.compile translate the net before it trains: minutes, for many epochs on a card.
        test: Print the accuracy on the test split too.
        json: Print the result as JSON.

    Examples:
        nngen train generated/first.py --epochs 3
        nngen train generated/first.py --dataset fashion-mnist --shape 1x32x32 --seed 1 --json
    """
    import os

    from nngen.datasets import load_dataset
    from nngen.errors import NngenError
    from nngen.training import LocalEngine, TrainJob, pick_device
    from nngen.training.candidate_files import check_isolation, choose_isolation
    from nngen.types import Shape, TrialSpec

    check_isolation(isolation)
    candidate = _read(path)
    data = load_dataset(dataset, data_root=data_root)
    spec = TrialSpec(
        dataset=dataset,
        shape=data.default_shape if shape is None else Shape.parse(shape),
        epochs=epochs,
        batch=batch,
        lr=lr,
        momentum=momentum,
        seed=seed,
        device=pick_device(device),
        threads=threads or os.cpu_count() or 1,
        time_limit_s=wall,
        memory_mib=memory_mib,
        hyperparameters=parse_values(prm or []),
    )
    level = choose_isolation(isolation, candidate.source)
    with LocalEngine(compiled=compiled) as engine:
        job = TrainJob(candidate=candidate, spec=spec, dataset=data, isolation=level)
        trial = engine.train(job, _reporter(spec))
    result = _result(trial, data, test=test)
    if json:
        print_json(result)
    else:
        print_table([result], list(result)[: list(result).index("id")])
    if not trial.verdict.valid:
        raise NngenError(f"{path}: {trial.verdict.outcome.value}: {trial.verdict.message}")


def _read(path: Path) -> Any:
    from nngen.checks import CheckFailed
    from nngen.errors import NngenError, UsageError
    from nngen.training.candidate_files import read_candidate

    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    try:
        return read_candidate(path)
    except CheckFailed as refused:
        raise NngenError(f"{path}: {refused.verdict.outcome.value}: {refused.verdict.message}") from None


def _reporter(spec: TrialSpec) -> Callable[[EpochResult], None]:
    """Make the writer of one line per epoch on stderr; it is silent where stderr is no terminal."""
    from rich.console import Console

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
    from nngen.training import accuracy

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
