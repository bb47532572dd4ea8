"""Cost of knowing a space: a gate for every mixture of a pool, beside campaigns that train mixtures jointly.

    python eval/space_cost.py --images cifar-10-jpeg --write      # go on with whatever is missing, then print the page
    python eval/space_cost.py --images photos --families ShuffleNet ICNet BagNet DPN68 --epochs 1 --train-size 200
    python eval/space_cost.py --write                             # the recorded table alone

First part, on images: the families of the pool are trained alone with two seeds (``nngen experts train``), a gate is
trained for every mixture, and the best mixtures become candidates with frozen experts (``surrogate gates --train``).
Then a campaign with ``--sampler adaptive`` trains mixtures jointly for as many seconds as all of that took. The best of
each side is trained with fresh seeds. Everything is stored in the archive that ``--archive`` names, and the script goes
on from there.

Second part, on the MoE4 table (``eval/tables/moe4.json``), once it has every mixture with its seeds: families first,
then the mixtures of the best of them, against ``--sampler adaptive`` and an even order, each with equal recorded
seconds. What a selection finds is judged by the mean of the seeds that it has not seen. Exit code 1 while either part
is missing.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from random import Random
from statistics import fmean, stdev
from typing import Any

import numpy as np
from _page import RESULTS, Evaluation, note, table

from nngen.analysis.statistics import mean_interval
from nngen.archive import Archive, StoredTrial
from nngen.files import cache_dir, write_atomically
from nngen.seeds import derive
from nngen.surrogate.experts import load_experts
from nngen.surrogate.gates import gate_accuracies
from nngen.surrogate.scores import all_mixtures
from nngen.testing.fakes import FakeEngine, fake_campaign, fake_inputs
from nngen.types import EpochResult, Outcome, Trial, Verdict

POOL = (
    *("AirNext", "BagNet", "BayesianNet-3", "ComplexNet", "Diffuser", "DPN68", "ICNet"),
    *("MobileNetV2", "MobileNetV3", "RegNet", "ShuffleNet", "GoogLeNet", "EfficientNet", "MNASNet"),
)
"""Fourteen light families, of which 1,001 mixtures can be made."""

PUBLISHED = (round(0.048 * 23_751), 672)
"""Mixtures that the published campaign trained, 4.8 % of its space, and its hours."""

JPEG = Path(folder) if (folder := os.environ.get("NNGEN_CIFAR10_JPEG")) else None
SETTINGS = ("--shape", "3x32x32", "--batch", "32", "--lr", "0.003", "--augment", "flip")
TABLE = Path(__file__).parent / "tables" / "moe4.json"
STORE = RESULTS / "space_cost.json"
FIDELITY = (2000, 2)
TRAININGS = (10, 20, 40)
"""Budgets of the second part, in mean seconds of a mixture's training."""

ARMS = ("families first", "adaptive", "stratified")
EVALUATION = Evaluation(__file__, __doc__)


def nngen(archive: Path, *words: str) -> None:
    """Run a command on the archive; a training that fails does not end the evaluation."""
    note(" ".join(("nngen", *words)))
    done = subprocess.run([sys.executable, "-m", "nngen", *words, "--archive", str(archive)], check=False)
    if done.returncode not in (0, 3):
        EVALUATION.error(f"nngen {words[0]} {words[1]} ended with code {done.returncode}")


def measure(given: Any) -> dict[str, Any]:
    """Carry out the first part, or what is missing of it, and return its figures."""
    archive = given.archive or cache_dir() / "eval" / "space_cost.db"
    archive.parent.mkdir(parents=True, exist_ok=True)
    data = ("--dataset", f"folder:{given.images}", "--workers", str(given.workers), *SETTINGS)
    data += ("--train-size", str(given.train_size), "--families", ",".join(given.families))
    nngen(archive, "experts", "train", "experts", "--epochs", str(given.epochs), "--seeds", "2", *data)
    with Archive.open(archive, readonly=True) as store:
        alone = load_experts(store, "experts")
        trained = sum(trial.seconds or 0.0 for trial in store.trials("experts", curves=False))
    mixtures, began = all_mixtures(len(alone.families)), time.perf_counter()
    accuracies = gate_accuracies(alone, mixtures)
    gates = time.perf_counter() - began
    best = np.argsort(-accuracies, kind="stable")[: given.candidates]
    fresh = gate_accuracies(alone, mixtures[best], seed=1)
    frozen = ("surrogate", "gates", "experts", "--train", str(given.candidates), "--seeds", "2")
    nngen(archive, *frozen, "--workers", str(given.workers))
    with Archive.open(archive, readonly=True) as store:
        candidates = store.trials(f"experts-frozen-{given.epochs}", curves=False)
        second = sum(trial.seconds or 0.0 for trial in candidates)
    total = trained + gates + second
    hours = str(max(total / 3600 / given.workers, 1e-3))
    size = str(min(1000, len(mixtures)))
    joint = ("campaign", "run", "joint", "--sampler", "adaptive", "--size", size, "--epochs", str(given.epochs), *data)
    nngen(archive, *joint, "--max-hours", hours)
    with Archive.open(archive, readonly=True) as store:
        done = [trial for trial in store.trials("joint", curves=False) if trial.validation_accuracy is not None]
        best_joint = max(done, key=lambda trial: trial.validation_accuracy or 0.0)
        assert best_joint.candidate_id is not None
        source = store.candidate(best_joint.candidate_id).source
    path = archive.parent / f"{best_joint.candidate_id}.py"
    path.write_text(source, encoding="utf-8")
    judged = ("train", str(path), "--name", "judged", "--seed", "1001", "--epochs", str(given.epochs), *data[:-2])
    nngen(archive, *judged)
    with Archive.open(archive, readonly=True) as store:
        (again,) = store.trials("judged", curves=False)
    return {
        "data": "CIFAR-10 (JPEG)" if given.images == JPEG else given.images.name,
        "families": len(alone.families),
        "missing": dict(alone.missing),
        "images": len(alone.labels),
        "mixtures": len(mixtures),
        "seconds": {"families alone": trained, "gates": gates, "candidates": second, "all": total},
        "gate": float(accuracies[best[0]]),
        "fresh": float(fresh[0]),
        "frozen": _judged(candidates),
        "joint": len(done),
        "joint_seconds": sum(trial.seconds or 0.0 for trial in done),
        "chosen": best_joint.validation_accuracy,
        "judged": again.validation_accuracy,
    }


def _judged(trials: Sequence[StoredTrial]) -> tuple[float, float]:
    """Return the accuracy of the best candidate with the seed that chooses it, and the mean of its other seeds."""
    trained = [trial for trial in trials if trial.validation_accuracy is not None]
    best = max((trial for trial in trained if not trial.replicate), key=lambda trial: trial.validation_accuracy or 0.0)
    again = [
        trial.validation_accuracy or 0.0 for trial in trained if trial.position == best.position and trial.replicate
    ]
    return best.validation_accuracy or 0.0, fmean(again) if again else math.nan


# Second part: the recorded table


@dataclass(frozen=True, slots=True)
class Cell:
    """Recorded trainings of some experts, one for each seed."""

    accuracies: tuple[float, ...]
    curves: tuple[tuple[float, ...], ...]
    seconds: tuple[float, ...]


@dataclass(slots=True, kw_only=True)
class TableEngine(FakeEngine):
    """Engine that returns one of the recorded trainings, drawn by the seed of the trial.

    Attributes:
        cells: Recorded trainings by the names of their experts, sorted.
        drawn: Number of the seed that was drawn, by the same names.
    """

    cells: Mapping[tuple[str, ...], Cell] = field(default_factory=dict)
    drawn: dict[tuple[str, ...], int] = field(default_factory=dict)

    def train(self, job: Any, on_epoch: Any = None) -> Trial:
        names = tuple(sorted(job.candidate.plan.experts))
        cell = self.cells[names]
        number = self.drawn[names] = derive(job.spec.seed, "table") % len(cell.accuracies)
        curve = [EpochResult(epoch=n, validation_accuracy=value) for n, value in enumerate(cell.curves[number], 1)]
        return Trial(
            candidate_id=job.candidate.id,
            spec=job.spec,
            verdict=Verdict(outcome=Outcome.VALID),
            validation_accuracy=cell.accuracies[number],
            curve=tuple(curve),
            seconds=cell.seconds[number],
        )


def read_table() -> tuple[dict[tuple[str, ...], Cell], str]:
    """Read the table; with the reason why it cannot be used yet, empty where it can."""
    rows = json.loads(TABLE.read_text(encoding="utf-8"))["trials"]
    found: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        if (row["images"], row["epochs"]) == FIDELITY and not row.keys() & {"outcome", "plan"}:
            found.setdefault(tuple(sorted(row["experts"])), []).append(row)
    cells = {
        names: Cell(
            tuple(row["accuracy"][-1] for row in own),
            tuple(tuple(row["accuracy"]) for row in own),
            tuple(row["seconds"] for row in own),
        )
        for names, own in found.items()
    }
    families = sorted({name for names in cells for name in names if len(names) == 4})
    whole = [names for names in combinations(families, 4) if len(cells.get(names, Cell((), (), ())).accuracies) > 1]
    missing = math.comb(9, 4) - len(whole)
    return cells, f"{missing} of {math.comb(9, 4)} mixtures are not recorded with two seeds yet" if missing else ""


def search(cells: Mapping[tuple[str, ...], Cell], arm: str, seed: int, limit_s: float) -> list[tuple[float, float]]:
    """Spend recorded seconds on an arm: seconds so far, and accuracy on fresh seeds of what is best so far."""
    families = sorted({name for names in cells if len(names) == 4 for name in names})
    quartets = list(combinations(families, 4))
    random, spent = Random(derive(seed, "space cost", arm)), 0.0
    order: list[tuple[tuple[str, ...], int]] = []
    if arm == "families first":
        alone = {}
        for name in families:
            number = random.randrange(len(cells[name,].accuracies))
            alone[name] = cells[name,].accuracies[number]
            spent += cells[name,].seconds[number]
        ranked = sorted(quartets, key=lambda names: -fmean(alone[name] for name in names))
        order = [(names, random.randrange(len(cells[names].accuracies))) for names in ranked]
    else:
        engine = TableEngine(cells=cells)
        size = min(len(quartets), math.ceil(limit_s / min(min(cells[names].seconds) for names in quartets)))
        with Archive.in_memory() as archive:
            inputs = fake_inputs(families)
            fake_campaign(
                archive,
                sampler=arm,
                size=size,
                seed=seed,
                engine=engine,
                inputs=inputs,
                epochs=FIDELITY[1],
                reveal=False,
            ).run()
            trials = sorted(archive.trials("one", curves=False), key=lambda trial: trial.position)
        tried = [tuple(sorted(trial.experts)) for trial in trials]
        order = [(names, engine.drawn[names]) for names in tried]
    path, best = [], (-math.inf, math.nan)
    for names, number in order:
        cell = cells[names]
        spent += cell.seconds[number]
        if spent > limit_s:
            break
        others = [value for place, value in enumerate(cell.accuracies) if place != number]
        best = max(best, (cell.accuracies[number], fmean(others)))
        path.append((spent, best[1]))
    return path


def compare(cells: Mapping[tuple[str, ...], Cell], seeds: int) -> list[dict[str, Any]]:
    """Compare the arms at each budget over paired seeds."""
    mean_s = fmean(second for names, cell in cells.items() if len(names) == 4 for second in cell.seconds)
    limit = max(TRAININGS) * mean_s
    paths = {arm: [search(cells, arm, seed, limit) for seed in range(seeds)] for arm in ARMS}
    rows = []
    for count in TRAININGS:
        at = {arm: [_at(path, count * mean_s) for path in own] for arm, own in paths.items()}
        for arm, values in at.items():
            differences = [one - other for one, other in zip(values, at["adaptive"], strict=True)]
            span = mean_interval([value for value in differences if not math.isnan(value)])
            rows.append(
                {
                    "budget": count,
                    "arm": arm,
                    "mean": float(np.nanmean(values)),
                    "less adaptive": float(np.nanmean(differences)),
                    "interval": span,
                    "deviation": stdev(differences) if arm != "adaptive" else 0.0,
                }
            )
    return rows


def _at(path: Sequence[tuple[float, float]], limit_s: float) -> float:
    return next((value for spent, value in reversed(path) if spent <= limit_s), math.nan)


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out what is missing, and print the page."""
    images = {"type": Path, "default": JPEG, "help": "folder of the images"}
    given = EVALUATION.arguments(
        argv,
        images=images,
        archive=(Path, "archive of the trainings; one in the user's cache by default"),
        families=(list(POOL), "families of the pool"),
        epochs=5,
        train_size=(5000, "training images"),
        candidates=(5, "mixtures that become candidates"),
        workers=1,
        seeds=(100, "paired seeds on the recorded table"),
    )
    known = json.loads(STORE.read_text(encoding="utf-8")) if STORE.exists() else {}
    if given.images is not None:
        known["measured"] = measure(given)
        write_atomically(STORE, json.dumps(known, indent=1).encode())
    cells, reason = read_table()
    rows = [] if reason else compare(cells, given.seeds)
    given.images = given.archive = None  # no path of this machine on the page
    measured = known.get("measured")
    text = EVALUATION.page(
        "Cost of knowing a space",
        "",
        "## A gate for every mixture, beside joint trainings for as many seconds",
        first_part(measured) if measured else "Not measured yet: name the images with `--images`.",
        "## Equal seconds on the MoE4 table",
        second_part(rows, given.seeds) if rows else f"Not read: {reason}.",
    )
    return EVALUATION.finish(text, good=bool(measured and rows))


def first_part(found: Mapping[str, Any]) -> str:
    """Return the figures of the first part."""
    seconds, space = found["seconds"], found["mixtures"]
    rate, joint = 3600 * space / seconds["all"], 3600 * found["joint"] / found["joint_seconds"]
    lines = table(
        ("", "mixtures", "seconds", "mixtures in an hour"),
        [
            ("gates over families alone", f"{space:,}", f"{seconds['all']:.0f}", f"{rate:,.0f}"),
            ("joint, adaptive", f"{found['joint']:,}", f"{found['joint_seconds']:.0f}", f"{joint:,.1f}"),
            ("published campaign", f"{PUBLISHED[0]:,}", "672 h", f"{PUBLISHED[0] / PUBLISHED[1]:.1f}"),
        ],
        right=("mixtures", "seconds", "mixtures in an hour"),
    )
    parts = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items() if name != "all")
    judged = table(
        ("", "chosen by", "fresh"),
        [
            ("best gate, frozen experts", f"{found['gate']:.4f}", f"{found['fresh']:.4f}"),
            ("best file, its gate trained on training images", *(f"{value:.4f}" for value in found["frozen"])),
            ("best joint training", f"{found['chosen']:.4f}", f"{found['judged']:.4f}"),
        ],
        right=("chosen by", "fresh"),
    )
    about = f"{found['data']}: {found['families']} families, {found['images']:,} validation images; {parts}."
    return "\n\n".join(
        [about, lines, "Validation accuracy of the best; fresh is with seeds that did not choose it.", judged]
    )


def second_part(rows: Sequence[Mapping[str, Any]], seeds: int) -> str:
    """Return the figures of the second part, with the power of the comparison."""
    deviation = max(row["deviation"] for row in rows)
    power = 2.802 * deviation / math.sqrt(seeds)
    lines = [
        (
            row["budget"],
            row["arm"],
            f"{row['mean']:.4f}",
            "-" if row["arm"] == "adaptive" else f"{row['less adaptive']:+.4f}",
            "-"
            if row["interval"] is None or row["arm"] == "adaptive"
            else "{:+.4f} to {:+.4f}".format(*row["interval"]),
        )
        for row in rows
    ]
    columns = ("trainings", "arm", "fresh accuracy", "less adaptive", "95 %")
    about = (
        f"{seeds} paired seeds; differences of {power:.4f} are found with a power of 80 %. A budget is the mean seconds"
        " of so many trainings; families first pays for the families from it."
    )
    return f"{about}\n\n{table(columns, lines, right=columns[2:])}"


if __name__ == "__main__":
    raise SystemExit(main())
