"""The MoE4 table: all 126 quartets of nine light families on CIFAR-10, three seeds each, and the families alone.

    python eval/moe4_table.py --images cifar-10-jpeg            # go on with whatever is missing, then print the page
    python eval/moe4_table.py --stage pilot --minutes 60        # no longer than an hour, the pilot alone
    python eval/moe4_table.py --stage none --write              # the page alone, from the results so far

Images are the 60,000 of CIFAR-10 as JPEG files, ``train/<class>/0000.jpg``; the folder is named with ``--images`` or by
the environment variable ``NNGEN_CIFAR10_JPEG``. Of each class of the training split the first 800 images are trained on
(``train_size`` of them), the next 300 are validation; the test split is never read, since the table is for research on
selection. Every trial is the default plan, or ``Plan.alone`` of one family, at 32 px with batch 32, rate 0.003 and
training images mirrored at random.

Each finished trial goes into ``eval/tables/moe4.json`` at once, and the script goes on from there on any machine.
Stages: ``light`` trains candidates for the nine families alone, ``pilot`` twelve quartets with three seeds at each
fidelity of ``FIDELITIES``, ``table`` all quartets at ``CHOSEN``. Exit code 1 while the table is not complete.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from _page import Evaluation, note, table

from nngen import __version__
from nngen.assembly.assemble import Assembler
from nngen.assembly.identity import TEMPLATE_VERSION
from nngen.datasets.dataset import Dataset, store_dataset
from nngen.datasets.image_file import decode
from nngen.datasets.source import Raw
from nngen.families.catalogue import load_families
from nngen.families.probe import profiles
from nngen.families.trust import families_level
from nngen.files import cache_dir, write_atomically
from nngen.lemur.source import open_lemur
from nngen.plan import Plan
from nngen.seeds import derive
from nngen.training import LocalEngine, TrainJob
from nngen.types import Family, Interface, Shape, Trial, TrialSpec

STORE = Path(__file__).parent / "tables" / "moe4.json"
SHAPE = Shape(3, 32, 32)
SETTINGS: Mapping[str, Any] = {"batch": 32, "lr": 3e-3, "momentum": 0.9, "augment": "flip"}
FAMILIES = (
    *("AirNext", "BagNet", "BayesianNet-3", "ComplexNet", "Diffuser", "ICNet"),
    *("MobileNetV3", "RegNet", "ShuffleNet"),
)
"""The nine lightest families by measured cost of training that learn, so without the SqueezeNets."""

CANDIDATES = (*FAMILIES, "MobileNetV2")
LEARNS = 0.2
"""Accuracy from which on a family counts as one that learns: twice that of chance."""

FIDELITIES = ((2000, 2), (4000, 2), (2000, 4), (1000, 4))
"""Training images and epochs that the pilot compares, the cheapest first."""

CHOSEN = (2000, 4)
SEEDS = 3
PILOT = tuple(
    tuple(FAMILIES[int(place)] for place in quartet)
    for quartet in ["1236", "0458", "1247", "0367", "1568", "0278", "3457", "0256", "1348", "4678", "0135", "2358"]
)
"""Quartets of the pilot, drawn evenly and fixed here: each family is in five or six, and each has an effect."""

_EACH = {"train": 800, "validation": 300, "test": 10}
"""Images of each class; the test images, which the engine needs, are a stand-in from the training split."""

_DRAWS = 2000
EVALUATION = Evaluation(__file__, __doc__)


@dataclass(frozen=True, slots=True)
class Cell:
    """One training of the table."""

    experts: tuple[str, ...]
    images: int
    epochs: int
    seed: int


class Images:
    """CIFAR-10's training split as JPEG files, cut into the three splits of the table."""

    name, default_shape = "cifar-10-jpeg", SHAPE

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "train"
        if not self.folder.is_dir():
            EVALUATION.error(f"{folder} holds no folder train: name the images with --images or NNGEN_CIFAR10_JPEG")

    def key(self) -> str:
        return json.dumps(_EACH)

    def decode(self) -> Raw:
        classes = sorted(path.name for path in self.folder.iterdir())
        arrays, first = {}, 0
        for split, each in _EACH.items():
            places = range(first, first + each)
            files = [self.folder / name / f"{place:04d}.jpg" for name in classes for place in places]
            arrays[split] = np.stack([decode(file, (SHAPE.height, SHAPE.width), grey=False) for file in files])
            arrays[f"{split} labels"] = np.repeat(np.arange(len(classes)), each).astype(np.int64)
            first += each
        return Raw(
            classes=len(classes),
            images=arrays["train"],
            labels=arrays["train labels"],
            validation_images=arrays["validation"],
            validation_labels=arrays["validation labels"],
            test_images=arrays["test"],
            test_labels=arrays["test labels"],
            class_names=tuple(classes),
        )


class Store:
    """The results so far, one line of JSON per trial, written after each of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"trials": []}
        self.trials: dict[Cell, dict[str, Any]] = {_cell(row): row for row in self.data["trials"]}

    def begin(self, fingerprint: str) -> None:
        """Refuse images other than those that the results so far were made with."""
        if self.data.setdefault("data", fingerprint) != fingerprint:
            EVALUATION.error(f"{self.path.name} was made with other images: their fingerprint differs")
        self.data["settings"] = {**SETTINGS, "shape": str(SHAPE), "splits": _EACH, "nngen": __version__}

    def add(self, cell: Cell, trial: Trial) -> None:
        """Add the result of a training and write the file."""
        row: dict[str, Any] = {"experts": list(cell.experts), "images": cell.images, "epochs": cell.epochs}
        row |= {"seed": cell.seed, "accuracy": [round(point.validation_accuracy, 4) for point in trial.curve]}
        row |= {"seconds": round(trial.seconds, 1), "parameters": trial.parameters, "templates": TEMPLATE_VERSION}
        if trial.curve and trial.curve[-1].usage:
            row["usage"] = [round(share, 3) for share in trial.curve[-1].usage]
        if not trial.verdict.valid:
            row["outcome"] = f"{trial.verdict.outcome.value}: {trial.verdict.message}"
        self.trials[cell] = row
        head = {name: value for name, value in self.data.items() if name != "trials"}
        lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in self.trials.values())
        text = json.dumps(head, indent=1).removesuffix("\n}") + f',\n "trials": [\n{lines}\n]}}\n'
        write_atomically(self.path, text.encode())

    def accuracies(self, size: int, fidelity: tuple[int, int]) -> dict[tuple[str, ...], list[float]]:
        """Return the last accuracies of the trials of so many experts at a fidelity, by experts, seeds in order."""
        found: dict[tuple[str, ...], list[float]] = defaultdict(list)
        for cell in sorted(self.trials, key=lambda cell: cell.seed):
            row = self.trials[cell]
            if len(cell.experts) == size and (cell.images, cell.epochs) == fidelity and "outcome" not in row:
                found[cell.experts].append(row["accuracy"][-1])
        return found

    def seconds(self, size: int, fidelity: tuple[int, int]) -> list[float]:
        """Return the seconds of the trials of so many experts at a fidelity."""
        chosen = (cell for cell in self.trials if len(cell.experts) == size)
        return [self.trials[cell]["seconds"] for cell in chosen if (cell.images, cell.epochs) == fidelity]


def _cell(row: Mapping[str, Any]) -> Cell:
    return Cell(tuple(row["experts"]), row["images"], row["epochs"], row["seed"])


def cells(stage: str) -> Iterator[Cell]:
    """Yield the trainings of a stage in their order."""
    if stage == "light":
        yield from (Cell((name,), *CHOSEN, 0) for name in CANDIDATES)
    if stage == "pilot":
        yield from (Cell(one, *fidelity, seed) for fidelity in FIDELITIES for seed in range(SEEDS) for one in PILOT)
    if stage == "table":
        everything = [*((name,) for name in FAMILIES), *combinations(sorted(FAMILIES), 4)]
        yield from (Cell(experts, *CHOSEN, seed) for seed in range(SEEDS) for experts in everything)


STAGES = ("light", "pilot", "table")


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is missing within the time given, and print the page."""
    images = {"type": Path, "default": os.environ.get("NNGEN_CIFAR10_JPEG"), "help": "folder of the images"}
    stages = {"nargs": "+", "default": list(STAGES), "choices": [*STAGES, "none"]}
    asked = EVALUATION.arguments(argv, images=images, stage=stages, workers=1, minutes=math.inf)
    store = Store(STORE)
    wanted = [cell for stage in asked.stage for cell in cells(stage) if cell not in store.trials]
    if wanted:
        if asked.images is None:
            EVALUATION.error("name the folder of the images with --images or NNGEN_CIFAR10_JPEG")
        run(store, list(dict.fromkeys(wanted)), Path(asked.images), asked.workers, 60 * asked.minutes)
    asked.images = None  # no path of this machine on the page
    return EVALUATION.finish(page(store), good=all(cell in store.trials for cell in cells("table")))


def run(store: Store, wanted: Sequence[Cell], folder: Path, workers: int, limit_s: float) -> None:
    """Train cells in order, several at a time, and store each; none begins after the time limit."""
    source = Images(folder)
    data = store_dataset(source, cache_dir() / "data" / "moe4-table")
    store.begin(data.fingerprint)
    families = load_families(open_lemur())
    names = sorted({name for cell in wanted for name in cell.experts})
    measured = profiles([families[name] for name in names], SHAPE)
    pool = {name: (families[name], interface) for name in names if (interface := measured[name].interface)}
    assembler, end, began = Assembler(), time.monotonic() + limit_s, time.monotonic()
    queue, running, done = list(wanted), dict[Future[Trial], Cell](), 0
    with LocalEngine(slots=workers) as engine, ThreadPoolExecutor(workers) as threads:
        while running or (queue and time.monotonic() < end):
            while queue and len(running) < workers and time.monotonic() < end:
                cell = queue.pop(0)
                job = job_of(cell, data, pool, assembler)
                running[threads.submit(engine.train, job)] = cell
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                cell = running.pop(future)
                trial = future.result()
                store.add(cell, trial)
                done += 1
                left = (time.monotonic() - began) / done * (len(wanted) - done) / 3600
                result = f"{trial.validation_accuracy or math.nan:.4f} in {trial.seconds:.0f} s"
                note(
                    f"{done} of {len(wanted)}, about {left:.1f} h left: {'+'.join(cell.experts)} {cell.seed}: {result}"
                )


def job_of(cell: Cell, data: Dataset, pool: Mapping[str, tuple[Family, Interface]], assembler: Assembler) -> TrainJob:
    """Return the training of a cell."""
    alone = len(cell.experts) == 1
    plan = Plan(experts=()).alone(cell.experts[0]) if alone else Plan(experts=cell.experts)
    experts = [pool[name] for name in cell.experts]
    seed = derive(cell.seed, "moe4", *cell.experts)
    spec = TrialSpec(dataset=data.name, shape=SHAPE, train_size=cell.images, epochs=cell.epochs, seed=seed, **SETTINGS)
    level = families_level(family for family, _ in experts).level
    return TrainJob(candidate=assembler.assemble(plan, experts), spec=spec, dataset=data, isolation=level)


# The statistics of the page


@dataclass(frozen=True, slots=True)
class Separation:
    """How well accuracies tell quartets apart.

    Attributes:
        between: Standard deviation between quartets, without the noise of seeds.
        within: Standard deviation between seeds of a quartet.
        icc: Intraclass correlation of one seed, with its 95 % interval (bootstrap over quartets).
    """

    quartets: int
    mean: float
    between: float
    within: float
    icc: float
    low: float
    high: float

    def reliability(self, seeds: int) -> float:
        """Return the reliability of the mean of so many seeds (Spearman and Brown)."""
        return seeds * self.icc / (1 + (seeds - 1) * self.icc)

    def ceiling(self, seeds: int) -> float:
        """Return the highest Kendall's tau of a noiseless score with the mean of so many seeds, under normality."""
        return 2 / math.pi * math.asin(math.sqrt(max(self.reliability(seeds), 0.0)))


def separation(accuracies: Iterable[Sequence[float]]) -> Separation | None:
    """Compute the intraclass correlation of quartets with an equal number of seeds, two at least; else None."""
    rows = [list(row) for row in accuracies if len(row) > 1]
    most = min(map(len, rows), default=0)
    if len(rows) < 3:
        return None
    values = np.array([row[:most] for row in rows])
    between, within, icc = _components(values)
    random = np.random.default_rng(0)
    drawn = sorted(_components(values[random.integers(0, len(values), len(values))])[2] for _ in range(_DRAWS))
    low, high = drawn[int(0.025 * _DRAWS)], drawn[int(0.975 * _DRAWS)]
    return Separation(len(rows), float(values.mean()), between, within, icc, low, high)


def _components(values: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[float, float, float]:
    """Return the deviations between and within rows, ``(quartets, seeds)``, and ICC(1), by analysis of variance."""
    seeds = values.shape[1]
    noise = float(values.var(axis=1, ddof=1).mean())
    true = max(float(values.mean(axis=1).var(ddof=1)) - noise / seeds, 0.0)
    return math.sqrt(true), math.sqrt(noise), true / (true + noise) if true + noise else 0.0


def page(store: Store) -> str:
    """Return the page: the nine families, the pilot, and the table as far as it goes."""
    wanted = list(cells("table"))
    done = sum(cell in store.trials for cell in wanted)
    about = (
        f"CIFAR-10 (JPEG), {SHAPE}, batch {SETTINGS['batch']}, rate {SETTINGS['lr']:g}, default plan, 3,000 validation"
        f" images, no test images. {done} of {len(wanted)} trials of the table are done."
    )
    return EVALUATION.page(
        "The MoE4 table",
        about,
        "## Families alone",
        f"{CHOSEN[0]:,} images, {CHOSEN[1]} epochs, without a gate. Families below {LEARNS} do not learn at this rate"
        " and are not in the table.",
        _families(store),
        "## Which fidelity separates quartets best for its cost",
        f"{len(PILOT)} quartets, {SEEDS} seeds. ICC: the share of the variance of one seed's accuracy that is between"
        " quartets (95 % by bootstrap over quartets); cost: thousands of images through a net, three times each in"
        " training; signal: ICC / (1 - ICC) per 10,000 of them, in which the reliability of a mean of seeds grows."
        " Seconds are wall time of one thread on a machine with other work.",
        _pilot(store),
        "## The table",
        _table(store),
    )


def _families(store: Store) -> str:
    seconds = {cell: row["seconds"] for cell, row in store.trials.items() if len(cell.experts) == 1}
    rows = []
    for (name,), accuracies in sorted(store.accuracies(1, CHOSEN).items(), key=lambda item: -fmean(item[1])):
        spread = f"{stdev(accuracies):.4f}" if len(accuracies) > 1 else "-"
        cost = fmean(value for cell, value in seconds.items() if cell.experts == (name,))
        inside = "yes" if name in FAMILIES else "no"
        rows.append((name, f"{fmean(accuracies):.4f}", spread, len(accuracies), f"{cost:.0f}", inside))
    return table(("family", "accuracy", "s.d.", "seeds", "seconds", "in the table"), rows)


def _pilot(store: Store) -> str:
    rows = []
    for fidelity in FIDELITIES:
        chosen = {cell.experts for cell in cells("pilot")}
        known = {experts: values for experts, values in store.accuracies(4, fidelity).items() if experts in chosen}
        found, seconds = separation(known.values()), store.seconds(4, fidelity)
        cost = fidelity[1] * (3 * fidelity[0] + 10 * _EACH["validation"]) / 1000
        head = (f"{fidelity[0]:,} x {fidelity[1]}", f"{cost:.0f}", sum(map(len, known.values())))
        if found is None:
            rows.append((*head, *["-"] * 6))
            continue
        signal = math.inf if found.icc >= 1 else found.icc / (1 - found.icc) / cost * 10
        rows.append(
            (
                *head,
                f"{found.mean:.4f}",
                f"{found.between:.4f}",
                f"{found.within:.4f}",
                f"{found.icc:.2f} ({found.low:.2f} to {found.high:.2f})",
                f"{fmean(seconds):.0f}",
                f"{signal:.2f}",
            )
        )
    columns = ("images x epochs", "cost", "trials", "mean", "between", "between seeds", "ICC", "seconds", "signal")
    return table(columns, rows)


def _table(store: Store) -> str:
    quartets, alone = store.accuracies(4, CHOSEN), store.accuracies(1, CHOSEN)
    found = separation(quartets.values())
    if found is None:
        return "Too few quartets have two seeds yet."
    best = {experts: max((fmean(alone[name,]), name) for name in experts if (name,) in alone) for experts in quartets}
    gains = [fmean(values) - best[experts][0] for experts, values in quartets.items()]
    half = 1.96 * stdev(gains) / math.sqrt(len(gains))
    beaten = sum(gain < 0 for gain in gains)
    top = max(quartets, key=lambda experts: fmean(quartets[experts]))
    return "\n".join(
        [
            f"- {found.quartets} quartets with two seeds or more; mean accuracy {found.mean:.4f}, deviation between"
            f" quartets {found.between:.4f}, between seeds {found.within:.4f}.",
            f"- Intraclass correlation {found.icc:.2f} ({found.low:.2f} to {found.high:.2f}); reliability of the mean"
            f" of {SEEDS} seeds {found.reliability(SEEDS):.2f}; ceiling of Kendall's tau {found.ceiling(SEEDS):.2f}.",
            f"- Best quartet {', '.join(top)}: {fmean(quartets[top]):.4f}.",
            f"- Mixture less its best family alone: {fmean(gains):+.4f} (give or take {half:.4f}); the best family"
            f" alone beats its mixture in {beaten} of {len(gains)}.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
