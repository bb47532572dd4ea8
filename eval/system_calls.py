"""System calls of workers under the 34 families of LEMUR, beside the list of the filter.

    python eval/system_calls.py --write

Every family is checked in a worker, that is built, trained for a step and evaluated, at the accepted size nearest to
3x32x32: with the filter (level ``process``; the first family at level ``sandbox`` too, where ``import torch`` itself
runs under the filter) and without (level ``none``). ``strace`` records the calls of the processes that have installed
the filter. Exit code 1 if a verdict depends on the level.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from _page import Evaluation, kept, note, table

from nngen.families.catalogue import load_families
from nngen.families.hyperparameters import best_hyperparameters
from nngen.families.probe import profiles
from nngen.isolation import Isolation
from nngen.isolation.seccomp import ALLOWED
from nngen.lemur.source import open_lemur
from nngen.training import CheckJob, LocalEngine
from nngen.types import Candidate, Shape

SHAPE = Shape(3, 32, 32)
CALL = re.compile(r"(\d+) +(?:<\.\.\. )?(\w+)(\(| resumed>)(.*)")
FORKS = ("clone", "clone3", "fork", "vfork")
EVALUATION = Evaluation(__file__, __doc__)


def main(argv: Sequence[str] | None = None) -> int:
    """Check all families under strace and print the table of calls."""
    given = EVALUATION.arguments(argv, verdicts=(str, "with a file: write the verdicts there, and do nothing else"))
    if given.verdicts:
        kept(Path(given.verdicts), lambda: dict(verdicts()))
        return 0
    if shutil.which("strace") is None:
        EVALUATION.error("strace is not installed: apt-get install strace")
    with tempfile.TemporaryDirectory() as folder:
        log, results = Path(folder) / "log", Path(folder) / "verdicts.json"
        traced = ["strace", "-f", "-qq", "-e", "signal=none", "-s", "0", "-o", str(log)]
        subprocess.run([*traced, sys.executable, __file__, "--verdicts", str(results)], check=True)
        with log.open(errors="replace") as lines:
            counts = filtered_calls(lines)
        found = kept(results, dict)
    allowed = {"clone", "mmap", *(name for name, *_ in ALLOWED)}
    refused = {name: count for name, count in counts.items() if name not in allowed}
    unlike = sorted(name for name, outcomes in found.items() if len(set(outcomes.values())) > 1)
    rows = [(f"`{name}`", count) for name, count in sorted(refused.items(), key=lambda pair: -pair[1])]
    used = ", ".join(f"`{name}`" for name in sorted(allowed & set(counts)))
    page = EVALUATION.page(
        "System calls of workers",
        f"{len(found)} families, {sum(counts.values()):,} calls under the filter.",
        f"Families whose verdict depends on the filter: {', '.join(unlike) or 'none'}.",
        f"Allowed and made ({len(allowed & set(counts))} of {len(allowed)}): {used}.",
        f"Made, and answered as if the kernel did not have them:{'' if rows else ' none.'}",
        table(("call", "times"), rows, right=("times",)) if rows else "",
    )
    return EVALUATION.finish(page, good=not unlike)


def verdicts() -> Iterator[tuple[str, dict[str, str]]]:
    """Check every family with and without the filter; yield its name, and the outcome by level."""
    families = load_families(open_lemur())
    measured = profiles(list(families.values()), SHAPE)
    with LocalEngine() as engine:
        for number, (name, family) in enumerate(families.items()):
            interface = measured[name].interface
            assert interface is not None, measured[name].reason
            candidate = Candidate(id="0" * 32, source=family.source, canonical="")
            size = interface.adapter(SHAPE).size or (SHAPE.height, SHAPE.width)
            levels = [Isolation.NONE, Isolation.PROCESS, *([] if number else [Isolation.SANDBOX])]
            outcomes = {}
            for level in levels:
                job = CheckJob(
                    candidate=candidate,
                    shape=Shape(3, *size),
                    hyperparameters=best_hyperparameters(family),
                    time_limit_s=600,
                    memory_mib=8192,
                    isolation=level,
                )
                verdict = engine.check(job)
                outcomes[str(level)] = f"{verdict.outcome} {verdict.message}".strip()
            note(f"{name}: {outcomes}")
            yield name, outcomes


def filtered_calls(lines: Iterable[str]) -> Counter[str]:
    """Count the calls in a log of strace by processes under the filter.

    Args:
        lines: Lines of ``strace -f -o``: process number, call, arguments and result; a call that another process
            interrupts takes two lines.
    """
    counts: Counter[str] = Counter()
    filtered: set[str] = set()
    waiting: dict[str, list[str]] = {}
    for line in lines:
        match = CALL.match(line)
        if match is None:
            continue
        process, name, kind, rest = match.groups()
        result = re.search(r"= (\d+)", rest)
        if name in FORKS and process in filtered and result:
            # A child may have been seen before its parent's call returns.
            filtered.add(result[1])
            counts.update(waiting.pop(result[1], []))
        if kind == "(":
            if process in filtered:
                counts[name] += 1
            else:
                waiting.setdefault(process, []).append(name)
        if name == "seccomp" and "SECCOMP_SET_MODE_FILTER" in rest:
            filtered.add(process)
            waiting.pop(process, None)
    return counts


if __name__ == "__main__":
    raise SystemExit(main())
