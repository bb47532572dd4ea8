"""Selection of trials to export: finished and valid, with at least the requested accuracy, scored on the test split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from nngen.archive.records import StoredCandidate, StoredTrial, TrialState
from nngen.archive.store import Archive
from nngen.datasets.dataset import Dataset
from nngen.datasets.preprocessing import Preprocessing
from nngen.errors import ArchiveError, DataError, UsageError
from nngen.families.hyperparameters import supported
from nngen.lemur.layout import EpochScore, check_names, nn_id
from nngen.lemur.records import CLASSIFICATION, Results
from nngen.lemur.transforms import Transform, matching_transform
from nngen.types import Hyperparameters, Shape, TrialSpec

LOADERS = frozenset({"celeba-gender", "cifar-10", "cifar-100", "imagenette", "mnist", "places365", "svhn"})
"""Image classification data sets that nn-dataset 2.1.2 can load."""

_ALWAYS = ("batch", "epoch", "transform")


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """A trial in LEMUR's terms."""

    candidate: StoredCandidate
    trial: StoredTrial
    results: Results  # task, data set, metric and model, in LEMUR's names
    score: EpochScore  # score after the last epoch, the only one with test predictions
    transform: Transform  # LEMUR's transform that matches the training
    stand_in: Transform  # equivalent transform of nngen, for targets that lack ``transform``
    preprocessing: Preprocessing  # conversion of an image file to the model's input
    # number of images that it was trained on, and of those of the validation and the test split
    images: tuple[int, int, int]

    @property
    def key(self) -> tuple[str, str]:
        """Model and data set, which have one set of weights."""
        return self.candidate.id, self.results.dataset

    def standing_in(self) -> Export:
        """Return a copy with nngen's own transform, for a target that lacks LEMUR's."""
        prm = {**self.score.prm, "transform": self.stand_in.name}
        return replace(self, transform=self.stand_in, score=replace(self.score, prm=prm))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedFiles:
    """Files of a trained network, with the weights that its trial kept or those of the trial trained again."""

    export: Export  # the trial
    weights: bytes | None  # state dictionary as safetensors; None if not requested
    onnx: bytes | None  # ONNX graph for any number of images; None if not requested or not available
    reason: str  # reason for having no graph; empty otherwise
    # largest difference between the graph's logits and torch's, relative to the largest logit
    difference: float | None
    kept: bool  # whether the weights are those that the trial kept; otherwise it was trained again
    same: bool  # whether its test predictions equal the trial's
    test_accuracy: float  # test accuracy with these weights; equal to the trial's if ``same``


def select(
    archive: Archive,
    *,
    campaign: str | None = None,
    ids: Sequence[str] = (),
    dataset: str | None = None,
    min_accuracy: float = 0.0,
) -> tuple[StoredTrial, ...]:
    """Select the trials that fit all conditions; a campaign, or ids of candidates (or prefixes of them), must be given.

    A trial whose result was copied is replaced by the original.

    Raises:
        UsageError: If neither campaign nor id is given, a name is unknown, or no trial fits.
    """
    if campaign is None and not ids:
        raise UsageError("name what to export: a campaign, --id ID, or both")
    if not 0.0 <= min_accuracy <= 1.0:
        raise UsageError(f"--min-accuracy is a share between 0 and 1, not {min_accuracy}")
    if campaign is not None:
        archive.campaign(campaign)
    names: list[str | None] = list(dict.fromkeys(archive.candidate(prefix).id for prefix in ids))
    found = [
        trial
        for name in names or [None]
        for trial in archive.trials(campaign, candidate_id=name, state=TrialState.DONE)
    ]
    originals = (archive.trial(trial.copied_from) if trial.copied_from else trial for trial in found)
    chosen = {trial.id: trial for trial in originals if _passed(trial)}
    asked = " and ".join(filter(None, (campaign, ", ".join(ids))))
    if dataset is not None:
        there = sorted({trial.spec.dataset for trial in chosen.values() if trial.spec})
        chosen = {number: trial for number, trial in chosen.items() if trial.spec and trial.spec.dataset == dataset}
        if there and not chosen:
            raise UsageError(f"{asked}: nothing was trained on {dataset}: its trials are on {', '.join(there)}")
    good = [trial for trial in chosen.values() if (trial.validation_accuracy or 0.0) >= min_accuracy]
    if not good:
        if found and all(trial.verdict and trial.verdict.replayed for trial in found):
            raise UsageError(f"{asked}: its trials are replayed from a recorded table, and only trainings are exported")
        best = max((trial.validation_accuracy or 0.0 for trial in chosen.values()), default=None)
        what = "no valid trial" if best is None else f"no trial of at least {min_accuracy} (the best has {best:.4f})"
        raise UsageError(f"{asked}: there is {what} to export")
    return tuple(good)


def gather(
    archive: Archive,
    trials: Sequence[StoredTrial],
    load: Callable[[str, Shape], Dataset],
    *,
    dataset_name: str | None = None,
) -> tuple[Export, ...]:
    """Score the selected trials on the test split and convert them to LEMUR's terms.

    The test accuracy is computed from the trial's stored predictions and revealed in the archive.
    ``dataset_name`` is LEMUR's name of the one data set that LEMUR has no name for.

    Raises:
        UsageError: If LEMUR cannot use a name, or ``dataset_name`` would not name exactly one data set.
        DataError: If a data set is missing, or differs from the one that the trial was trained on.
        ArchiveError: If a trial has no test predictions.
    """
    load, exports = cache(load), []
    names = _names(trials, dataset_name)
    for trial in trials:
        assert trial.spec is not None and trial.candidate_id is not None
        candidate, data = archive.candidate(trial.candidate_id), load(trial.spec.dataset, trial.spec.shape)
        results = Results(CLASSIFICATION[0], names[trial.spec.dataset], CLASSIFICATION[1], candidate.id)
        _check(results, candidate)
        exports.append(_export(candidate, trial, results, trial.spec, data, _test_accuracy(archive, trial, data)))
    # All accuracies are computed first: if one trial cannot be exported, none is revealed.
    for export in exports:
        archive.reveal_test(export.trial.id, export.score.accuracy)
    return tuple(exports)


def _names(trials: Sequence[StoredTrial], dataset_name: str | None) -> Mapping[str, str]:
    """Return the name in LEMUR of each data set of the trials."""
    used = sorted({trial.spec.dataset for trial in trials if trial.spec})
    unnamed = [name for name in used if name not in LOADERS]
    if dataset_name is None:
        return {name: name for name in used}
    if len(unnamed) > 1:
        raise UsageError(
            f"--dataset-name {dataset_name} would name {len(unnamed)} data sets alike ({', '.join(unnamed)}): "
            "choose one with --dataset"
        )
    if not unnamed:
        raise UsageError(f"LEMUR has a name for {', '.join(used)}: leave out --dataset-name {dataset_name}")
    return {name: dataset_name if name in unnamed else name for name in used}


def _passed(trial: StoredTrial) -> bool:
    return trial.trained and trial.verdict is not None and trial.verdict.valid and not trial.verdict.replayed


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
    transform = matching_transform(data.shape, spec.shape, augment=spec.augment)
    trained_on = data.training_images(spec.train_size)
    score = EpochScore(
        epoch=spec.epochs,
        accuracy=accuracy,
        duration_ns=round(sum(point.seconds for point in trial.curve) * 1e9),
        prm=_prm(candidate, trial, spec, transform.name),
        train_stat=_train_stat(trial, spec, accuracy, trained_on),
    )
    return Export(
        candidate=candidate,
        trial=trial,
        results=results,
        score=score,
        transform=transform,
        stand_in=matching_transform(data.shape, spec.shape, augment=spec.augment, own=True),
        preprocessing=data.preprocessing(spec.shape),
        images=(trained_on, len(data.validation_labels), len(data.test_labels)),
    )


def _prm(candidate: StoredCandidate, trial: StoredTrial, spec: TrialSpec, transform: str) -> Hyperparameters:
    """Return the hyperparameters as LEMUR would record them: those that the model supports, and LEMUR's own three."""
    passed = {**trial.prm, "lr": spec.lr, "momentum": spec.momentum, "batch": spec.batch}
    passed["epoch"] = spec.horizon or spec.epochs
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
