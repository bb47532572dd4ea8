"""The MoE4 table: all 126 quartets of nine light families on CIFAR-10, three seeds each, families alone, random plans.

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
fidelity of ``FIDELITIES``, ``table`` all quartets at ``CHOSEN``, ``plans`` 300 random plans of four of the families, as
proposals may have them, and a quarter of these with a second seed. Exit code 1 while the table is not complete.
"""

from __future__ import annotations

import math
import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from random import Random
from statistics import fmean, stdev
from typing import Any

from _page import Evaluation, table
from _trainings import SHAPE, Cell, Images, Store, Trainer, separation

from nngen.llm.proposals.plan_space import PlanSpace
from nngen.plan import Plan
from nngen.seeds import derive
from nngen.surrogate.plan_text import plan_text

STORE = Path(__file__).parent / "tables" / "moe4.json"
SETTINGS: Mapping[str, Any] = {"batch": 32, "lr": 3e-3, "momentum": 0.9, "augment": "flip"}
FAMILIES = (
    *("AirNext", "BagNet", "BayesianNet-3", "ComplexNet", "Diffuser", "ICNet"),
    *("MobileNetV3", "RegNet", "ShuffleNet"),
)
"""The nine lightest families by measured cost of training that learn, so without the SqueezeNets."""

CANDIDATES = (*FAMILIES, "MobileNetV2")
LIGHT = (2000, 4)
"""Training images and epochs at which the candidates are trained alone."""

LEARNS = 0.2
"""Accuracy from which on a family counts as one that learns: twice that of chance."""

FIDELITIES = ((1000, 2), (2000, 2))
"""Training images and epochs that the pilot compares, the cheapest first."""

CHOSEN = (2000, 2)
SEEDS = 3
PLANS, AGAIN = 300, 75
PILOT = tuple(
    tuple(FAMILIES[int(place)] for place in quartet)
    for quartet in ["1236", "0458", "1247", "0367", "1568", "0278", "3457", "0256", "1348", "4678", "0135", "2358"]
)
"""Quartets of the pilot, drawn evenly and fixed here: each family is in five or six, and each has an effect."""

SPLITS = {"train": ("train", 0, 800), "validation": ("train", 800, 300), "test": ("train", 1100, 10)}
"""Images of each class; the test images, which the engine needs, are a stand-in from the training split."""

EACH = {split: each for split, (_, _, each) in SPLITS.items()}
EVALUATION = Evaluation(__file__, __doc__)


def plans() -> list[Plan]:
    """Draw the random plans; another grammar of proposals would draw others."""
    rng, space = Random(derive(0, "moe4 plans")), PlanSpace(families=tuple(sorted(FAMILIES)))
    return [space.draw(rng) for _ in range(PLANS)]


def cells(stage: str) -> Iterator[Cell]:
    """Yield the trainings of a stage in their order."""
    if stage == "light":
        yield from (Cell((name,), *LIGHT, 0) for name in CANDIDATES)
    if stage == "pilot":
        yield from (Cell(one, *fidelity, seed) for fidelity in FIDELITIES for seed in range(SEEDS) for one in PILOT)
    if stage == "table":
        everything = [*((name,) for name in FAMILIES), *combinations(sorted(FAMILIES), 4)]
        yield from (Cell(experts, *CHOSEN, seed) for seed in range(SEEDS) for experts in everything)
    if stage == "plans":
        drawn = [(plan, seed) for seed, some in ((0, plans()), (1, plans()[:AGAIN])) for plan in some]
        yield from (Cell(plan.experts, *CHOSEN, seed, plan=plan) for plan, seed in drawn)


STAGES = ("light", "pilot", "table", "plans")


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is missing within the time given, and print the page."""
    images = {"type": Path, "default": os.environ.get("NNGEN_CIFAR10_JPEG"), "help": "folder of the images"}
    stages = {"nargs": "+", "default": list(STAGES), "choices": [*STAGES, "none"]}
    asked = EVALUATION.arguments(argv, images=images, stage=stages, workers=1, minutes=math.inf)
    store = Store(STORE, {**SETTINGS, "shape": str(SHAPE), "splits": EACH})
    wanted = [cell for stage in asked.stage for cell in store.missing(cells(stage), outputs=stage == "table")]
    if wanted:
        if asked.images is None:
            EVALUATION.error("name the folder of the images with --images or NNGEN_CIFAR10_JPEG")
        trainer = Trainer(
            evaluation=EVALUATION,
            store=store,
            source=Images(folder=Path(asked.images), splits=SPLITS),
            label="moe4",
            settings=SETTINGS,
            workers=asked.workers,
        )
        trainer.run(list(dict.fromkeys(wanted)), 60 * asked.minutes)
    asked.images = None  # no path of this machine on the page
    missing = [*store.missing(cells("table"), outputs=True), *store.missing(cells("plans"))]
    return EVALUATION.finish(page(store), good=not missing)


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
        f"{LIGHT[0]:,} images, {LIGHT[1]} epochs, without a gate. Families below {LEARNS} do not learn at this rate"
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
        "## Random plans",
        _plans(store),
    )


def _families(store: Store) -> str:
    seconds = {cell: row["seconds"] for cell, row in store.trials.items() if (cell.images, cell.epochs) == LIGHT}
    rows = []
    for (name,), accuracies in sorted(store.accuracies(1, LIGHT).items(), key=lambda item: -fmean(item[1])):
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
        cost = fidelity[1] * (3 * fidelity[0] + 10 * EACH["validation"]) / 1000
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
    top = max(quartets, key=lambda experts: fmean(quartets[experts]))
    lines = [
        f"- {found.quartets} quartets with two seeds or more; mean accuracy {found.mean:.4f}, deviation between"
        f" quartets {found.between:.4f}, between seeds {found.within:.4f}.",
        f"- Intraclass correlation {found.icc:.2f} ({found.low:.2f} to {found.high:.2f}); reliability of the mean"
        f" of {SEEDS} seeds {found.reliability(SEEDS):.2f}; ceiling of Kendall's tau {found.ceiling(SEEDS):.2f}.",
        f"- Best quartet {', '.join(top)}: {fmean(quartets[top]):.4f}.",
    ]
    compared = [experts for experts in quartets if all((name,) in alone for name in experts)]
    if len(compared) > 1:
        best = {experts: max(fmean(alone[name,]) for name in experts) for experts in compared}
        gains = [fmean(quartets[experts]) - best[experts] for experts in compared]
        half = 1.96 * stdev(gains) / math.sqrt(len(gains))
        lines.append(
            f"- Mixture less its best family alone: {fmean(gains):+.4f} (give or take {half:.4f}); the best family"
            f" alone beats its mixture in {sum(gain < 0 for gain in gains)} of {len(gains)}."
        )
    return "\n".join(lines)


def _plans(store: Store) -> str:
    trained: dict[Plan, list[float]] = defaultdict(list)
    for cell in cells("plans"):
        if cell.plan and "outcome" not in (row := store.trials.get(cell, {"outcome": "missing"})):
            trained[cell.plan].append(row["accuracy"][-1])
    failed = sum("outcome" in store.trials.get(cell, ()) for cell in cells("plans"))
    if len(trained) < 2:
        return "No random plan is trained yet."
    means = {plan: fmean(values) for plan, values in trained.items()}
    top = max(means, key=means.__getitem__)
    lines = [
        f"- {len(trained)} of {PLANS} plans trained, {failed} trainings failed; mean accuracy"
        f" {fmean(means.values()):.4f}, deviation {stdev(means.values()):.4f}.",
        f"- Best plan: {means[top]:.4f}: `{plan_text(top)}`.",
    ]
    if (found := separation(trained.values())) is not None:
        lines.append(
            f"- {found.quartets} plans with two seeds: deviation between plans {found.between:.4f}, between seeds"
            f" {found.within:.4f}; intraclass correlation {found.icc:.2f} ({found.low:.2f} to {found.high:.2f})."
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
