"""Selection of trials to export: finished and valid, with at least the requested accuracy, scored on the test split."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from nngen.archive.records import StoredCandidate, StoredTrial, TrialState
from nngen.archive.store import Archive
from nngen.datasets.dataset import Dataset
from nngen.errors import ArchiveError, DataError, UsageError
from nngen.families.hyperparameters import supported
from nngen.lemur.layout import EpochScore, check_names, nn_id
from nngen.lemur.records import CLASSIFICATION, Results
from nngen.lemur.transforms import Transform, matching_transform
from nngen.types import Hyperparameters, TrialSpec

_ALWAYS = ("batch", "epoch", "transform")


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """A trial in LEMUR's terms.

    Attributes:
        results: Task, data set, metric and model, in LEMUR's names.
        score: Score after the last epoch, the only one with test predictions.
        transform: LEMUR's transform that matches the training.
        stand_in: Equivalent transform of nngen, for targets that lack ``transform``.
    """

    candidate: StoredCandidate
    trial: StoredTrial
    results: Results
    score: EpochScore
    transform: Transform
    stand_in: Transform
    classes: int

    def standing_in(self) -> Export:
        """Return a copy with nngen's own transform, for a target that lacks LEMUR's."""
        prm = {**self.score.prm, "transform": self.stand_in.name}
        return replace(self, transform=self.stand_in, score=replace(self.score, prm=prm))


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetition:
    """A trial repeated for its weights.

    Attributes:
        weights: State dictionary as safetensors; None if not requested.
        onnx: ONNX graph for any number of images; None if not requested or not available.
        reason: Reason for having no graph; empty otherwise.
        difference: Largest difference between the graph's logits and torch's, relative to the largest logit.
        same: Whether its test predictions equal the trial's.
        test_accuracy: Test accuracy of the repetition; equal to the trial's if ``same``.
    """

    weights: bytes | None
    onnx: bytes | None
    reason: str
    difference: float | None
    same: bool
    test_accuracy: float


def select(
    archive: Archive,
    *,
    campaign: str | None = None,
    ids: Sequence[str] = (),
    min_accuracy: float = 0.0,
) -> tuple[StoredTrial, ...]:
    """Select trials by campaign, or by ids of candidates (or prefixes of them).

    A trial whose result was copied is replaced by the original.

    Args:
        archive: Archive to read.
        campaign: Campaign whose trials are selected.
        ids: Ids of candidates whose trials are selected.
        min_accuracy: Smallest validation accuracy, in [0, 1].

    Raises:
        UsageError: If neither or both are given, a name is unknown, or no trial has the accuracy.
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
        found = [trial for name in names for trial in archive.trials(candidate_id=name, state=TrialState.DONE)]
    originals = {trial.id: trial for trial in archive.trials(state=TrialState.DONE)}
    chosen = {trial.id: trial for trial in (originals[t.copied_from or t.id] for t in found) if _passed(trial)}
    good = [trial for trial in chosen.values() if (trial.validation_accuracy or 0.0) >= min_accuracy]
    if not good:
        best = max((trial.validation_accuracy or 0.0 for trial in chosen.values()), default=None)
        what = "no valid trial" if best is None else f"no trial of at least {min_accuracy} (the best has {best:.4f})"
        raise UsageError(f"{campaign or ', '.join(ids)}: there is {what} to export")
    return tuple(good)


def gather(
    archive: Archive,
    trials: Sequence[StoredTrial],
    load: Callable[[str], Dataset],
    *,
    dataset_name: str | None = None,
) -> tuple[Export, ...]:
    """Score the selected trials on the test split and convert them to LEMUR's terms.

    The test accuracy is computed from the trial's stored predictions and revealed in the archive, once.

    Args:
        archive: Archive, open for writing.
        trials: Result of ``select``.
        load: Loads a data set by name.
        dataset_name: LEMUR's name of the data set; nngen's name by default.

    Raises:
        UsageError: If LEMUR cannot use a name.
        DataError: If a data set is missing, or differs from the one that the trial was trained on.
        ArchiveError: If a trial has no test predictions.
    """
    load, exports = cache(load), []
    for trial in trials:
        assert trial.spec is not None and trial.candidate_id is not None
        candidate, data = archive.candidate(trial.candidate_id), load(trial.spec.dataset)
        results = Results(CLASSIFICATION[0], dataset_name or trial.spec.dataset, CLASSIFICATION[1], candidate.id)
        _check(results, candidate)
        exports.append(_export(candidate, trial, results, trial.spec, data, _test_accuracy(archive, trial, data)))
    # All accuracies are computed first: if one trial cannot be exported, none is revealed.
    for export in exports:
        archive.reveal_test(export.trial.id, export.score.accuracy)
    return tuple(exports)


def _passed(trial: StoredTrial) -> bool:
    return trial.trained and trial.verdict is not None and trial.verdict.valid


def _check(results: Results, candidate: StoredCandidate) -> None:
    if ":" in results.dataset:
        raise UsageError(f"LEMUR cannot use the name {results.dataset}: give another one with --dataset-name")
    check_names(results)
    if not candidate.id.endswith(nn_id(candidate.source)):
        raise ArchiveError(f"{candidate.id} does not match the hash of its source: the archive was changed")


def _test_accuracy(archive: Archive, trial: StoredTrial, data: Dataset) -> float:
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
        train_stat=_train_stat(trial, spec, accuracy, data.training_images(spec.train_size)),
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
    """Return the hyperparameters as LEMUR would record them: those that the model supports, and LEMUR's own three."""
    passed = {**trial.prm, "lr": spec.lr, "momentum": spec.momentum, "batch": spec.batch, "epoch": spec.epochs}
    passed |= {**spec.hyperparameters, "transform": transform}
    names = supported(candidate.source) | set(_ALWAYS)
    if spec.train_size is not None:  # LEMUR has no name for it, and its readers must not take a part for the whole
        passed, names = passed | {"train_size": spec.train_size}, names | {"train_size"}
    return {name: passed[name] for name in sorted(names) if name in passed}


def _train_stat(
    trial: StoredTrial, spec: TrialSpec, accuracy: float, samples: int
) -> Mapping[str, float | int | str | None]:
    """Fill LEMUR 2.2.11's training statistics; values that nngen does not measure stay None."""
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
