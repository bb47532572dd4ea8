"""Mixtures on real colour images: family effects, reliability, gain over the best member, and the published figures.

    python eval/cifar.py --images cifar-10-jpeg --minutes 60        # go on for an hour, then print the page
    python eval/cifar.py --images cifar-10-jpeg --stage table       # the design alone
    python eval/cifar.py --stage none --write                       # the page alone, from the results so far

Images are the 60,000 of CIFAR-10 as JPEG files, ``train/<class>/0000.jpg`` and ``test/<class>/0000.jpg``; the folder is
named with ``--images`` or by the environment variable ``NNGEN_CIFAR10_JPEG``. The last 300 training images of each
class are the validation split. Stages:

- ``table``: a balanced design of 49 quartets of 14 light families, each family alone, and a second seed for a third of
  the quartets, with 5,000 training images and 3 epochs at the default plan, 32 px, batch 32, rate 0.003;
- ``presets``: each preset of the companion study once, at the same settings;
- ``final``: the best three quartets by the mean over their seeds, one epoch on all 47,000 training images, with the
  accuracy on the 10,000 test images.

Each finished trial goes into ``eval/tables/cifar.json`` at once, and the script goes on from there on any machine. Exit
code 1 while a stage is not complete.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, TypeAlias

from _page import Evaluation, table
from _trainings import SHAPE, Cell, Images, Store, Trainer, separation

from nngen.analysis.effects import effects
from nngen.analysis.observations import Observation
from nngen.assembly.plan_toml import preset, preset_names
from nngen.space.samplers import draw

Accuracies: TypeAlias = Mapping[tuple[str, ...], Sequence[float]]
"""Accuracies of each seed, by families."""

STORE = Path(__file__).parent / "tables" / "cifar.json"
SETTINGS: Mapping[str, Any] = {"batch": 32, "lr": 3e-3, "momentum": 0.9, "augment": "flip", "time_limit_s": 7200.0}
SPLITS = {"train": ("train", 0, 4700), "validation": ("train", 4700, 300), "test": ("test", 0, 1000)}
FAMILIES = (
    *("AirNext", "BagNet", "BayesianNet-3", "ComplexNet", "DPN107", "DPN68", "Diffuser"),
    *("ICNet", "MNASNet", "MobileNetV2", "MobileNetV3", "RegNet", "ResNet", "ShuffleNet"),
)
"""Fourteen of the lighter families, without the SqueezeNets, which do not learn at this rate."""

QUARTETS, AGAIN = 49, 17
FIDELITY = (5000, 3)
FULL = (47_000, 1)
PRESETS = tuple(name for name in preset_names() if name != "single")
PUBLISHED = (
    ("best mean of the published campaign, a quartet after one epoch", "0.632"),
    ("LEMUR's best record at 64 px or less, DarkNet alone", "0.6732"),
    ("LEMUR's best record of a mixture at 64 px or less, MoE-hetero4", "0.6594"),
)
EVALUATION = Evaluation(__file__, __doc__)


def cells(stage: str, store: Store) -> Iterator[Cell]:
    """Yield the trainings of a stage in their order; those of the last stage need the first one's results."""
    if stage == "table":
        drawn = draw("balanced", FAMILIES, QUARTETS, 0)
        yield from (Cell(tuple(sorted(experts)), *FIDELITY, 0) for experts in drawn)
        yield from (Cell((name,), *FIDELITY, 0) for name in FAMILIES)
        yield from (Cell(tuple(sorted(experts)), *FIDELITY, 1) for experts in drawn[:AGAIN])
    if stage == "presets":
        yield from (Cell(_experts(name), *FIDELITY, 0, name) for name in PRESETS)
    if stage == "final" and all(cell in store.trials for cell in cells("table", store)):
        means = {experts: fmean(values) for experts, values in store.accuracies(4, FIDELITY).items()}
        yield from (Cell(experts, *FULL, 0) for experts in sorted(means, key=means.__getitem__, reverse=True)[:3])


def _experts(name: str) -> tuple[str, ...]:
    plan = preset(name)
    return plan.experts if plan.kind == "hetero" else ()


STAGES = ("table", "presets", "final")


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is missing within the time given, and print the page."""
    images = {"type": Path, "default": os.environ.get("NNGEN_CIFAR10_JPEG"), "help": "folder of the images"}
    stages = {"nargs": "+", "default": list(STAGES), "choices": [*STAGES, "none"]}
    asked = EVALUATION.arguments(argv, images=images, stage=stages, workers=1, minutes=math.inf)
    splits = {split: each for split, (_, _, each) in SPLITS.items()}
    store = Store(STORE, {**SETTINGS, "shape": str(SHAPE), "splits": splits})
    for stage in asked.stage:
        if wanted := store.missing(cells(stage, store), outputs=stage == "table"):
            if asked.images is None:
                EVALUATION.error("name the folder of the images with --images or NNGEN_CIFAR10_JPEG")
            Trainer(
                evaluation=EVALUATION,
                store=store,
                source=Images(folder=Path(asked.images), splits=SPLITS),
                label="cifar",
                settings=SETTINGS,
                workers=asked.workers,
                tested=stage == "final",
            ).run(wanted, 60 * asked.minutes)
    asked.images = None  # no path of this machine on the page
    wanted = [cell for stage in STAGES for cell in cells(stage, store)]
    missing = store.missing(wanted) + store.missing(cells("table", store), outputs=True)
    return EVALUATION.finish(page(store), good=len(wanted) == _total() and not missing)


def _total() -> int:
    return QUARTETS + len(FAMILIES) + AGAIN + len(PRESETS) + 3


def page(store: Store) -> str:
    """Return the page, as far as the results go."""
    done = sum(cell in store.trials for stage in STAGES for cell in cells(stage, store))
    about = (
        f"CIFAR-10 (JPEG), {SHAPE}, batch {SETTINGS['batch']}, rate {SETTINGS['lr']:g}, default plan, {FIDELITY[0]:,}"
        f" training images, {FIDELITY[1]} epochs, 3,000 validation images. {done} of {_total()} trials are done."
    )
    quartets, alone = store.accuracies(4, FIDELITY), store.accuracies(1, FIDELITY)
    blocks = [
        *("## Families", _families(quartets, alone)),
        *("## Quartets", _quartets(quartets, alone)),
        *("## Presets of the companion study", _others(store, "presets")),
        *("## The best three on all training images", _others(store, "final")),
        table(("published, for comparison", "accuracy"), PUBLISHED),
    ]
    return EVALUATION.page("Mixtures on real colour images", about, *blocks)


def _families(quartets: Accuracies, alone: Accuracies) -> str:
    lines = [
        Observation(quartet=experts, seed=seed, accuracy=value)
        for experts, values in quartets.items()
        for seed, value in enumerate(values)
    ]
    if not lines:
        return "No quartet is trained yet."
    found = effects(lines, FAMILIES)
    rows = []
    for row in found.families:
        own = f"{fmean(alone[row.family,]):.4f}" if (row.family,) in alone else "-"
        point = "-" if row.point is None else f"{row.point:+.4f}"
        span = f"{row.interval.low:+.4f} to {row.interval.high:+.4f}" if row.interval else row.reason or "-"
        rows.append((row.family, row.quartets, point, span, own))
    text = found.reliability.sentence if found.reliability else ""
    return table(("family", "quartets", "effect", "95 %", "alone"), rows) + f"\n\n{text}".rstrip()


def _quartets(quartets: Accuracies, alone: Accuracies) -> str:
    complete = {experts: values for experts, values in quartets.items() if all((name,) in alone for name in experts)}
    if len(complete) < 2:
        return "Too few quartets are trained beside all their families."
    best = {experts: max((fmean(alone[name,]), name) for name in experts) for experts in complete}
    gains = [fmean(values) - best[experts][0] for experts, values in complete.items()]
    half = 1.96 * stdev(gains) / math.sqrt(len(gains))
    top = max(complete, key=lambda experts: fmean(complete[experts]))
    lines = [
        f"- Best quartet {', '.join(top)}: {fmean(complete[top]):.4f}; its best family alone, {best[top][1]}:"
        f" {best[top][0]:.4f}.",
        f"- Mixture less its best family alone, over {len(gains)} quartets: {fmean(gains):+.4f} (give or take"
        f" {half:.4f}); the best family alone is the better one in {sum(gain < 0 for gain in gains)} of them.",
    ]
    if (found := separation(quartets.values())) is not None:
        lines.append(
            f"- {found.quartets} quartets with two seeds: deviation between quartets {found.between:.4f}, between seeds"
            f" {found.within:.4f}; intraclass correlation {found.icc:.2f} ({found.low:.2f} to {found.high:.2f});"
            f" ceiling of Kendall's tau with one seed {found.ceiling(1):.2f}, with two {found.ceiling(2):.2f}."
        )
    return "\n".join(lines)


def _others(store: Store, stage: str) -> str:
    rows = []
    for cell in cells(stage, store):
        row = store.trials.get(cell)
        if row is None:
            continue
        last = f"{row['accuracy'][-1]:.4f}" if row["accuracy"] else row.get("outcome", "-")
        rows.append((cell.title, last, f"{row['test']:.4f}" if "test" in row else "-", f"{row['seconds']:.0f}"))
    return table(("plan", "validation", "test", "seconds"), rows) if rows else "Not trained yet."


if __name__ == "__main__":
    sys.exit(main())
