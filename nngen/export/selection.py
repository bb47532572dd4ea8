"""What is exported: finished, valid trials that reached the accuracy asked for, each with its test accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nngen.archive import StoredCandidate, StoredTrial, TrialState
from nngen.archive.protocol import Store
from nngen.errors import ArchiveError, DataError, UsageError
from nngen.families.hyperparameters import supported
from nngen.lemur.layout import EpochScore, check_names, nn_id
from nngen.lemur.records import CLASSIFICATION, Results
from nngen.lemur.transforms import Transform, matching_transform
from nngen.types import Hyperparameters, TrialSpec

if TYPE_CHECKING:
    from nngen.datasets.dataset import Dataset

__all__ = ["Export", "gather", "select"]

_ALWAYS = ("batch", "epoch", "transform")


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """One trial on its way to LEMUR.

    Attributes:
        results: Task, data set, metric and model, as LEMUR names them.
        score: After the last epoch: the only one whose test predictions are made.
        stand_in: A transform of our own that does the same as ``transform``, should the target lack that.
        classes: Of the data set.
    """

    candidate: StoredCandidate
    trial: StoredTrial
    results: Results
    score: EpochScore
    transform: Transform
    stand_in: Transform
    classes: int

    def standing_in(self) -> Export:
        """The same with a transform of our own, for a target that lacks LEMUR's."""
        prm = {**self.score.prm, "transform": self.stand_in.name}
        return replace(self, transform=self.stand_in, score=replace(self.score, prm=prm))


def select(
    archive: Store,
    *,
    campaign: str | None = None,
    ids: Sequence[str] = (),
    min_accuracy: float = 0.0,
) -> tuple[StoredTrial, ...]:
    """Choose trials by campaign, or by their candidates' ids (or the start of them).

    Trials that took another's result over stand for that other one.

    Args:
        archive: Where they are kept.
        campaign: All of this campaign's trials.
        ids: Ids of candidates; all of their trials.
        min_accuracy: On the validation split, in [0, 1].

    Raises:
        UsageError: If neither or both are given, a name is unknown, or nothing reached the accuracy.
    """
    if (campaign is None) == (not ids):
        raise UsageError("name what to export: either a campaign or --id ID")
    if not 0.0 <= min_accuracy <= 1.0:
        raise UsageError(f"--min-accuracy is a share between 0 and 1, not {min_accuracy}")
    if campaign is not None:
        archive.campaign(campaign)
        found: Iterable[StoredTrial] = archive.trials(campaign, state=TrialState.DONE)
    else:
        names = dict.fromkeys(archive.candidate(prefix).id for prefix in ids)
        found = [
            trial for name in names for trial in archive.trials(candidate_id=name) if trial.state is TrialState.DONE
        ]
    originals = {trial.id: trial for trial in archive.trials(state=TrialState.DONE)}
    chosen = {trial.id: trial for trial in (originals[t.copied_from or t.id] for t in found) if _passed(trial)}
    good = [trial for trial in chosen.values() if (trial.validation_accuracy or 0.0) >= min_accuracy]
    if not good:
        best = max((trial.validation_accuracy or 0.0 for trial in chosen.values()), default=None)
        what = "no valid trial" if best is None else f"no trial of at least {min_accuracy} (the best has {best:.4f})"
        raise UsageError(f"{campaign or ', '.join(ids)}: there is {what} to export")
    return tuple(good)


def gather(
    archive: Store,
    trials: Sequence[StoredTrial],
    load: Callable[[str], Dataset],
    *,
    dataset_name: str | None = None,
) -> tuple[Export, ...]:
    """Score the chosen trials on the test split and write them in LEMUR's words.

    The test accuracy is computed from the predictions kept with the trial and revealed in the archive, once.

    Args:
        archive: Open for writing.
        trials: What ``select`` chose.
        load: Loads a data set by its name.
        dataset_name: What LEMUR shall call the data set, in place of our name for it.

    Raises:
        UsageError: If a name is none for LEMUR.
        DataError: If a data set is missing, or is not the one the trial was trained on.
        ArchiveError: If a trial has no test predictions.
    """
    datasets: dict[str, Dataset] = {}
    prepared = []
    for trial in trials:
        assert trial.spec is not None and trial.candidate_id is not None
        candidate = archive.candidate(trial.candidate_id)
        results = Results(CLASSIFICATION[0], dataset_name or trial.spec.dataset, CLASSIFICATION[1], candidate.id)
        _check(results, candidate)
        if trial.spec.dataset not in datasets:
            datasets[trial.spec.dataset] = load(trial.spec.dataset)
        prepared.append((candidate, trial, results, trial.spec, datasets[trial.spec.dataset]))
    # Nothing is revealed before all is known to be exportable.
    accuracies = [_test_accuracy(archive, trial, data) for _, trial, _, _, data in prepared]
    return tuple(
        _export(candidate, trial, results, spec, data, archive.reveal_test(trial.id, accuracy))
        for (candidate, trial, results, spec, data), accuracy in zip(prepared, accuracies, strict=True)
    )


def _passed(trial: StoredTrial) -> bool:
    return trial.trained and trial.verdict is not None and trial.verdict.valid


def _check(results: Results, candidate: StoredCandidate) -> None:
    if ":" in results.dataset:
        raise UsageError(f"{results.dataset} is no name for LEMUR: say what to call it with --dataset-name")
    check_names(results)
    if not candidate.id.endswith(nn_id(candidate.source)):
        raise ArchiveError(f"{candidate.id} does not hold the hash of its own source: the archive was changed")


def _test_accuracy(archive: Store, trial: StoredTrial, data: Dataset) -> float:
    from nngen.training.scoring import accuracy

    if trial.data_fingerprint and trial.data_fingerprint != data.fingerprint:
        raise DataError(f"{data.name} is not the data that trial {trial.id} was trained on: its fingerprint differs")
    if trial.test_accuracy is not None:
        return trial.test_accuracy
    predictions = archive.predictions(trial.id, "test")
    if not predictions:
        raise ArchiveError(f"trial {trial.id} of {trial.candidate_id} has no test predictions: train it again")
    try:
        return accuracy(predictions, data.test_labels)
    except ValueError as error:
        raise DataError(f"{data.name} is not the data that trial {trial.id} was trained on: {error}") from error


def _export(
    candidate: StoredCandidate, trial: StoredTrial, results: Results, spec: TrialSpec, data: Dataset, accuracy: float
) -> Export:
    transform = matching_transform(data.shape, spec.shape, flip=data.natural)
    score = EpochScore(
        epoch=spec.epochs,
        accuracy=accuracy,
        duration_ns=round(sum(point.seconds for point in trial.curve) * 1e9),
        prm=_prm(candidate, trial, spec, transform.name),
        train_stat=_train_stat(trial, spec, accuracy, len(data.train_labels)),
    )
    return Export(
        candidate=candidate,
        trial=trial,
        results=results,
        score=score,
        transform=transform,
        stand_in=matching_transform(data.shape, spec.shape, flip=data.natural, own=True),
        classes=data.classes,
    )


def _prm(candidate: StoredCandidate, trial: StoredTrial, spec: TrialSpec, transform: str) -> Hyperparameters:
    """What LEMUR would have handed to the model and recorded: the names it supports, and its own three."""
    passed = {**trial.prm, "lr": spec.lr, "momentum": spec.momentum, "batch": spec.batch, "epoch": spec.epochs}
    passed |= {**spec.hyperparameters, "transform": transform}
    names = supported(candidate.source) | set(_ALWAYS)
    return {name: passed[name] for name in sorted(names) if name in passed}


def _train_stat(
    trial: StoredTrial, spec: TrialSpec, accuracy: float, samples: int
) -> Mapping[str, float | int | str | None]:
    """Fill in what is known; what LEMUR measures and nngen does not stays empty."""
    last = trial.curve[-1] if trial.curve else None
    cores = trial.environment.get("cores")
    return {
        "train_loss": last.train_loss if last else None,
        "test_loss": None,
        "train_accuracy": last.train_accuracy if last else None,
        "gradient_norm": None,
        "samples_per_second": samples / last.seconds if last and last.seconds else None,
        "best_accuracy": accuracy,
        "best_epoch": spec.epochs,
        "epoch_max": spec.epochs,
        "cpu_count": int(cores) if cores else None,
        "cpu_type": trial.environment.get("cpu"),
        "cpu_usage_percent": None,
        "total_ram_kb": None,
        "occupied_ram_kb": None,
        "ram_usage_percent": None,
        "gpu_type": None if spec.device == "cpu" else trial.environment.get("device"),
        "gpu_memory_kb": None,
        "gpu_total_memory_kb": None,
        "occupied_gpu_memory_kb": None,
        "gpu_memory_usage_percent": None,
    }
