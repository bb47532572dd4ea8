"""Replays of LEMUR's records: its own files trained again with the hyperparameters of the record.

A replay trains on the whole official training split and is scored on the official test split, as LEMUR does. It is
stored apart from campaigns, because its accuracy was not chosen by a validation split and never may be.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nngen.archive import Archive, Replay
from nngen.datasets.dataset import Dataset
from nngen.datasets.loading import load_source
from nngen.datasets.registry import find_source
from nngen.datasets.source import Progress, Raw, Request, Source
from nngen.errors import DataError, LemurError, UsageError
from nngen.families.catalogue import make_family
from nngen.families.trust import AUTO, families_level
from nngen.files import cache_dir
from nngen.lemur.layout import nn_id
from nngen.lemur.reader import Lemur
from nngen.lemur.transforms import CONSTANTS, KnownTransform, read_transform
from nngen.ranges import check_ranges
from nngen.text import counted
from nngen.training.engine import KILLED, Engine, TrainJob
from nngen.types import Candidate, Family, Outcome, Record, Shape, Trial, TrialSpec, Verdict

_STAND_IN = 10
"""Images in the place of the test split, which a worker predicts and no figure of a replay is computed from."""


@dataclass(frozen=True, slots=True)
class OfficialSplits:
    """Source whose training split stays whole, with the official test split in the place of validation."""

    source: Source
    default_shape: Shape | None = None

    @property
    def name(self) -> str:
        return f"official-{self.source.name}"

    def key(self) -> str:
        return self.source.key()

    def decode(self) -> Raw:
        raw = self.source.decode()
        if raw.test_images is None or raw.test_labels is None:
            raise DataError(f"{self.source.name} has no official test split")
        return replace(
            raw,
            validation_images=raw.test_images,
            validation_labels=raw.test_labels,
            test_images=raw.test_images[:_STAND_IN],
            test_labels=raw.test_labels[:_STAND_IN],
        )


def load_official(name: str, *, data_root: Path | None = None, progress: Progress | None = None) -> Dataset:
    """Load a data set of LEMUR's in its official splits; ``validation`` is the official test split.

    Raises:
        UsageError: If nngen does not have the data set; the message lists those that it has.
        DataError: If its files are missing or broken.
    """
    if name not in CONSTANTS:
        raise UsageError(f"records on {name!r} cannot be replayed: choose {', '.join(CONSTANTS)}")
    root = data_root or cache_dir() / "torchvision"
    return load_source(OfficialSplits(find_source(Request(name=name, root=root, progress=progress))), progress)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayJob:
    """A record to replay."""

    record: Record  # LEMUR's record
    family: Family  # LEMUR's file of the model
    spec: TrialSpec  # settings of the training, those of the record
    transform: KnownTransform  # the record's transform

    @property
    def key(self) -> tuple[Any, ...]:
        """Everything that decides the training besides the images and the machine."""
        record = self.record
        settings = json.dumps(dict(record.hyperparameters), sort_keys=True)
        return nn_id(self.family.source), record.dataset, record.epoch, settings, self.spec.seed


def choose_replays(
    lemur: Lemur,
    models: Iterable[str],
    base: TrialSpec,
    *,
    epochs: int,
    count: int,
    max_side: int | None = None,
    min_batch: int = 2,
) -> tuple[list[ReplayJob], Counter[tuple[str, str]]]:
    """Choose the records to replay: of each model those with the fewest pixels, and among these by a hash.

    Accuracies have no part in the choice: the best of many records is better than its repetition, by luck alone.

    Args:
        lemur: The records and the files.
        models: Names of models.
        base: Data set with the shape of its images, seed, limits and machine of the trainings; everything else is the
            record's.
        epochs: Epochs of the records.
        count: Most records of each model.
        max_side: Longest side of the images in pixels; None for any.
        min_batch: Smallest batch.

    Returns:
        The jobs in the order of LEMUR's durations, the shortest first; and the number of records that cannot be
        replayed, by model and reason.

    Raises:
        UsageError: If a model has no records on the data set; the message names those that have.
        LemurError: If LEMUR cannot be read.
    """
    jobs: list[ReplayJob] = []
    left_out = Counter[tuple[str, str]]()
    for model in models:
        records = lemur.records(model, base.dataset)
        if not records:
            lemur.history(model, base.dataset)  # raises, with the names of the nearest model and of the data sets
        family = make_family(model, lemur.source(model))
        found: dict[tuple[Any, ...], ReplayJob] = {}
        for record in records:
            if record.epoch != epochs:
                continue
            try:
                job = _job(record, family, base)
            except (LemurError, UsageError, ValueError) as error:
                left_out[model, str(error).removeprefix("--")] += 1
                continue
            if max_side is not None and job.spec.shape.height > max_side:
                left_out[model, f"images of more than {max_side} px"] += 1
            elif job.spec.batch < min_batch:
                left_out[model, f"batches of fewer than {min_batch}"] += 1
            else:
                found.setdefault(job.key, job)
        if not any(record.epoch == epochs for record in records):
            reached = max(record.epoch for record in records)
            left_out[model, f"no record after {counted(epochs, 'epoch')}, of {reached} at most"] += 1
        # By a hash and not by the batch: most records with large batches barely learn in one epoch.
        jobs += sorted(found.values(), key=lambda job: (job.spec.shape.height, _hash(job)))[:count]
    return sorted(jobs, key=lambda job: (job.record.duration_s, job.key)), left_out


def _hash(job: ReplayJob) -> str:
    """Hash the record's settings; every seed replays the same records."""
    return hashlib.sha256(repr(job.key[:-1]).encode()).hexdigest()


def _job(record: Record, family: Family, base: TrialSpec) -> ReplayJob:
    """Turn a record into a job.

    Raises:
        LemurError: If its transform has no equal, or it began from pretrained weights.
        UsageError: If a value is outside of what nngen trains with.
        ValueError: If the batch is not a number.
    """
    prm = {name: int(value) if isinstance(value, bool) else value for name, value in record.hyperparameters.items()}
    if prm.get("pretrained"):
        raise LemurError("it began from pretrained weights")
    transform = read_transform(str(prm.get("transform", "(none)")), record.dataset)
    own: Any = {name: prm.pop(name) for name in ("lr", "momentum", "batch") if name in prm}
    side = transform.side
    spec = replace(
        base,
        shape=base.shape if side is None else Shape(base.shape.channels, side, side),
        epochs=record.epoch,
        augment=transform.augment,
        hyperparameters=prm,
        **{**own, "batch": int(own.get("batch", 0))},
    )
    check_ranges(spec)
    return ReplayJob(record=record, family=family, spec=spec, transform=transform)


def open_replays(
    jobs: Sequence[ReplayJob], archive: Archive, data_fingerprint: str
) -> tuple[list[Replay], list[ReplayJob]]:
    """Return the results that the archive holds, and the jobs without one.

    A training that failed counts as a result where it had the same limits.
    """
    known: dict[tuple[Any, ...], Replay] = {}
    for dataset, epoch in sorted({(job.record.dataset, job.record.epoch) for job in jobs}):
        for stored in archive.external.replays(dataset, epoch):
            if stored.data_fingerprint == data_fingerprint:
                settings = json.dumps(dict(stored.record.hyperparameters), sort_keys=True)
                known[stored.nn_id, dataset, epoch, settings, stored.spec.seed] = stored
    done, missing = [], []
    for job in jobs:
        found = known.get(job.key)
        if found is not None and (found.accuracy is not None or found.spec == job.spec):
            done.append(found)
        else:
            missing.append(job)
    return done, missing


def run_replays(
    jobs: Sequence[ReplayJob],
    *,
    engine: Engine,
    threads: Executor,
    archive: Archive,
    data: Mapping[str, Dataset],
    isolation: str = AUTO,
    more: Callable[[], bool] = lambda: True,
) -> Iterator[Replay]:
    """Train the jobs in order, as many at once as the engine takes, while ``more()``; store each result, then yield it.

    Raises:
        NngenError: If no worker can be started, or the archive cannot be written.
    """
    waiting, running = list(reversed(jobs)), dict[Future[Trial], ReplayJob]()
    while running or (waiting and more()):
        while waiting and len(running) < engine.slots and more():
            job = waiting.pop()
            training = _training(job, data[job.record.dataset], isolation)
            running[threads.submit(engine.train, training)] = job
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            job, trial = running.pop(future), _checked(future.result())
            result = Replay(
                record=job.record,
                nn_id=nn_id(job.family.source),
                spec=job.spec,
                data_fingerprint=data[job.record.dataset].fingerprint,
                verdict=trial.verdict,
                accuracy=trial.validation_accuracy,
                parameters=trial.parameters,
                seconds=trial.seconds,
            )
            if trial.verdict.rule != KILLED:  # that says something of the machine, and the next run tries again
                archive.external.add_replay(result)
            yield result


def _checked(trial: Trial) -> Trial:
    """Return a trial as it is, or as failed where memory sufficed for smaller batches alone: that repeats no record."""
    if trial.batch in (None, trial.spec.batch) or not trial.verdict.valid:
        return trial
    message = f"memory suffices for batches of {trial.batch}, not of {trial.spec.batch}: raise --memory-mib"
    return replace(trial, validation_accuracy=None, verdict=Verdict(outcome=Outcome.MEMORY, message=message))


def _training(job: ReplayJob, dataset: Dataset, isolation: str) -> TrainJob:
    return TrainJob(
        candidate=Candidate(id=nn_id(job.family.source), source=job.family.source, canonical=""),
        spec=job.spec,
        dataset=replace(dataset, mean=job.transform.mean, std=job.transform.std),
        isolation=families_level([job.family], isolation).level,
    )
