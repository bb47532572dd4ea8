"""Share of random faults that a package's own tests find: mutants of its source, killed or survived.

    python eval/mutants.py --seed 1 --each 40                          # all packages; hours
    python eval/mutants.py --seed 1 --each 5 --packages space archive  # minutes
    python eval/mutants.py --seed 1 --each 40 --minutes 8              # as far as it comes; the next call goes on
    python eval/mutants.py --seed 1 --each 40 --again                  # survivors again, with the tests of today
    python eval/mutants.py --seed 1 --each 40 --write                  # write eval/results/mutants.md

A mutant is the package with one change at a random place: a comparison or an arithmetic operator replaced, ``and`` and
``or`` exchanged, a condition negated, a number plus 1, ``return None`` in place of a value, or a call as a statement
left out. It is killed if ``pytest tests/PACKAGE`` fails or does not end. Tests that call the function of the change
run first, and the first failure ends the run. Tests of other packages, and those marked ``slow``, ``corpus`` or
``gpu``, are not run.

Every finished mutant is stored at once in ``eval/results/mutants.json``, and is not run again while its module is
unchanged. A survivor that changes nothing may be excused there by hand, with its reason under ``"excused"``. Exit code
1 if fewer than 92 % are killed (excused ones left out), more than a tenth are excused, or some are not run yet.
"""

from __future__ import annotations

import ast
import compileall
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from py_compile import PycInvalidationMode
from queue import SimpleQueue
from random import Random
from types import CodeType
from typing import Any

import pytest
from _page import RESULTS, Evaluation, kept, note, table

from nngen.files import cache_dir, write_atomically
from nngen.seeds import derive

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ["archive", "campaign", "space", "analysis", "checks", "assembly", "families", "isolation", "training"]
PACKAGES += ["export"]
WANTED, EXCUSABLE = 0.92, 0.1
MARKS = "not slow and not corpus and not gpu"
WARM = ["numpy", "torch", "torchvision", "scipy.stats", "sklearn.ensemble", "sklearn.linear_model"]
STORE = RESULTS / "mutants.json"
EVALUATION = Evaluation(__file__, __doc__)

Test = tuple[float, Sequence[tuple[str, int, int]]]
"""Seconds of a test; file, first and last line of each function that it calls."""

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
        assert content[self.start :].startswith(self.old.encode()), f"{self.module} changed while the script ran"
        return content[: self.start] + self.new.encode() + content[self.start + len(self.old.encode()) :]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the mutants that are not stored yet, and print the page."""
    asked = EVALUATION.arguments(
        argv,
        packages=(PACKAGES, "packages of nngen"),
        each=(40, "mutants of each package"),
        seed=(0, "seed of the draw"),
        jobs=(1, "test runs at once"),
        minutes=(float("inf"), "begin no further mutant after so many minutes"),
        again=(False, "run stored survivors again"),
    )
    stored: dict[str, Any] = json.loads(STORE.read_text()) if STORE.exists() else {}

    def is_open(mutant: Mutant) -> bool:
        result = stored.get(mutant.key)
        return result is None or (asked.again and not result["killed"] and "excused" not in result)

    drawn = {package: draw(package, asked.each, asked.seed) for package in asked.packages}
    todo = [(package, mutant) for package, mutants in drawn.items() for mutant in mutants if is_open(mutant)]
    run_all(todo, stored, asked.jobs, asked.minutes)
    results = {package: [stored[m.key] for m in mutants if m.key in stored] for package, mutants in drawn.items()}
    return report(results, missing=sum(map(len, drawn.values())) - sum(map(len, results.values())))


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


def run_all(todo: Sequence[tuple[str, Mutant]], stored: dict[str, Any], jobs: int, minutes: float) -> None:
    """Run the tests on each mutant, and store each result when it is there; begin none after so many minutes."""
    if not todo:
        return
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as threads:
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(jobs):
            copies.put(copied(Path(folder) / str(number)))
        tests = {package: record(copies, package) for package in dict.fromkeys(package for package, _ in todo)}

        def run(package: str, mutant: Mutant) -> dict[str, Any] | None:
            in_time = time.monotonic() - begun < 60 * minutes
            return run_one(copies, package, mutant, tests[package]) if in_time else None

        running = {threads.submit(run, package, mutant): (package, mutant) for package, mutant in todo}
        first = time.monotonic()
        for done, future in enumerate(as_completed(running), start=1):
            package, mutant = running[future]
            if (result := future.result()) is None:
                continue
            stored[mutant.key] = asdict(mutant) | {"package": package} | result
            write_atomically(STORE, (json.dumps(stored, indent=0, sort_keys=True) + "\n").encode())
            left = (time.monotonic() - first) / done * (len(todo) - done)
            verdict = "killed" if result["killed"] else "SURVIVED"
            place = f"{mutant.module}:{mutant.line} {mutant.kind}"
            note(f"{done} of {len(todo)}, {left / 60:.0f} min left: {verdict} {place}")


def copied(folder: Path) -> Path:
    """Copy the repository's files without what git ignores, and compile the package.

    Compiled modules are checked by the hash of their source: one that is changed and put back within a second stays
    right, which the time of the file would not show.
    """
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
    compileall.compile_dir(folder / "nngen", quiet=2, invalidation_mode=PycInvalidationMode.CHECKED_HASH)
    return folder


class Plugin:
    """Plugin of pytest that gives hypothesis the same examples in each run, and no deadline."""

    def pytest_configure(self) -> None:
        from hypothesis import settings  # not before pytest has prepared it

        settings.register_profile("mutants", derandomize=True, deadline=None, database=None)
        settings.load_profile("mutants")


class Recorder(Plugin):
    """Plugin that writes seconds and called functions of each test to a file."""

    def __init__(self, folder: Path, file: Path) -> None:
        self._folder, self._file = f"{folder}/", file
        self._tests: dict[str, Test] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        called: set[CodeType] = set()
        begun = time.monotonic()
        # A trace function that returns nothing is called once a function, not once a line.
        sys.settrace(lambda frame, event, argument: called.add(frame.f_code))
        try:
            return (yield)
        finally:
            sys.settrace(None)
            places = sorted(_place(code, self._folder) for code in called if code.co_filename.startswith(self._folder))
            self._tests[item.nodeid] = (time.monotonic() - begun, places)

    def pytest_sessionfinish(self) -> None:
        self._file.write_text(json.dumps(self._tests))


def _place(code: CodeType, folder: str) -> tuple[str, int, int]:
    lines = [line for *_, line in code.co_lines() if line]
    return code.co_filename.removeprefix(folder), code.co_firstlineno, max(lines, default=code.co_firstlineno)


class Order(Plugin):
    """Plugin that first runs the tests that call the function of a change, beginning with the file that takes least."""

    def __init__(self, tests: dict[str, Test], mutant: Mutant) -> None:
        self._seconds = {name: seconds for name, (seconds, places) in tests.items() if _reach(places, mutant)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        seconds: dict[Path, float] = {}
        for item in items:
            seconds[item.path] = seconds.get(item.path, 0.0) + self._seconds.get(item.nodeid, 0.0)
        items.sort(key=lambda item: (item.nodeid not in self._seconds, seconds[item.path]))


def _reach(places: Sequence[tuple[str, int, int]], mutant: Mutant) -> bool:
    return any(file == mutant.module and first <= mutant.line <= last for file, first, last in places)


def record(copies: SimpleQueue[Path], package: str) -> dict[str, Test]:
    """Run a package's tests, which must pass, and return what they take and call; once for each state of the code."""
    folder = copies.get()
    code = hashlib.sha256()
    for path in sorted(path for part in ("nngen", "tests") for path in (folder / part).rglob("*.py")):
        code.update(path.read_bytes())

    def run() -> dict[str, Test]:
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "tests.json"
            passed, output = run_tests(folder, package, Recorder(folder, file), {})
            if not passed:
                EVALUATION.error(f"tests/{package} fails without a mutant: {output}")
            note(f"tests/{package}: {time.monotonic() - begun:.0f} s")
            found: dict[str, Test] = json.loads(file.read_text())
        return found

    tests: dict[str, Test] = kept(cache_dir() / "mutants" / f"{package}-{code.hexdigest()[:16]}.json", run)
    copies.put(folder)
    return tests


def run_one(copies: SimpleQueue[Path], package: str, mutant: Mutant, tests: dict[str, Test]) -> dict[str, Any]:
    """Apply a mutant to one of the copies, run the tests there, and restore the copy."""
    folder = copies.get()
    file = folder / mutant.module
    content = file.read_bytes()
    try:
        file.write_bytes(mutant.apply(content))
        passed, output = run_tests(folder, package, Order(tests, mutant), tests)
    finally:
        file.write_bytes(content)
        copies.put(folder)
    return {"killed": not passed, "by": output}


def run_tests(folder: Path, package: str, plugin: Plugin, tests: dict[str, Test]) -> tuple[bool, str]:
    """Run a package's tests; return whether they pass, and the first that fails.

    The run begins as a copy of a process that has loaded the libraries, and all processes that it started end with it.

    Args:
        folder: Copy of the repository.
        package: Name of the package.
        plugin: Plugin of pytest.
        tests: Tests of an earlier run, which bound the time of this one; empty for the first run.
    """
    seconds = [seconds for seconds, _ in tests.values()]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(WARM)
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "output"
        test_limit_s = 20 + 5 * max(seconds, default=56)  # a test that takes longer hangs
        run = context.Process(target=_pytest, args=(folder, package, output, plugin, test_limit_s))
        run.start()
        run.join(3 * sum(seconds) + 60 if seconds else None)
        ended = not run.is_alive()
        with suppress(ProcessLookupError):
            os.killpg(run.pid or 0, signal.SIGKILL)
        run.join()
        lines = output.read_text(errors="replace").splitlines() if output.exists() else []
    failed = [line.partition(" - ")[0] for line in lines if line.startswith(("FAILED", "ERROR"))]
    return run.exitcode == 0, (failed or lines[-1:] or [""])[0] if ended else "time limit"


def _pytest(folder: Path, package: str, output: Path, plugin: Plugin, test_limit_s: float) -> None:
    """Run pytest in this process, in a session of its own, on a copy of the repository."""
    os.setsid()
    os.chdir(folder)
    for number in (1, 2):
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ |= {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    sys.dont_write_bytecode = False
    for name in [name for name in sys.modules if name.partition(".")[0] == "nngen"]:
        del sys.modules[name]  # that of the repository itself, which this script imports
    sys.path.insert(0, str(folder))
    options = ["-x", "-q", "-rfE", "-p", "no:cacheprovider", "-m", MARKS, f"--timeout={test_limit_s:.0f}"]
    code = pytest.main([*options, f"tests/{package}"], plugins=[plugin])
    sys.stdout.flush()
    os._exit(code)  # at once: threads of a test that failed may not end


def report(results: dict[str, list[dict[str, Any]]], missing: int) -> int:
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
    good = not missing and share >= WANTED and excused <= EXCUSABLE * total
    about = f"{total} mutants: {share:.1%} of those not excused are killed; {WANTED:.0%} are wanted."
    if missing:
        about += f" {missing} more are not run yet."
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
