"""Share of random faults that a package's own tests find: mutants of its source, killed or survived.

    python eval/mutants.py --seed 1 --each 40                          # all packages; hours
    python eval/mutants.py --seed 1 --each 5 --packages space archive  # minutes
    python eval/mutants.py --seed 1 --each 40 --write                  # write eval/results/mutants.md

A mutant is the package with one change at a random place: a comparison or an arithmetic operator replaced, ``and`` and
``or`` exchanged, a condition negated, a number plus 1, ``return None`` in place of a value, or a call as a statement
left out. It is killed if ``pytest tests/PACKAGE`` fails or does not end within three times its usual time. Tests of
other packages, and those marked ``slow``, ``corpus``, ``gpu`` or ``network``, are not run.

Every finished mutant is stored at once in ``eval/results/mutants.json``, and is not run again while its module is
unchanged. A survivor that changes nothing may be excused there by hand, with its reason under ``"excused"``. Exit code
1 if fewer than 92 % are killed (excused ones left out), or more than a tenth are excused.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from random import Random
from typing import Any

from _page import RESULTS, Evaluation, note, table

from nngen.files import write_atomically
from nngen.seeds import derive

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ["archive", "campaign", "space", "analysis", "checks", "assembly", "families", "isolation", "training"]
PACKAGES += ["export"]
WANTED, EXCUSABLE = 0.92, 0.1
MARKS = "not slow and not corpus and not gpu and not network"
STORE = RESULTS / "mutants.json"
EVALUATION = Evaluation(__file__, __doc__)

COMPARISONS = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip
ARITHMETIC = {
    ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "*", ast.Mod: "*", ast.Pow: "*",
    ast.BitAnd: "|", ast.BitOr: "&",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One change of one module.

    Attributes:
        module: Path of the module below the repository.
        line: Line of the change, from 1.
        kind: Kind of the change.
        old: Text that is replaced.
        new: Text in its place.
        start: Offset of the text in bytes.
    """

    module: str
    line: int
    kind: str
    old: str
    new: str
    start: int

    @property
    def key(self) -> str:
        """Identify the mutant for as long as its module is unchanged."""
        content = (ROOT / self.module).read_bytes()
        return hashlib.sha256(content + json.dumps(asdict(self)).encode()).hexdigest()[:16]

    def apply(self, content: bytes) -> bytes:
        """Return the module with the change."""
        return content[: self.start] + self.new.encode() + content[self.start + len(self.old.encode()) :]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the mutants that are not stored yet, and print the page."""
    asked = EVALUATION.arguments(
        argv,
        packages=(PACKAGES, "packages of nngen"),
        each=(40, "mutants of each package"),
        seed=(0, "seed of the draw"),
        jobs=(2, "test runs at once"),
    )
    stored: dict[str, Any] = json.loads(STORE.read_text()) if STORE.exists() else {}
    drawn = {package: draw(package, asked.each, asked.seed) for package in asked.packages}
    run_all([(p, m) for p, mutants in drawn.items() for m in mutants if m.key not in stored], stored, asked.jobs)
    return report({package: [stored[m.key] for m in mutants] for package, mutants in drawn.items()})


def draw(package: str, count: int, seed: int) -> list[Mutant]:
    """Draw mutants of a package: a kind, all equally likely, then a place of this kind."""
    rng = Random(derive(seed, "mutants", package))
    kinds: dict[str, list[Mutant]] = {}
    for file in sorted((ROOT / "nngen" / package).rglob("*.py")):
        for mutant in mutants_of(file):
            kinds.setdefault(mutant.kind, []).append(mutant)
    drawn: list[Mutant] = []
    while kinds and len(drawn) < count:
        kind = rng.choice(sorted(kinds))
        drawn.append(kinds[kind].pop(rng.randrange(len(kinds[kind]))))
        kinds = {name: left for name, left in kinds.items() if left}
    return drawn


def mutants_of(file: Path) -> Iterator[Mutant]:
    """Yield every mutant of a module that compiles."""
    content = file.read_bytes()
    module = file.relative_to(ROOT).as_posix()
    starts = [0]
    for line in content.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node, kind, new in changes(ast.parse(content)):
        start = starts[node.lineno - 1] + node.col_offset
        old = content[start : starts[node.end_lineno - 1] + node.end_col_offset].decode()
        mutant = Mutant(module=module, line=node.lineno, kind=kind, old=old, new=new, start=start)
        try:
            changed = ast.dump(ast.parse(mutant.apply(content)))
        except SyntaxError:  # a replacement that needs other brackets
            continue
        if changed != ast.dump(ast.parse(content)):
            yield mutant


def changes(node: ast.AST) -> Iterator[tuple[Any, str, str]]:
    """Yield nodes to replace, the kind of the change, and the new text; not in annotations, nor inside f-strings."""
    match node:
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in COMPARISONS:
            yield node, "comparison", f"(({ast.unparse(left)}) {COMPARISONS[type(op)]} ({ast.unparse(right)}))"
        case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
            yield node, "arithmetic", f"(({ast.unparse(left)}) {ARITHMETIC[type(op)]} ({ast.unparse(right)}))"
        case ast.BoolOp(op=op, values=values):
            word = " and " if isinstance(op, ast.Or) else " or "
            yield node, "and/or", f"({word.join(f'({ast.unparse(value)})' for value in values)})"
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            yield node, "constant + 1", repr(value + 1)
        case ast.Return(value=ast.expr() as value) if ast.unparse(value) != "None":
            yield node, "return None", "return None"
        case ast.Expr(value=ast.Call()):
            yield node, "dropped call", "pass"
        case ast.JoinedStr():  # Python 3.11 gives no places inside
            return
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        yield node.test, "negated condition", f"(not ({ast.unparse(node.test)}))"
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and name not in ("annotation", "returns", "decorator_list"):
                yield from changes(child)


def run_all(todo: Sequence[tuple[str, Mutant]], stored: dict[str, Any], jobs: int) -> None:
    """Run the tests on each mutant, several at once, and store each result when it is there."""
    if not todo:
        return
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as threads:
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(jobs):
            copies.put(copied(Path(folder) / str(number)))
        usual = {package: usual_time(copies, package) for package in dict.fromkeys(package for package, _ in todo)}
        running = {threads.submit(run_one, copies, package, m, usual[package]): (package, m) for package, m in todo}
        begun = time.monotonic()
        for done, future in enumerate(as_completed(running), start=1):
            package, mutant = running[future]
            stored[mutant.key] = asdict(mutant) | {"package": package} | future.result()
            write_atomically(STORE, (json.dumps(stored, indent=0, sort_keys=True) + "\n").encode())
            left = (time.monotonic() - begun) / done * (len(todo) - done)
            verdict = "killed" if stored[mutant.key]["killed"] else "SURVIVED"
            place = f"{mutant.module}:{mutant.line} {mutant.kind}"
            note(f"{done} of {len(todo)}, {left / 60:.0f} min left: {verdict} {place}")


def copied(folder: Path) -> Path:
    """Copy the repository's files without what git ignores."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
    return folder


def usual_time(copies: SimpleQueue[Path], package: str) -> float:
    """Return the seconds that a package's tests take, which must pass."""
    folder = copies.get()
    begun = time.monotonic()
    passed, output = run_tests(folder, package, "", None)
    copies.put(folder)
    if not passed:
        EVALUATION.error(f"tests/{package} fails without a mutant: {output}")
    note(f"tests/{package}: {time.monotonic() - begun:.0f} s")
    return time.monotonic() - begun


def run_one(copies: SimpleQueue[Path], package: str, mutant: Mutant, usual_s: float) -> dict[str, Any]:
    """Apply a mutant to one of the copies, run the tests there, and restore the copy."""
    folder = copies.get()
    file = folder / mutant.module
    content = file.read_bytes()
    try:
        file.write_bytes(mutant.apply(content))
        passed, output = run_tests(folder, package, file.stem, 3 * usual_s + 30)
    finally:
        file.write_bytes(content)
        copies.put(folder)
    return {"killed": not passed, "by": output}


def run_tests(folder: Path, package: str, module: str, limit_s: float | None) -> tuple[bool, str]:
    """Run a package's tests, those of the module first; return whether they pass, and the last line of output."""
    tests = Path("tests") / package
    first = [str(path.relative_to(folder)) for path in sorted((folder / tests).rglob(f"test_{module}.py"))]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", MARKS, *first, str(tests)]
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired:
        return False, "time limit"
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return done.returncode == 0, lines[0].partition(" - ")[0] if lines else ""


def report(results: dict[str, list[dict[str, Any]]]) -> int:
    """Print the share of each package and the survivors."""
    rows, survivors = [], []
    killed = excused = total = 0
    for package, mutants in results.items():
        dead = sum(mutant["killed"] for mutant in mutants)
        free = sum(not mutant["killed"] and "excused" in mutant for mutant in mutants)
        rows.append((package, len(mutants), dead, free, f"{dead / max(len(mutants) - free, 1):.0%}"))
        killed, excused, total = killed + dead, excused + free, total + len(mutants)
        for mutant in mutants:
            if not mutant["killed"]:
                change = f"`{' '.join(mutant['old'].split())[:70]}` -> `{mutant['new'][:70]}`"
                place = f"{mutant['module']}:{mutant['line']}"
                survivors.append((place, mutant["kind"], change, mutant.get("excused", "")))
    share = killed / max(total - excused, 1)
    good = share >= WANTED and excused <= EXCUSABLE * total
    about = f"{total} mutants: {share:.1%} of those not excused are killed; {WANTED:.0%} are wanted."
    numbers = ("mutants", "killed", "excused", "share")
    text = EVALUATION.page(
        "Faults that the tests find",
        about,
        table(("package", *numbers), rows, right=numbers),
        "## Survivors",
        table(("place", "change", "from and to", "excused because"), survivors),
    )
    return EVALUATION.finish(text, good=good)


if __name__ == "__main__":
    sys.exit(main())
