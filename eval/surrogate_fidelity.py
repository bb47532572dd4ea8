"""Agreement of every score of a mixture with its joint training, on the tables of joint trainings that are recorded.

    python eval/surrogate_fidelity.py --write       # as far as the tables are filled; seconds to minutes

Tables are ``eval/tables/moe4.json`` (nine families, all 126 quartets, three seeds; ``moe4_table.py`` trains it) and
``eval/tables/cifar.json`` (14 families, a balanced design of 49; ``cifar.py``). Scores are computed from the outputs of
the families alone, which the same scripts keep beside their table; without these, from their accuracies and parameters.
Predictions of the learned ranker are by fits without the mixture (``learned``) and by fits without every mixture of
one of its families (``learned_unseen``), which the claims are about. Trivial scores are the number of parameters, the
mean and the best accuracy of the families alone, and a random order.

Claims, for each table: the learned ranker reaches nine tenths of the ceiling that the noise of seeds leaves, is better
than every trivial score, and the best mixture of its top twentieth is within half a standard deviation of seeds of the
best of all. Exit code 1 while a table is not complete or a claim does not hold.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from statistics import fmean
from typing import Any

import cifar
import moe4_table
import numpy as np
import numpy.typing as npt
from _page import Evaluation, note, table
from _trainings import SHAPE, Cell, Store, separation

from nngen.surrogate.experts import Experts, JointAccuracies
from nngen.surrogate.gates import gate_accuracies
from nngen.surrogate.plan_accuracy import MIN_GROUPS
from nngen.surrogate.ranking import UNSEEN, Agreement, agreement, rank_mixtures
from nngen.surrogate.scores import all_mixtures, score_mixtures
from nngen.types import TrialSpec

TABLES = Path(__file__).parent / "tables"
TRIVIAL = ("parameters", "mean_single", "best_single", "random")
OF_CEILING, REGRET = 0.9, 0.5
DRAWS = 200
EVALUATION = Evaluation(__file__, __doc__)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of joint trainings.

    Attributes:
        name: Name of its files in ``eval/tables``.
        title: Heading of its part of the page.
        fidelity: Training images and epochs.
        quartets: Quartets that the complete table has.
    """

    name: str
    title: str
    fidelity: tuple[int, int]
    quartets: int


KNOWN = (
    Table(name="moe4", title="The MoE4 table: nine families, every quartet", fidelity=moe4_table.CHOSEN, quartets=126),
    Table(
        name="cifar",
        title="Fourteen families, a balanced design",
        fidelity=cifar.FIDELITY,
        quartets=cifar.QUARTETS,
    ),
)


def read(store: Store, fidelity: tuple[int, int]) -> tuple[Experts, JointAccuracies] | None:
    """Read families alone and joint trainings of a fidelity; without outputs there are no logits. None: too few yet."""
    own: dict[str, list[Cell]] = defaultdict(list)
    for cell in sorted(store.trials, key=attrgetter("seed")):
        plain = len(cell.experts) == 1 and not cell.preset and "outcome" not in store.trials[cell]
        if plain and (cell.images, cell.epochs) == fidelity:
            own[cell.experts[0]].append(cell)
    quartets, alone = store.accuracies(4, fidelity), store.accuracies(1, fidelity)
    families = sorted({name for experts in quartets for name in experts if name in own})
    place = {name: number for number, name in enumerate(families)}
    known = {
        tuple(sorted(place[name] for name in experts)): values
        for experts, values in quartets.items()
        if all(name in place for name in experts)
    }
    if len(known) < MIN_GROUPS:
        return None
    kept = {name: [store.outputs[cell.key] for cell in own[name] if cell.key in store.outputs] for name in families}
    seeds = min(map(len, kept.values()))
    rows = [store.trials[own[name][0]] for name in families]
    logits = [[kept[name][seed] for name in families] for seed in range(seeds)]
    spec = TrialSpec(dataset="cifar-10-jpeg", shape=SHAPE, train_size=fidelity[0], epochs=fidelity[1])
    experts = Experts(
        campaign=store.path.stem,
        fidelity=spec.fidelity(),
        families=tuple(families),
        logits=np.array(logits, dtype=np.float16) if seeds else np.empty((0, len(families), 0, 0), np.float16),
        labels=np.asarray(store.outputs.get("labels", ()), dtype=np.int64),
        features=np.asarray(store.outputs["features"], dtype=np.float64) if "features" in store.outputs else None,
        accuracies=np.array([fmean(alone[name,]) for name in families]),
        parameters=np.array([row["parameters"] for row in rows], dtype=np.float64),
        speed=np.array([row["accuracy"][0] / row["accuracy"][-1] for row in rows]),
        missing={},
    )
    return experts, dict(sorted(known.items()))


def agreements(experts: Experts, joint: JointAccuracies) -> tuple[list[Agreement], float | None]:
    """Compare every score with the joint trainings, best first; with the ceiling that the noise of seeds leaves."""
    mixtures = all_mixtures(len(experts.families))
    trained = np.array([members in joint for members in map(tuple, mixtures.tolist())])
    truth = np.array([fmean(seeds) for seeds in joint.values()])
    if len(experts.logits):
        scores = score_mixtures(experts, mixtures)
    else:
        alone = np.sort(experts.accuracies[mixtures], axis=1)
        scores = {"mean_single": alone.mean(1), "best_single": alone[:, -1], "second_single": alone[:, -2]}
        scores |= {"speed": experts.speed[mixtures].mean(1), "parameters": experts.parameters[mixtures].sum(1) / 1e6}
    ranking = rank_mixtures(experts, joint, scores=scores)
    rows = [*ranking.agreements, _at_random(truth)]
    if len(experts.logits) and experts.features is not None:
        gates = [gate_accuracies(experts, mixtures[trained], seed=seed) for seed in range(len(experts.logits))]
        rows.append(agreement("gate", np.mean(gates, axis=0), truth))
    return sorted(rows, key=lambda row: 2.0 if row.tau is None else -row.tau), ranking.ceiling


def _at_random(truth: Floats) -> Agreement:
    """Return the agreement of a random order, its regret the mean of many."""
    random = np.random.default_rng(0)
    drawn = [agreement("random", random.random(len(truth)), truth) for _ in range(DRAWS)]
    regret = fmean(row.regret or 0.0 for row in drawn)
    return Agreement(score="random", mixtures=len(truth), tau=0.0, low=None, high=None, regret=regret)


def claims(rows: Sequence[Agreement], ceiling: float | None, noise: float) -> list[tuple[str, bool]]:
    """Return the claims on the learned ranker with whether they hold; without a ceiling none can."""
    by = {row.score: row for row in rows}
    few = Agreement(score=UNSEEN, mixtures=0, tau=None, low=None, high=None, regret=None)
    learned = by.get(UNSEEN, few)
    tau, trivial = learned.tau or 0.0, max((by[name] for name in TRIVIAL), key=lambda row: row.tau or 0.0)
    share = math.nan if ceiling is None else tau / ceiling
    off = math.nan if learned.regret is None or not noise else learned.regret / noise
    return [
        (
            f"The learned ranker, families held out, has {share:.2f} of the ceiling ({OF_CEILING} wanted)",
            share >= OF_CEILING,
        ),
        (f"it has a tau of {tau:.2f}, {trivial.score} one of {trivial.tau:.2f}", tau > (trivial.tau or 0.0)),
        (f"its regret is {off:.2f} standard deviations of seeds (at most {REGRET})", off <= REGRET),
    ]


def part(which: Table, store: Store) -> tuple[str, bool]:
    """Return the part of the page on a table, and whether the table is complete and every claim holds."""
    trained = store.accuracies(4, which.fidelity)
    head = f"## {which.title}\n\n{len(trained)} of {which.quartets} quartets are recorded"
    found = read(store, which.fidelity)
    if found is None:
        return f"{head}; at least {MIN_GROUPS} with all their families alone are needed.", False
    experts, joint = found
    rows, ceiling = agreements(experts, joint)
    noise = separation(joint.values())
    within = noise.within if noise else 0.0
    tried = claims(rows, ceiling, within)
    whole = len(trained) >= which.quartets and len(experts.logits) > 0
    nearest = next(row for row in rows if row.tau is not None)
    half = 1.96 * math.sqrt(0.437 / (len(joint) - 4))
    notes = [
        f"{head}, {len(joint)} with all of {len(experts.families)} families alone; {len(experts.logits)} seeds of the"
        " families have outputs. A tau of zero has an interval of"
        f" {-math.tanh(half):.2f} to {math.tanh(half):.2f}: smaller ones are not found.",
        _noise_words(ceiling, noise),
        table(
            ("score", "tau", "95 %", "of the ceiling", "regret in s.d. of seeds"),
            [_cells(row, ceiling, within) for row in rows],
            right=("tau", "of the ceiling", "regret in s.d. of seeds"),
        ),
        "\n".join(f"- {text}: {'holds' if good else 'does not hold'}." for text, good in tried),
        f"The nearest score is {nearest.score}.",
    ]
    return "\n\n".join(notes), whole and all(good for _, good in tried)


def _noise_words(ceiling: float | None, noise: Any) -> str:
    if ceiling is None or noise is None:
        return "Too few quartets have two seeds: the ceiling is not known."
    return (
        f"Ceiling of tau by the order of two seeds {ceiling:.2f}; deviation between quartets {noise.between:.4f},"
        f" between seeds {noise.within:.4f}, intraclass correlation {noise.icc:.2f} ({noise.low:.2f} to"
        f" {noise.high:.2f})."
    )


def _cells(row: Agreement, ceiling: float | None, noise: float) -> Sequence[str]:
    span = "-" if row.low is None or row.high is None else f"{row.low:.2f} to {row.high:.2f}"
    if row.tau is None:
        return (row.score, "-", "-", "-", "-")
    share = "-" if ceiling is None else f"{row.tau / ceiling:.2f}"
    regret = "-" if row.regret is None or not noise else f"{row.regret / noise:.2f}"
    return (row.score, f"{row.tau:.2f}", span, share, regret)


def main(argv: Sequence[str] | None = None) -> int:
    """Compare the scores on each table and print the page."""
    EVALUATION.arguments(argv)
    parts, done = [], True
    for which in KNOWN:
        note(which.name)
        text, good = part(which, Store(TABLES / f"{which.name}.json", {}))
        parts.append(text)
        done = done and good
    about = (
        "Kendall's tau of each score with the mean accuracy over the seeds, with Fieller's interval; regret: the best"
        " accuracy of all less the best among the top twentieth by the score."
    )
    return EVALUATION.finish(EVALUATION.page("Scores of mixtures against joint trainings", about, *parts), good=done)


if __name__ == "__main__":
    sys.exit(main())
