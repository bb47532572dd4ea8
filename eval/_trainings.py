"""Trainings on CIFAR-10's JPEG files, kept one by one in a JSON file from which any machine goes on."""

from __future__ import annotations

import io
import json
import math
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from _page import Evaluation, note

from nngen import __version__
from nngen.assembly.assemble import Assembler
from nngen.assembly.identity import TEMPLATE_VERSION
from nngen.assembly.plan_toml import preset
from nngen.datasets.dataset import Dataset
from nngen.datasets.image_files.image_file import decode
from nngen.datasets.loading import store_dataset
from nngen.datasets.preprocessing import pooled_features
from nngen.datasets.source import Raw
from nngen.families.catalogue import load_families
from nngen.families.probe import profiles
from nngen.families.trust import families_level
from nngen.files import cache_dir, write_atomically
from nngen.lemur.source import open_lemur
from nngen.plan import Plan
from nngen.seeds import derive
from nngen.training import LocalEngine, TrainJob
from nngen.types import Candidate, Family, Interface, Shape, Trial, TrialSpec

SHAPE = Shape(3, 32, 32)
DRAWS = 2000
"""Samples of a bootstrap."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One training.

    Attributes:
        experts: Families of the mixture, or one family alone; none for a preset that brings its own experts.
        images: Number of training images.
        epochs: Number of epochs.
        seed: Number of the seed.
        preset: Name of a preset; empty for the default plan.
        plan: Plan with these experts in place of the default one.
    """

    experts: tuple[str, ...]
    images: int
    epochs: int
    seed: int
    preset: str = ""
    plan: Plan | None = None

    @property
    def title(self) -> str:
        """Names of the preset and of the families; of a plan all fields."""
        own = json.dumps(self.plan.to_dict(), sort_keys=True) if self.plan else ""
        return "+".join(filter(None, (self.preset, *self.experts, own)))

    @property
    def key(self) -> str:
        """Name of its outputs."""
        return f"{self.title} {self.images} {self.epochs} {self.seed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """CIFAR-10 as JPEG files, ``train/<class>/0000.jpg`` and ``test/<class>/0000.jpg``, cut into splits.

    Attributes:
        folder: Folder of the files.
        splits: For each of ``train``, ``validation`` and ``test``, the folder, the first file of each class and the
            number of files of each class.
    """

    folder: Path
    splits: Mapping[str, tuple[str, int, int]]

    name = "cifar-10-jpeg"
    default_shape = SHAPE

    def key(self) -> str:
        """Return a key of the splits."""
        return json.dumps(self.splits)

    def decode(self) -> Raw:
        """Decode the images of all splits."""
        classes = sorted(path.name for path in (self.folder / "train").iterdir())
        arrays = {}
        for split, (part, first, each) in self.splits.items():
            places = range(first, first + each)
            files = [self.folder / part / name / f"{place:04d}.jpg" for name in classes for place in places]
            arrays[split] = np.stack([decode(file, (SHAPE.height, SHAPE.width), grey=False) for file in files])
            arrays[f"{split} labels"] = np.repeat(np.arange(len(classes)), each).astype(np.int64)
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
    """The results so far, one line of JSON per trial, written after each of them.

    What families alone put out on the validation images is in an ``.npz`` file of the same name, with the labels and
    pooled features of these images.

    Args:
        path: The JSON file.
        settings: Settings that hold for every trial, for the head of the file.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path, self.settings = path, settings
        empty = {"settings": dict(settings), "trials": []}
        self.data: dict[str, Any] = json.loads(path.read_text()) if path.exists() else empty
        self.trials: dict[Cell, dict[str, Any]] = {_cell(row): row for row in self.data["trials"]}
        self.outputs: dict[str, npt.NDArray[Any]] = {}
        if (file := path.with_suffix(".npz")).exists():
            with np.load(file) as arrays:
                self.outputs = dict(arrays)

    def begin(self, fingerprint: str, evaluation: Evaluation) -> None:
        """Refuse images other than those that the results so far were made with."""
        if self.data.setdefault("data", fingerprint) != fingerprint:
            evaluation.error(f"{self.path.name} was made with other images: their fingerprint differs")
        self.data["settings"] = {**self.settings, "nngen": __version__}

    def add(self, cell: Cell, trial: Trial, **more: float) -> None:
        """Add the result of a training and write the file."""
        row: dict[str, Any] = {"plan": cell.plan.to_dict()} if cell.plan else {"experts": list(cell.experts)}
        row |= {"images": cell.images, "epochs": cell.epochs}
        row |= {"preset": cell.preset} if cell.preset else {}
        row |= {"seed": cell.seed, "accuracy": [round(point.validation_accuracy, 4) for point in trial.curve]}
        row |= {"seconds": round(trial.seconds, 1), "parameters": trial.parameters, "templates": TEMPLATE_VERSION}
        if trial.curve and trial.curve[-1].usage:
            row["usage"] = [round(share, 3) for share in trial.curve[-1].usage]
        if not trial.verdict.valid:
            row["outcome"] = f"{trial.verdict.outcome.value}: {trial.verdict.message}"
        self.trials[cell] = row | {name: round(value, 4) for name, value in more.items()}
        head = {name: value for name, value in self.data.items() if name != "trials"}
        lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in self.trials.values())
        text = json.dumps(head, indent=1).removesuffix("\n}") + f',\n "trials": [\n{lines}\n]}}\n'
        write_atomically(self.path, text.encode())

    def missing(self, wanted: Iterable[Cell], *, outputs: bool = False) -> list[Cell]:
        """Return the cells without a result, if asked families alone without outputs too."""

        def whole(cell: Cell) -> bool:
            if not outputs or len(cell.experts) != 1 or cell not in self.trials:
                return cell in self.trials
            return "outcome" in self.trials[cell] or cell.key in self.outputs

        return [cell for cell in dict.fromkeys(wanted) if not whole(cell)]

    def keep_outputs(self, cell: Cell, trial: Trial, data: Dataset) -> None:
        """Keep the logits of a family alone on the validation images, ``(N, C)`` float16, and write the file."""
        self.outputs[cell.key] = np.frombuffer(trial.validation_logits, "<f2").reshape(-1, data.classes)
        self.outputs["labels"] = data.validation_labels.astype(np.uint8)
        self.outputs["features"] = pooled_features(data.validation_images)
        file = io.BytesIO()
        np.savez_compressed(file, **self.outputs)
        write_atomically(self.path.with_suffix(".npz"), file.getvalue())

    def accuracies(self, size: int, fidelity: tuple[int, int]) -> dict[tuple[str, ...], list[float]]:
        """Return the last accuracies of the trials of so many experts at a fidelity, by experts, seeds in order."""
        found: dict[tuple[str, ...], list[float]] = defaultdict(list)
        for cell in sorted(self.trials, key=lambda cell: cell.seed):
            row = self.trials[cell]
            plain = len(cell.experts) == size and not (cell.preset or cell.plan) and "outcome" not in row
            if plain and (cell.images, cell.epochs) == fidelity:
                found[cell.experts].append(row["accuracy"][-1])
        return found

    def seconds(self, size: int, fidelity: tuple[int, int]) -> list[float]:
        """Return the seconds of the trials of so many experts at a fidelity."""
        chosen = (cell for cell in self.trials if len(cell.experts) == size)
        return [self.trials[cell]["seconds"] for cell in chosen if (cell.images, cell.epochs) == fidelity]


def _cell(row: Mapping[str, Any]) -> Cell:
    plan = Plan.from_dict(row["plan"]) if "plan" in row else None
    experts = plan.experts if plan else tuple(row["experts"])
    return Cell(experts, row["images"], row["epochs"], row["seed"], row.get("preset", ""), plan)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainer:
    """Trains cells one by one or several at a time, and stores each result.

    Attributes:
        evaluation: The script, for messages.
        store: Results so far.
        source: Images.
        label: Name that the seeds of trials are derived from, and of the folder of decoded images.
        settings: Fields of every ``TrialSpec``.
        workers: Trainings at a time.
        tested: Whether the accuracy on the test split is stored with each result.
    """

    evaluation: Evaluation
    store: Store
    source: Images
    label: str
    settings: Mapping[str, Any]
    workers: int = 1
    tested: bool = False

    def run(self, wanted: Sequence[Cell], limit_s: float = math.inf) -> None:
        """Train cells in order and store each; none begins after the time limit."""
        if not (self.source.folder / "train").is_dir():
            self.evaluation.error(
                f"{self.source.folder} holds no folder train: name the images with --images or NNGEN_CIFAR10_JPEG"
            )
        data = store_dataset(self.source, cache_dir() / "data" / f"{self.label}-table")
        self.store.begin(data.fingerprint, self.evaluation)
        pool = _pool(sorted({name for cell in wanted for name in cell.experts}))
        assembler, began = Assembler(), time.monotonic()
        queue, running, done = list(wanted), dict[Future[Trial], Cell](), 0
        with LocalEngine(slots=self.workers) as engine, ThreadPoolExecutor(self.workers) as threads:
            while running or (queue and time.monotonic() < began + limit_s):
                while queue and len(running) < self.workers and time.monotonic() < began + limit_s:
                    cell = queue.pop(0)
                    running[threads.submit(engine.train, self._job(cell, data, pool, assembler))] = cell
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    cell, trial = running.pop(future), future.result()
                    self.store.add(cell, trial, **(self._tested(trial, data) if self.tested else {}))
                    if trial.validation_logits:
                        self.store.keep_outputs(cell, trial, data)
                    done += 1
                    left = (time.monotonic() - began) / done * (len(wanted) - done) / 3600
                    result = f"{trial.validation_accuracy or math.nan:.4f} in {trial.seconds:.0f} s"
                    note(f"{done} of {len(wanted)}, about {left:.1f} h left: {cell.title:.90} {cell.seed}: {result}")

    def _job(
        self, cell: Cell, data: Dataset, pool: Mapping[str, tuple[Family, Interface]], assembler: Assembler
    ) -> TrainJob:
        experts = [pool[name] for name in cell.experts]
        # The default plan's seeds do not depend on the number of images: fidelities differ in nothing else.
        named = (cell.title,) if cell.plan else filter(None, (cell.preset, *cell.experts))
        seed = derive(cell.seed, self.label, *named)
        settings = {"dataset": data.name, "shape": SHAPE, "train_size": cell.images, **self.settings}
        return TrainJob(
            candidate=_candidate(cell, experts, assembler),
            spec=TrialSpec(epochs=cell.epochs, seed=seed, **settings),
            dataset=data,
            isolation=families_level(family for family, _ in experts).level,
            logits=len(cell.experts) == 1,
        )

    @staticmethod
    def _tested(trial: Trial, data: Dataset) -> dict[str, float]:
        predicted = np.frombuffer(trial.test_predictions, dtype="<u2")
        return {"test": float((predicted == data.test_labels).mean())} if predicted.size else {}


def _pool(names: Sequence[str]) -> dict[str, tuple[Family, Interface]]:
    families = load_families(open_lemur())
    measured = profiles([families[name] for name in names], SHAPE)
    return {name: (families[name], interface) for name in names if (interface := measured[name].interface)}


def _candidate(cell: Cell, experts: Sequence[tuple[Family, Interface]], assembler: Assembler) -> Candidate:
    if cell.plan:
        return assembler.assemble(cell.plan, experts)
    if cell.preset:
        return assembler.assemble(preset(cell.preset), experts)
    alone = len(cell.experts) == 1
    plan = Plan(experts=()).alone(cell.experts[0]) if alone else Plan(experts=cell.experts)
    return assembler.assemble(plan, experts)


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
    drawn = sorted(_components(values[random.integers(0, len(values), len(values))])[2] for _ in range(DRAWS))
    low, high = drawn[int(0.025 * DRAWS)], drawn[int(0.975 * DRAWS)]
    return Separation(len(rows), float(values.mean()), between, within, icc, low, high)


def _components(values: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[float, float, float]:
    """Return the deviations between and within rows, ``(quartets, seeds)``, and ICC(1), by analysis of variance."""
    seeds = values.shape[1]
    noise = float(values.var(axis=1, ddof=1).mean())
    true = max(float(values.mean(axis=1).var(ddof=1)) - noise / seeds, 0.0)
    return math.sqrt(true), math.sqrt(noise), true / (true + noise) if true + noise else 0.0
