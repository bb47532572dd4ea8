"""Joint training from the weights of families trained alone, beside joint training from scratch, at equal cost.

    python eval/warm_start.py --write                                       # digits, minutes
    python eval/warm_start.py --dataset fashion-mnist --train-size 2000 --alone 4 --joint 2 --write

Every quartet of a pool of light families is trained in four ways, with the same seeds:

- ``frozen``: a gate over the families' kept weights, for ``--joint`` epochs;
- ``warm``: all weights, from the families' kept ones on, for ``--joint`` epochs;
- ``scratch, short``: from new weights for ``--joint`` epochs, the cost of the warm training where the families are
  already there;
- ``scratch, long``: from new weights for ``--alone`` and ``--joint`` epochs together, its cost where the families are
  trained for this quartet alone.

Differences are paired by quartet and seed; those of one seed share the families' weights, so the interval is over the
means of quartets. Trainings are kept in an archive, from which the script goes on.
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import TypeAlias

from _page import Evaluation, note, table

from nngen.analysis.statistics import mean_interval
from nngen.archive import Archive
from nngen.files import cache_dir

POOL = ("ShuffleNet", "MobileNetV3", "ICNet", "BagNet", "AirNext", "DPN68")
EVALUATION = Evaluation(__file__, __doc__)

Accuracies: TypeAlias = Mapping[tuple[str, ...], Mapping[int, tuple[float, float]]]
"""Accuracy and seconds of each quartet with each seed."""


def nngen(archive: Path, *words: str) -> None:
    """Run a command on the archive; a training that fails does not end the evaluation."""
    note(" ".join(("nngen", *words)))
    done = subprocess.run([sys.executable, "-m", "nngen", *words, "--archive", str(archive)], check=False)
    if done.returncode not in (0, 3):
        EVALUATION.error(f"nngen {words[0]} {words[1]} ended with code {done.returncode}")


def read(archive: Path, campaign: str) -> Accuracies:
    """Read the trained quartets of a campaign."""
    found: dict[tuple[str, ...], dict[int, tuple[float, float]]] = defaultdict(dict)
    with Archive.open(archive, readonly=True) as store:
        for trial in store.trials(campaign, curves=False):
            if trial.validation_accuracy is not None:
                names = tuple(sorted(trial.experts))
                found[names][trial.replicate] = (trial.validation_accuracy, trial.seconds or math.nan)
    return found


def compare(one: Accuracies, other: Accuracies) -> list[float]:
    """Return the mean difference of each quartet over the seeds that both sides have."""
    pairs = {names: sorted(one[names].keys() & other[names].keys()) for names in one.keys() & other.keys()}
    return [
        fmean(one[names][seed][0] - other[names][seed][0] for seed in seeds)
        for names, seeds in sorted(pairs.items())
        if seeds
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is missing and print the page."""
    given = EVALUATION.arguments(
        argv,
        dataset="digits",
        families=(list(POOL), "light families; all their quartets are trained"),
        alone=(3, "epochs of each family alone"),
        joint=(1, "epochs of each joint training"),
        train_size=(1000, "training images"),
        seeds=2,
        lr=0.003,
        workers=1,
        archive=(Path, "archive of the trainings; one in the user's cache by default"),
    )
    name = f"warm_start-{Path(given.dataset.removeprefix('folder:')).name}-{given.train_size}"
    archive = given.archive or cache_dir() / "eval" / f"{name}-{given.alone}-{given.joint}.db"
    archive.parent.mkdir(parents=True, exist_ok=True)
    quartets, seeds = str(math.comb(len(given.families), 4)), str(given.seeds)
    data = ("--dataset", given.dataset, "--train-size", str(given.train_size), "--lr", str(given.lr))
    workers = ("--workers", str(given.workers))
    data += ("--families", ",".join(given.families), *workers)
    nngen(archive, "experts", "train", "experts", "--epochs", str(given.alone), "--seeds", seeds, *data)
    gates = ("surrogate", "gates", "experts", "--train", quartets, "--train-epochs", str(given.joint))
    nngen(archive, *gates, "--seeds", seeds, *workers)
    nngen(archive, *gates, "--seeds", seeds, *workers, "--unfreeze")
    for campaign, epochs in (("short", given.joint), ("long", given.alone + given.joint)):
        size: tuple[str, ...] = ("--size", quartets)
        if given.seeds > 1:
            size += ("--finalists", quartets, "--replicates", seeds)
        nngen(archive, "campaign", "run", campaign, "--epochs", str(epochs), *size, *data)
    arms = {
        "warm": read(archive, f"experts-warm-{given.alone}"),
        "frozen": read(archive, f"experts-frozen-{given.alone}"),
        "scratch, short": read(archive, "short"),
        "scratch, long": read(archive, "long"),
    }
    # No path of this machine on the page.
    given.archive, given.dataset = None, given.dataset.replace(f"{Path(given.dataset.partition(':')[2]).parent}/", "")
    return EVALUATION.finish(page(arms, read(archive, "experts"), int(quartets)), good=True)


def page(arms: Mapping[str, Accuracies], alone: Accuracies, quartets: int) -> str:
    """Return the page: accuracy and seconds of each way, and the differences to the warm one."""
    warm, rows, deviations = arms["warm"], [], []
    for name, found in arms.items():
        values = [value for own in found.values() for value in own.values()]
        row = [name, str(len(values)), f"{fmean(a for a, _ in values):.4f}", f"{fmean(s for _, s in values):.1f}"]
        if name != "warm":
            differences = compare(warm, found)
            deviations.append(stdev(differences))
            low, high = mean_interval(differences) or (math.nan, math.nan)
            row += [f"{fmean(differences):+.4f}", f"{low:+.4f} to {high:+.4f}"]
        rows.append((*row, *["-"] * (6 - len(row))))
    families = [value for own in alone.values() for value in own.values()]
    power = 2.802 * max(deviations) / math.sqrt(quartets)
    columns = ("way", "trainings", "accuracy", "seconds each", "warm less it", "95 %")
    return EVALUATION.page(
        "Joint training from trained families, and from scratch",
        f"{quartets} quartets; differences of {power:.4f} between ways are found with a power of 80 %.",
        table(columns, rows, right=columns[1:]),
        f"A family alone took {fmean(seconds for _, seconds in families):.1f} s and has an accuracy of"
        f" {fmean(accuracy for accuracy, _ in families):.4f} on average. Warm and frozen trainings need these trainings"
        " too, once for all quartets.",
    )


if __name__ == "__main__":
    raise SystemExit(main())
