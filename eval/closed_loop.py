"""The closed loop at equal budget: ``random``, ``mutate`` and the tuned model on digits, over several seeds.

The three loops of one seed share their start: the same random plans, trained once. Then each loop proposes and trains
the same number of plans per cycle, in an archive of its own. The model is tuned after each cycle but the last, on the
archive of its own loop, so its first cycle uses the untuned model under the grammar. The page reports the best and the
mean validation accuracy of each loop's proposals, and the mean accuracy of its best candidate on new seeds, with
intervals over the seeds, and the differences from the model, paired by seed.

Every trial is stored when it ends, so a run that was killed can be resumed; ``--only`` runs one loop.

    python eval/closed_loop.py [--cycles 3] [--number 6] [--start 8] [--seeds 3] [--only model-0] [--write]
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from _page import Evaluation, note, table

from nngen.analysis.loop_report import LoopCycle
from nngen.analysis.statistics import mean_interval, wilson
from nngen.archive import Archive
from nngen.campaign.setup import prepare_inputs
from nngen.campaign_spec import CampaignSpec
from nngen.datasets import load_dataset
from nngen.files import cache_dir
from nngen.lemur.source import open_lemur
from nngen.llm.evolve import Evolution
from nngen.llm.finetuning.config import Tuning
from nngen.llm.finetuning.finetune import AdapterTuner
from nngen.llm.rewriters.base import Rewriter
from nngen.llm.rewriters.baselines import Mutate, Uniform
from nngen.llm.rewriters.transformers_local import Local
from nngen.testing.tiny_model import fetch
from nngen.training import LocalEngine

LIGHT = (
    "AirNext",
    "ComplexNet",
    "DPN68",
    "Diffuser",
    "ICNet",
    "MobileNetV3",
    "ShuffleNet",
    "SqueezeNet-1",
    "SqueezeNet-2",
)
ARMS = ("random", "mutate", "model")
MODEL = "model"
EVALUATION = Evaluation(__file__, __doc__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """Result of one loop: its cycles as ``Cycle`` writes them, without the common start, and its seconds."""

    arm: str
    seed: int
    cycles: list[dict[str, Any]]
    seconds: float

    @property
    def accuracies(self) -> list[float]:
        return [value for cycle in self.cycles for value in cycle["accuracies"]]

    @property
    def measures(self) -> dict[str, float]:
        """Return the three figures that loops are compared by."""
        return {
            "best accuracy": max(self.accuracies),
            "mean accuracy": fmean(self.accuracies),
            "judged best": self.cycles[-1]["judged"],
        }


def main(argv: Sequence[str] | None = None) -> int:
    """Run every unfinished loop; when all are finished, print the page and write it if requested."""
    given = EVALUATION.arguments(
        argv,
        cycles=3,
        number=6,
        start=8,
        seeds=3,
        threads=1,
        epochs=1,
        batch=32,
        only=("", "run this loop alone, such as model-0, and print nothing"),
        work=(cache_dir() / "eval" / "closed_loop", "folder for the archives"),
    )
    torch.set_num_threads(given.threads)
    given.work.mkdir(parents=True, exist_ok=True)
    loops = [
        _loop(arm, seed, given)
        for seed, arm in product(range(given.seeds), ARMS)
        if given.only in ("", f"{arm}-{seed}")
    ]
    return 0 if given.only else EVALUATION.finish(_page(loops, given), good=True)


def _loop(arm: str, seed: int, given: argparse.Namespace) -> Loop:
    """Run one loop in an archive of its own, so that loops share no trials; read a finished one."""
    place = given.work / f"{arm}-{seed}"
    done, clock = place / "cycles.json", place / "seconds.jsonl"
    if not done.is_file():
        note(f"{arm}, seed {seed}")
        place.mkdir(exist_ok=True)
        begun = time.perf_counter()
        try:
            with LocalEngine() as engine:
                cycles = _run(arm, seed, engine, given, place)
        finally:
            with clock.open("a") as file:
                file.write(f"{time.perf_counter() - begun:.1f}\n")
        done.write_text(json.dumps([_row(cycle) for cycle in cycles if cycle.number > 0]), encoding="utf-8")
    seconds = sum(map(float, clock.read_text().split()))
    return Loop(arm=arm, seed=seed, cycles=json.loads(done.read_text()), seconds=seconds)


def _run(arm: str, seed: int, engine: LocalEngine, given: argparse.Namespace, place: Path) -> list[LoopCycle]:
    start = given.work / f"start-{seed}.db"
    if not (given.work / f"start-{seed}.done").is_file():
        with Archive.open(start) as archive:
            _evolution(archive, engine, seed, given, Uniform(), None).begin()
        (given.work / f"start-{seed}.done").touch()
    if not (place / "loop.db").is_file():
        shutil.copyfile(start, place / "loop.db.half")
        (place / "loop.db.half").replace(place / "loop.db")
    rewriter, tuner = _writer(arm, place)
    with Archive.open(place / "loop.db") as archive:
        return _evolution(archive, engine, seed, given, rewriter, tuner).run()


def _evolution(
    archive: Archive,
    engine: LocalEngine,
    seed: int,
    given: argparse.Namespace,
    rewriter: Rewriter,
    tuner: AdapterTuner | None,
) -> Evolution:
    dataset = load_dataset("digits")
    spec = CampaignSpec(
        name="loop",
        size=1,
        shape=dataset.default_shape,
        epochs=given.epochs,
        batch=given.batch,
        threads=given.threads,
        seed=seed,
    )
    return Evolution(
        spec=spec,
        archive=archive,
        inputs=prepare_inputs(dataset, spec.shape, LIGHT, lemur=open_lemur()),
        engine=engine,
        rewriter=rewriter,
        cycles=given.cycles,
        start=given.start,
        number=given.number,
        # Equal budgets: no loop stops early.
        patience=given.cycles + 1,
        tune=tuner,
        note=note,
    )


def _writer(arm: str, place: Path) -> tuple[Rewriter, AdapterTuner | None]:
    if arm != MODEL:
        return (Uniform() if arm == "random" else Mutate()), None
    base = str(fetch())
    tuning = Tuning(base=base, epochs=1.0, accumulate=2, lr=1e-3, judged=4, max_tokens=768)
    return Local(base), AdapterTuner(tuning=tuning, folder=place, note=note)


def _row(cycle: LoopCycle) -> dict[str, Any]:
    names = ("number", "rewriter", "accuracies", "best", "judged", "gain", "noise")
    counts = {"asked": cycle.valid.tries, "valid": cycle.valid.successes, "new": cycle.new.successes}
    return {name: getattr(cycle, name) for name in names} | counts


def _page(loops: Sequence[Loop], given: argparse.Namespace) -> str:
    trials = given.start + given.cycles * given.number
    about = f"""Digits, {given.epochs} epoch(s), batches of {given.batch}, the families
{", ".join(LIGHT)}; {platform.machine()}, {given.threads} CPU thread(s), torch {torch.__version__}.
Each loop: {given.start} random plans that the loops of one seed share, then {given.cycles} cycles of
{given.number} proposals, {trials} trials in all; {given.seeds} seeds. The model is SmolLM2-135M-Instruct
under the grammar, tuned after every cycle but the last. 95 % intervals: Student's over seeds, Wilson's."""
    columns = (
        "loop",
        "best accuracy",
        "mean accuracy",
        "judged best",
        "valid",
        "new of the valid",
        "trained",
        "s a loop",
    )
    return EVALUATION.page(
        "The closed loop",
        about,
        table(columns, (_line(arm, [loop for loop in loops if loop.arm == arm]) for arm in ARMS)),
        "`judged best`: the best candidate so far, trained again on fresh seeds that chose nothing.",
        *_differences(loops),
        *_at_equal_trials(loops),
        *_cycles(loops, given),
    )


def _line(arm: str, loops: Sequence[Loop]) -> list[str]:
    asked, valid, new = (sum(c[name] for loop in loops for c in loop.cycles) for name in ("asked", "valid", "new"))
    cells = [_mean([loop.measures[name] for loop in loops]) for name in loops[0].measures]
    cells += [_share(valid, asked), _share(new, valid), ", ".join(str(len(loop.accuracies)) for loop in loops)]
    return [arm, *cells, f"{fmean(loop.seconds for loop in loops):,.0f}"]


def _differences(loops: Sequence[Loop]) -> list[str]:
    """Compare the model with each baseline, paired by seed, and name the winner."""
    by_place = {(loop.arm, loop.seed): loop.measures for loop in loops}
    seeds = sorted({loop.seed for loop in loops})
    rows, lost = [], []
    for name in loops[0].measures:
        cells = []
        for other in ("random", "mutate"):
            gaps = [by_place[(MODEL, seed)][name] - by_place[(other, seed)][name] for seed in seeds]
            span = mean_interval(gaps)
            if span is None or span[0] <= 0:
                lost.append(f"{name} beside {other}")
            cells.append(_mean(gaps, sign="+"))
        rows.append((name, *cells))
    verdict = "The model wins: every interval lies above zero."
    if lost:
        verdict = f"**The model does not win**: the interval does not lie above zero for {'; '.join(lost)}."
    shown = table(("measure", "less random", "less mutate"), rows)
    return ["The model less a baseline, paired by seed:", shown, verdict]


def _at_equal_trials(loops: Sequence[Loop]) -> list[str]:
    """Compare the loops of a seed at an equal number of trials: the smallest of the three."""
    seeds = sorted({loop.seed for loop in loops})
    fewest = {seed: min(len(loop.accuracies) for loop in loops if loop.seed == seed) for seed in seeds}
    rows = []
    for arm in ARMS:
        first = [loop.accuracies[: fewest[loop.seed]] for loop in loops if loop.arm == arm]
        rows.append((arm, _mean([max(values) for values in first]), _mean([*map(fmean, first)])))
    return [
        "A plan that was proposed before is not trained again, so equal numbers of proposals are not equal numbers of"
        f" trials. Of each loop the first {', '.join(str(fewest[seed]) for seed in seeds)} trials, by seed:",
        table(("loop", "best accuracy", "mean accuracy"), rows),
    ]


def _cycles(loops: Sequence[Loop], given: argparse.Namespace) -> list[str]:
    cells = []
    for arm, number in product(ARMS, range(1, given.cycles + 1)):
        rows = [cycle for loop in loops for cycle in loop.cycles if (loop.arm, cycle["number"]) == (arm, number)]
        values = [value for row in rows for value in row["accuracies"]]
        asked, valid, new = (sum(row[name] for row in rows) for name in ("asked", "valid", "new"))
        judged = _mean([row["judged"] for row in rows])
        cells.append((arm, number, f"{valid} of {asked}", new, f"{_mean(values)} ({len(values)} trials)", judged))
    columns = ("loop", "cycle", "valid", "new", "mean accuracy of its trials", "judged best")
    return ["By cycle, over all seeds:", table(columns, cells)]


def _mean(values: Sequence[float], sign: str = "") -> str:
    """Format a mean with Student's 95 % interval."""
    if not values:
        return "none"
    span = mean_interval(values)
    text = f"{fmean(values):{sign}.4f}"
    return text if span is None else f"{text} ({span[0]:{sign}.4f} to {span[1]:{sign}.4f})"


def _share(hits: int, trials: int) -> str:
    share = wilson(hits, trials)
    return f"{hits} of {trials} ({share.low:.1%} to {share.high:.1%})"


if __name__ == "__main__":
    sys.exit(main())
