"""``nngen lemur replay``: records of LEMUR's trained again here, beside the accuracies that were recorded."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

from cyclopts import Parameter

from nngen.analysis.formatting import duration
from nngen.analysis.statistics import mean_interval
from nngen.archive import Replay
from nngen.campaign.estimate import SPREAD, epoch_seconds
from nngen.campaign.replay import ReplayJob, choose_replays, load_official, open_replays, run_replays
from nngen.campaign_spec import CampaignSpec
from nngen.cli.options import ArchiveOptions, Arguments, Count, DataName, IsolationOption, PositiveOption, ThreadsOption
from nngen.cli.options.dry_run import DryRun
from nngen.cli.options.family import note_levels
from nngen.cli.output import note, print_json, print_table, say, suggest
from nngen.cli.progress import progress_bar
from nngen.datasets import Dataset
from nngen.errors import NngenError, SomeFailedError
from nngen.families.catalogue import is_base
from nngen.families.probe import profiles, training_costs
from nngen.families.trust import families_level
from nngen.lemur.source import open_lemur
from nngen.text import counted
from nngen.training import LocalEngine, pick_device
from nngen.training.memory_model import predict, refusal
from nngen.types import TrialSpec

_MOST_THREADS = 16
_SHOWN = 20


class ReplayOptions(
    Arguments,
    of=CampaignSpec,
    only=("seed", "device", "threads", "time_limit_s", "memory_mib"),
    undefined=("device", "threads"),
):
    """Arguments of replays that were typed; everything else is the record's own."""


def replay(
    models: Annotated[list[str] | None, Parameter(negative="")] = None,
    /,
    *,
    dataset: DataName = "cifar-10",
    epochs: Count = 1,
    records: Count = 1,
    max_side: Count | None = None,
    max_minutes: PositiveOption | None = None,
    spec: ReplayOptions = ReplayOptions(),
    workers: ThreadsOption = 1,
    isolation: IsolationOption = "auto",
    data_root: Path | None = None,
    dry_run: DryRun = False,
    output: ArchiveOptions = ArchiveOptions(),
) -> None:
    """Train LEMUR's own files again with the hyperparameters of its records, and compare the accuracies.

    Learning rate, batch, transform and every other hyperparameter are those of the record; training is on the whole
    official training split, and the accuracy is that on the official test split, as in LEMUR. Of each model the records
    with the smallest images are taken, and among these by a hash, whatever their accuracy. Results are stored apart
    from campaigns. The same command goes on with what is missing; a training that was interrupted begins anew.
    Records that cannot be replayed are counted with the reason. The exit code is 3 if some of several trainings failed.

    Args:
        models: Names of LEMUR's models; by default every base family with records on the data set.
        dataset: LEMUR's name of the data set: cifar-10, cifar-100, mnist or svhn.
        epochs: Epochs of the records that are replayed.
        records: Most records of each model.
        max_side: Leave out records with larger images, in pixels.
        max_minutes: Begin no further training after so many minutes.
        workers: Trainings at a time.
        data_root: Folder that the data set's files are read from, or downloaded to.

    Examples:
        nngen lemur replay AirNet ResNet --dataset mnist
        nngen lemur replay --dataset cifar-10 --records 2 --max-side 64 --max-minutes 120
        nngen lemur replay DenseNet --dataset mnist --epochs 2 --json
        nngen lemur replay --dataset mnist --dry-run
    """
    lemur = open_lemur()
    with progress_bar("reading images") as report:
        data = load_official(dataset, data_root=data_root, progress=report)
    chosen = models or [name for name in lemur.recorded_models(dataset) if is_base(name)]
    base = TrialSpec(dataset=dataset, shape=data.shape, **_machine(spec, workers))
    jobs, left_out = choose_replays(lemur, chosen, base, epochs=epochs, count=records, max_side=max_side)
    _note_left_out(left_out)
    if not jobs:
        raise NngenError(f"none of the records after {counted(epochs, 'epoch')} on {dataset} can be replayed")
    note_levels((families_level([job.family], isolation) for job in jobs), "records")
    with output.peek() if dry_run else output.open() as store:
        done, missing = open_replays(jobs, store, data.fingerprint)
        if done and missing:
            note(f"{len(done)} of {len(jobs)} records are replayed already")
        if dry_run:
            _foresee(missing, data, workers, isolation, output)
            return
        end = time.monotonic() + 60 * (max_minutes or math.inf)
        # Closed in the reverse order: the engine ends its trainings, for which the threads wait.
        with ThreadPoolExecutor(workers) as threads, LocalEngine(slots=workers) as engine:
            clock = _Clock(missing)
            for result in run_replays(
                missing,
                engine=engine,
                threads=threads,
                archive=store,
                data={dataset: data},
                isolation=isolation,
                more=lambda: time.monotonic() < end,
            ):
                done.append(result)
                note(f"{len(done)} of {len(jobs)}  {result.record.model}  {_in_words(result)}{clock.left(result)}")
    _report(done, left_out, output)
    again = ["lemur", "replay", *(models or ()), "--dataset", dataset]
    if len(done) < len(jobs):
        note(f"{len(jobs) - len(done)} of {len(jobs)} records are not replayed: the same command goes on with them")
        suggest(*again, *output.place)
    else:
        suggest("fidelity", "--dataset", dataset, *output.place)
    failed = [result for result in done if result.accuracy is None]
    if failed and len(jobs) == 1:
        raise NngenError(f"{failed[0].record.model}: {failed[0].verdict.outcome.value}: {failed[0].verdict.message}")
    if failed:
        raise SomeFailedError(f"{len(failed)} of {len(jobs)} replays failed")


def _foresee(jobs: Sequence[ReplayJob], data: Dataset, workers: int, isolation: str, output: ArchiveOptions) -> None:
    """Print the time that replays would take by measurements of the models, and those that memory refuses."""
    rows, images = [], data.training_images(None)
    with progress_bar("measuring the cost of models") as report:
        for number, job in enumerate(jobs, 1):
            rows.append(_forecast(job, images, data.classes, isolation))
            report(number, len(jobs))
    known = [row["seconds"] for row in rows if row["seconds"] is not None]
    hours = sum(known) / workers / 3600
    if output.json:
        print_json({"replays": len(rows), "hours": hours, "spread": SPREAD, "records": rows})
        return
    say(f"dry run: nothing is trained or stored; {counted(len(rows), 'record')} to replay, {workers} at a time")
    if rows:
        print_table(rows)
    if known:
        expected, low, high = (duration(3600 * hours * factor) for factor in (1, 1 / SPREAD, SPREAD))
        say(f"time: {expected} (from {low} to {high}) for {len(known)} of them, by measurements on this machine")


def _forecast(job: ReplayJob, images: int, classes: int, isolation: str) -> dict[str, Any]:
    family, spec = job.family, job.spec
    profile = profiles([family], spec.shape, wanted=isolation)[family.name]
    pairs = [(family, profile.interface)] if profile.interface else []
    costs = training_costs(pairs, spec.shape, classes=classes, wanted=isolation)
    cost = costs.get(family.name) if spec.device == "cpu" else None  # a card is not measured here
    needed = predict((family.name,), costs, spec, images)
    refused = refusal(needed, float(spec.memory_mib)) if needed is not None and spec.device == "cpu" else None
    return {
        "model": job.record.model,
        "transform": job.record.hyperparameters.get("transform"),
        "batch": spec.batch,
        "recorded": job.record.accuracy,
        "seconds": cost and spec.epochs * epoch_seconds(cost, images, spec.batch, spec.threads),
        "message": refused.message if refused else "" if cost else profile.why(spec.shape) or "not measured",
    }


def _machine(spec: ReplayOptions, workers: int) -> dict[str, Any]:
    typed = spec.typed()
    cores = len(os.sched_getaffinity(0))
    typed.setdefault("threads", max(1, min(cores // workers, _MOST_THREADS)))
    return typed | {"device": pick_device(typed.get("device", "auto"))}


class _Clock:
    """Estimate of the time left, from LEMUR's durations of the records and the time that their replays took."""

    def __init__(self, jobs: Sequence[ReplayJob]) -> None:
        self._recorded_s = sum(job.record.duration_s for job in jobs)
        self._done_s, self._since, self._left = 0.0, time.monotonic(), len(jobs)

    def left(self, result: Replay) -> str:
        """Return the time left in words; empty at the end."""
        self._done_s += result.record.duration_s
        self._left -= 1
        if not self._left or not self._done_s:
            return ""
        took = time.monotonic() - self._since
        return f", about {duration(took * (self._recorded_s / self._done_s - 1))} left"


def _in_words(result: Replay) -> str:
    if result.accuracy is None:
        return f"{result.verdict.outcome.value}: {result.verdict.message}"
    gap = result.accuracy - result.record.accuracy
    return f"recorded {result.record.accuracy:.4f}, here {result.accuracy:.4f}, difference {gap:+.4f}"


def _note_left_out(left_out: Counter[tuple[str, str]]) -> None:
    """Name the reasons against records, each with the models that it concerns."""
    reasons: dict[str, Counter[str]] = {}
    for (model, reason), count in left_out.items():
        reasons.setdefault(reason, Counter())[model] += count
    ordered = sorted(reasons.items(), key=lambda item: (-item[1].total(), item[0]))
    for reason, models in ordered[:_SHOWN]:
        named = ", ".join(sorted(models)[:5]) + (", ..." if len(models) > 5 else "")
        note(f"{counted(models.total(), 'record')} of {named} cannot be replayed: {reason}")
    if len(ordered) > _SHOWN:
        note(f"{len(ordered) - _SHOWN} further reasons are in --json")


def _report(done: Sequence[Replay], left_out: Counter[tuple[str, str]], output: ArchiveOptions) -> None:
    rows = [_row(result) for result in sorted(done, key=lambda one: (one.record.model, -one.record.accuracy))]
    gaps = [row["difference"] for row in rows if row["difference"] is not None]
    span = mean_interval(gaps)
    summary = {
        "replayed": len(gaps),
        "mean_difference": fmean(gaps) if gaps else None,
        "low": span[0] if span else None,
        "high": span[1] if span else None,
        "mean_absolute_difference": fmean(map(abs, gaps)) if gaps else None,
    }
    if output.json:
        reasons = [{"model": model, "reason": reason, "records": count} for (model, reason), count in left_out.items()]
        print_json({**summary, "records": rows, "left_out": reasons})
        return
    if not rows:
        say("nothing was replayed yet")
        return
    columns = ["model", "transform", "batch", "recorded", "accuracy", "difference", "seconds"]
    columns += ["message"] if any(row["message"] for row in rows) else []
    print_table(rows, columns)
    if gaps:
        between = f" (95 % interval {span[0]:+.4f} to {span[1]:+.4f})" if span else ""
        say(f"mean difference {fmean(gaps):+.4f}{between}, mean absolute difference {fmean(map(abs, gaps)):.4f}")


def _row(result: Replay) -> dict[str, Any]:
    record, spec = result.record, result.spec
    return {
        "model": record.model,
        "dataset": record.dataset,
        "epochs": record.epoch,
        "transform": record.hyperparameters.get("transform"),
        "batch": spec.batch,
        "seed": spec.seed,
        "recorded": record.accuracy,
        "accuracy": result.accuracy,
        "difference": None if result.accuracy is None else result.accuracy - record.accuracy,
        "seconds": result.seconds,
        "parameters": result.parameters,
        "outcome": result.verdict.outcome.value,
        "message": result.verdict.message,
        "hyperparameters": dict(record.hyperparameters),
    }
