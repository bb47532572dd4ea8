"""Closed loops on a recorded table at equal numbers of new trials: models beside classical writers, all ranked alike.

    python eval/closed_loop.py --table eval/tables/moe4.json --minutes 60    # go on with whatever is missing
    python eval/closed_loop.py --minutes 0 --write                           # the page alone, from the results so far

Each loop is ``nngen evolve --table``: a random start that all loops of one seed share, then cycles of drafts by one
writer, of which the ranker picks those that are tried. A trial answers with one recorded seed of its plan, drawn from
the seed of the loop, or with a forest's prediction where the table lacks the plan. What a loop chooses is the plan of
its highest accuracy; it is judged by that plan's accuracy without the noise of seeds.

Writers: ``random``, ``mutate``, ``tpe``; ``untuned`` (SmolLM2-135M-Instruct under the grammar of edits); ``tuned`` (the
same with an adapter that was tuned once, on loops of other seeds, whose cost is stated); ``hybrid`` (``tpe`` with the
tuned model); ``bandit`` (``random``, ``mutate``, ``tpe`` and the tuned model). Arms that end in ``-unranked`` are
ablations. The number of seeds follows from a pilot with other seeds, for a power of 80 % at half a point (n = 7.85 sd^2
/ 0.005^2, sd of the paired differences), and is 40 at least. Each finished loop goes into
``eval/results/closed_loop.json``. Exit code 1 while loops are missing.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import math
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from _page import RESULTS, Evaluation, note, table
from scipy.stats import wilcoxon

from nngen.analysis.statistics import holm, mean_interval
from nngen.archive import Archive
from nngen.assembly.assemble import Assembler
from nngen.campaign.protocols import CampaignInputs
from nngen.campaign.setup import prepare_inputs
from nngen.campaign_spec import CampaignSpec
from nngen.files import cache_dir, load_json, write_atomically
from nngen.lemur.source import open_lemur
from nngen.llm.evolve import Evolution
from nngen.llm.proposals.evidence import trained_plans
from nngen.llm.proposals.log import proposals
from nngen.llm.proposals.pool import read_drafts
from nngen.llm.rewriters.bandit import Bandit, Hybrid
from nngen.llm.rewriters.base import Rewriter
from nngen.llm.rewriters.factory import open_rewriter
from nngen.surrogate.recorded_table import FIXED, RecordedTable, by_name, read_table
from nngen.surrogate.table_engine import TableEngine

EVALUATION = Evaluation(__file__, __doc__)
STORE = RESULTS / "closed_loop.json"
CLASSICAL = ("random", "mutate", "tpe")
ARMS = (*CLASSICAL, "untuned", "tuned", "hybrid", "bandit", "mutate-unranked", "tuned-unranked")
PAIRS = (
    *(("tuned", other) for other in ("mutate", "random", "tpe", "untuned")),
    *(("hybrid", "tpe"), ("bandit", "mutate"), ("untuned", "mutate")),
    *((f"{writer}-unranked", writer) for writer in ("mutate", "tuned")),
)
"""Differences that are tested, by Holm over all of them."""

PILOT, FIRST_OF_PILOT, FIRST_OF_DONORS = 8, 1_000_000, 2_000_000
LEAST, DELTA, POWER = 40, 0.005, 7.85
"""Fewest seeds; difference that must be seen; (z of 5 % two-sided + z of 80 %)^2."""

MEASURES = {
    "chosen": "accuracy of the chosen plan",
    "found": "best accuracy tried",
    "recorded": "chosen among recorded plans",
}


@dataclass(slots=True, kw_only=True)
class Bench:
    """What all loops share; models are loaded when a loop first needs them."""

    given: argparse.Namespace
    table: RecordedTable
    inputs: CampaignInputs
    adapter: dict[str, Any] | None
    assembler: Assembler = field(default_factory=Assembler)
    _writers: dict[str, Rewriter] = field(default_factory=dict)

    def writer(self, name: str) -> Rewriter:
        """Return the writer of an arm."""
        if name not in self._writers:
            self._writers[name] = self._open(name)
        return self._writers[name]

    def _open(self, name: str) -> Rewriter:
        if name in CLASSICAL:
            return open_rewriter(name)
        if name == "hybrid":
            return Hybrid(self.writer("tuned"))
        if name == "bandit":
            return Bandit([*map(self.writer, CLASSICAL), self.writer("tuned")])
        if name == "tuned":
            return self._tune()
        from nngen.llm.rewriters.transformers_local import Local

        return Local(self.base)

    @property
    def base(self) -> str:
        from nngen.testing.tiny_model import fetch

        return str(self.given.base or fetch())

    def evolution(self, archive: Archive, name: str, seed: int, rewriter: Rewriter, *, ranked: bool) -> Evolution:
        """Make a loop."""
        recorded = {item: getattr(self.table.spec, item) for item in FIXED}
        spec = CampaignSpec(
            name=name, size=1, dataset=self.table.spec.dataset, seed=seed, families=self.table.families, **recorded
        )
        return Evolution(
            spec=spec,
            archive=archive,
            inputs=self.inputs,
            engine=TableEngine(self.table),
            rewriter=rewriter,
            cycles=self.given.cycles,
            start=self.given.start,
            number=self.given.number,
            # Equal numbers of trials: no loop stops early.
            patience=self.given.cycles + 1,
            # Without a choice for the ranker; repeats are drawn anew all the same, for equal numbers of trials.
            pool=self.given.pool if ranked else self.given.number,
            recorded=self.table.trainings,
            assembler=self.assembler,
        )

    def _tune(self) -> Rewriter:
        """Tune an adapter on loops of other seeds, or take the one that is there."""
        from nngen.llm.finetuning.config import Tuning
        from nngen.llm.finetuning.finetune import AdapterTuner

        tuning = Tuning(
            base=self.base, epochs=self.given.epochs, accumulate=2, lr=1e-3, judged=16, tasks=("improve", "summary")
        )
        folder = self.given.work / self.table.fingerprint[:12]
        folder.mkdir(parents=True, exist_ok=True)
        # Of two processes the second waits, and finds the adapter.
        with (folder / "lock").open("w") as lock, Archive.open(folder / "donors.db") as archive:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for place in range(self.given.donors):
                writer = self.writer("mutate" if place % 2 else "random")
                self.evolution(archive, f"donor-{place}", FIRST_OF_DONORS + place, writer, ranked=False).run()
            tuned = AdapterTuner(tuning=tuning, folder=folder, note=note)(archive, 0)
            donors = trained_plans(trial for trial in archive.trials(curves=False) if trial.trained)
        if tuned is None:
            EVALUATION.error("the donors' loops are too few to tune on: raise --donors")
        result = load_json(folder / "cycle-0" / "tuned" / "tuning.json")["result"]
        best = TableEngine(self.table).mean_accuracy(max(donors, key=lambda row: row.accuracy).plan)
        self.adapter = {"trials": sum(row.seeds for row in donors), "best": round(best, 5)}
        self.adapter |= {name: result[name] for name in ("rows", "updates", "seconds")}
        return tuned


def run(bench: Bench, arm: str, seed: int) -> dict[str, Any]:
    """Run one loop; return its measures, accuracies as shares."""
    name, _, unranked = arm.partition("-")
    writer, engine = bench.writer(name), TableEngine(bench.table)
    begun = time.perf_counter()
    with Archive.in_memory() as archive:
        bench.evolution(archive, "loop", seed, writer, ranked=not unranked).run()
        stages = [f"loop-{number}" for number in range(bench.given.cycles + 1)]
        trials = [trial for stage in stages for trial in archive.trials(stage, curves=False) if trial.trained]
        rows = [row for stage in stages[1:] for row in proposals(archive, stage)]
        drafts = [turn for stage in stages[1:] for turn in read_drafts(archive, stage)]
    observed = [trial.validation_accuracy or 0.0 for trial in trials]
    truth = [engine.mean_accuracy(trial.plan) for trial in trials]
    known = [by_name(trial.plan) in bench.table.trainings for trial in trials]
    best = max(range(len(trials)), key=observed.__getitem__)
    best_known = max((place for place, there in enumerate(known) if there), key=observed.__getitem__, default=None)
    counts = Counter[str]()
    for turn in drafts:
        counts += Counter({"drafted": turn.drafted, "known": turn.known, "repeated": turn.repeated})
        counts["faults"] += sum(turn.faults.values())
    return {
        "chosen": round(truth[best], 5),
        "found": round(max(truth), 5),
        "recorded": None if best_known is None else round(truth[best_known], 5),
        "trials": len(trials),
        "predicted": known.count(False),
        **{name: counts[name] for name in ("drafted", "known", "repeated", "faults")},
        "valid": sum(row.valid for row in rows),
        "new": sum(row.new for row in rows),
        "asked": len(rows),
        "writers": dict(Counter(row.rewriter.partition("+")[0] for row in rows)),
        "seconds": round(time.perf_counter() - begun, 2),
    }


class Store:
    """Finished loops by arm and seed, of one table and one set of sizes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        content: Any = json.loads(path.read_text()) if path.exists() else {}
        self.about: dict[str, Any] = content.get("about", {})
        self.adapter: dict[str, Any] | None = content.get("adapter")
        self.loops: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
        for arm, loops in content.get("loops", {}).items():
            self.loops[arm] = {int(seed): row for seed, row in loops.items()}

    def write(self) -> None:
        """Write everything, with the loops that another process wrote meanwhile; one line for each arm."""
        other = Store(self.path)
        self.adapter = self.adapter or other.adapter
        for arm, loops in other.loops.items():
            self.loops[arm] = loops | self.loops[arm]
        head = {"about": self.about, "adapter": self.adapter}
        rows = [
            f"{json.dumps(arm)}: " + json.dumps({str(seed): loops[seed] for seed in sorted(loops)})
            for arm, loops in sorted(self.loops.items())
        ]
        text = json.dumps(head)[:-1] + ', "loops": {\n' + ",\n".join(rows) + "\n}}\n"
        write_atomically(self.path, text.encode())

    def pairs(self, one: str, other: str, measure: str, *, pilot: bool = False) -> list[float]:
        """Return the differences of two arms in a measure, over the seeds that both are done with."""
        mine, theirs = self.loops[one], self.loops[other]
        seeds = [seed for seed in sorted(mine.keys() & theirs.keys()) if (seed >= FIRST_OF_PILOT) == pilot]
        values = [(mine[seed][measure], theirs[seed][measure]) for seed in seeds]
        return [first - second for first, second in values if first is not None and second is not None]

    def deviation(self, arms: Sequence[str]) -> float | None:
        """Return the largest deviation of the paired differences of the pilot; None before it is complete."""
        wanted = [pair for pair in PAIRS if set(pair) <= set(arms)]
        gaps = [self.pairs(*pair, "chosen", pilot=True) for pair in wanted]
        return max(map(stdev, gaps)) if gaps and min(map(len, gaps)) >= PILOT else None


def seeds_needed(deviation: float | None, most: int) -> int:
    """Return the number of seeds for the stated power; 0 before the pilot is complete."""
    return 0 if deviation is None else min(most, max(LEAST, math.ceil(POWER * deviation**2 / DELTA**2)))


def missing(store: Store, arms: Sequence[str], most: int, *, backwards: bool = False) -> Iterator[tuple[str, int]]:
    """Yield the loops to come: those of the pilot, then all arms of a seed before the next seed."""
    step = -1 if backwards else 1
    for place in range(PILOT)[::step]:
        yield from ((arm, FIRST_OF_PILOT + place) for arm in arms if FIRST_OF_PILOT + place not in store.loops[arm])
    for seed in range(seeds_needed(store.deviation(arms), most))[::step]:
        yield from ((arm, seed) for arm in arms if seed not in store.loops[arm])


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing within the time given, and print the page."""
    given = EVALUATION.arguments(
        argv,
        table=(Path, "recorded table that answers (docs/tables.md)"),
        arms={"nargs": "+", "default": list(ARMS), "choices": list(ARMS), "help": "loops to run"},
        start=8,
        cycles=3,
        number=4,
        pool=(12, "drafts of a turn; 16 of the 135M model took a minute on one core"),
        most=(200, "most seeds, where the power asks for more"),
        backwards=(False, "begin with the last seed, as the second of two processes"),
        minutes=(math.inf, "minutes for all of it; 0 for the page alone"),
        donors=(12, "loops of other seeds that the adapter is tuned on"),
        epochs=(1.0, "passes of the tuning"),
        base=(Path, "model in place of SmolLM2-135M-Instruct"),
        store=(STORE, "file of the finished loops"),
        work=(cache_dir() / "eval" / "closed_loop", "folder for the donors' archive and the adapter"),
    )
    store, end = Store(given.store), time.monotonic() + 60 * given.minutes
    if given.minutes:
        if given.table is None:
            EVALUATION.error("name the recorded table with --table")
        work(store, given, end)
    given.store = given.work = given.base = None  # no path of this machine on the page
    given.backwards = False
    if not store.loops:
        EVALUATION.error("no loop is done yet: name the recorded table with --table")
    arms = [arm for arm in ARMS if store.loops[arm]]
    complete = seeds_needed(store.deviation(ARMS), given.most) > 0 and not [*missing(store, ARMS, given.most)]
    return EVALUATION.finish(page(store, arms, given.most), good=complete)


def work(store: Store, given: argparse.Namespace, end: float) -> None:
    """Run loops until the time is over or all are done."""
    found = read_table(given.table)
    sizes = {name: getattr(given, name) for name in ("start", "cycles", "number", "pool", "donors", "epochs")}
    about = {"table": found.name, "fingerprint": found.fingerprint, "plans": len(found.trainings), **sizes}
    if store.about and store.about != json.loads(json.dumps(about)):
        EVALUATION.error(f"{given.store} holds loops on another table or of other sizes: {store.about}")
    store.about = about
    note(TableEngine(found).describe())
    inputs = prepare_inputs(found.dataset(), found.spec.shape, found.families, lemur=open_lemur())
    bench = Bench(given=given, table=found, inputs=inputs, adapter=store.adapter)
    for _ in range(2):  # the number of seeds is known once the pilot is done
        for arm, seed in missing(store, given.arms, given.most, backwards=given.backwards):
            if time.monotonic() >= end:
                return
            store.loops[arm][seed] = run(bench, arm, seed)
            store.adapter = bench.adapter
            store.write()
            note(f"{arm}, seed {seed}: {store.loops[arm][seed]['seconds']:.0f} s")


def page(store: Store, arms: Sequence[str], most: int) -> str:
    """Return the page, from the loops with seeds outside of the pilot."""
    about, deviation = store.about, store.deviation(ARMS)
    wanted = seeds_needed(deviation, most)
    text = (
        f"{about['table']} ({about['plans']} plans, fingerprint {about['fingerprint'][:12]}). Each loop:"
        f" {about['start']} random plans, then {about['cycles']} cycles of {about['number']} picked from"
        f" {about['pool']} drafts a turn."
        " Intervals are Student's over seeds, 95 %; p values are of paired Wilcoxon tests, adjusted by Holm."
    )
    if deviation is None:
        power = f"The pilot of {PILOT} seeds is not complete: nothing can be concluded yet."
    else:
        needed = math.ceil(POWER * deviation**2 / DELTA**2)
        done = min((sum(seed < FIRST_OF_PILOT for seed in store.loops[arm]) for arm in ARMS), default=0)
        seen = DELTA if wanted >= needed else deviation * math.sqrt(POWER / wanted)
        power = (
            f"Pilot of {PILOT} seeds: the deviation of paired differences is at most {100 * deviation:.2f} points, so"
            f" half a point needs {needed} seeds for a power of 80 %. With {wanted} seeds, {100 * seen:.2f} points are"
            f" seen. {done} of {wanted} are done{'' if done >= wanted else ', and nothing can be concluded yet'}."
        )
    cost = "No model was tuned yet."
    if store.adapter:
        told = store.adapter
        cost = (
            f"The adapter of `tuned` was made once, from {told['trials']} trials of {about['donors']} loops with other"
            f" seeds, which no other arm has seen: {told['rows']} rows, {told['updates']} updates,"
            f" {told['seconds']:,.0f} s. The plan of the highest accuracy among them has {told['best']:.4f}."
        )
    columns = (
        "loop",
        "seeds",
        *MEASURES.values(),
        "trials",
        "predicted",
        "new of the valid",
        "known drafts",
        "seconds",
    )
    lines = [_line(store, arm) for arm in arms if min(store.loops[arm]) < FIRST_OF_PILOT]
    shown = table(columns, lines, right=columns[1:]) if lines else "No loop outside of the pilot is done yet."
    return EVALUATION.page(
        "The closed loop",
        text,
        power,
        cost,
        shown,
        "Accuracies are those without the noise of seeds. `trials`: mean number of new plans that were tried;"
        " `predicted`: share of them that the table lacks and a forest answered; `known drafts`: share of all drafts"
        " that the archive had already; `seconds`: of a loop.",
        _shares(store),
        "Paired differences in the accuracy of the chosen plan, in points; above zero the first loop is better. The"
        " last column counts recorded plans alone.",
        _differences(store),
    )


def _line(store: Store, arm: str) -> list[str]:
    rows = [row for seed, row in store.loops[arm].items() if seed < FIRST_OF_PILOT]
    cells = [_mean([row[name] for row in rows if row[name] is not None]) for name in MEASURES]
    total: Callable[[str], int] = lambda name: sum(row[name] for row in rows)  # noqa: E731
    drafted = f"{total('known') / total('drafted'):.0%}" if total("drafted") else "-"
    return [
        arm,
        str(len(rows)),
        *cells,
        f"{total('trials') / max(len(rows), 1):.1f}",
        f"{total('predicted') / max(total('trials'), 1):.0%}",
        f"{total('new')} of {total('valid')}",
        drafted,
        f"{total('seconds') / max(len(rows), 1):.0f}",
    ]


def _shares(store: Store) -> str:
    """Return a sentence on the shares of the bandit's writers."""
    counts = Counter[str]()
    for seed, row in store.loops["bandit"].items():
        counts += Counter(row["writers"]) if seed < FIRST_OF_PILOT else Counter()
    if not counts:
        return "The bandit has not run yet."
    whole = counts.total()
    return "Shares of the bandit: " + ", ".join(f"{name} {n / whole:.0%}" for name, n in counts.most_common()) + "."


def _differences(store: Store) -> str:
    gaps = {pair: store.pairs(*pair, "chosen") for pair in PAIRS}
    tested = {pair: found for pair, found in gaps.items() if len(found) > 1}
    chances = holm([float(wilcoxon(found).pvalue) if any(found) else 1.0 for found in tested.values()])
    rows = [
        (
            f"{one} less {other}",
            len(tested[one, other]),
            _mean([100 * gap for gap in tested[one, other]], sign="+", digits=2),
            "< 0.001" if chance < 0.001 else f"{chance:.3f}",
            _mean([100 * gap for gap in store.pairs(one, other, "recorded")], sign="+", digits=2),
        )
        for (one, other), chance in zip(tested, chances, strict=True)
    ]
    columns = ("loops", "seeds", "difference", "p", "recorded plans alone")
    return table(columns, rows, right=columns[1:]) if rows else "No pair of loops is done yet."


def _mean(values: Sequence[float], sign: str = "", digits: int = 4) -> str:
    """Format a mean with Student's 95 % interval."""
    if not values:
        return "-"
    span = mean_interval(values)
    text = f"{fmean(values):{sign}.{digits}f}"
    return text if span is None else f"{text} ({span[0]:{sign}.{digits}f} to {span[1]:{sign}.{digits}f})"


if __name__ == "__main__":
    sys.exit(main())
