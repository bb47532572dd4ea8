"""Time, memory and near-duplicates of an import of LEMUR's 10,482 models and their results into an archive.

    python eval/lemur_import.py [--write]

Runs ``nngen lemur import`` on two CPUs, in a temporary folder.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from _page import Evaluation, table

EVALUATION = Evaluation(__file__, __doc__)


def main(argv: Sequence[str] | None = None) -> int:
    """Import twice, measure the first import, and write the tables."""
    EVALUATION.arguments(argv)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "nngen.db"
        first, seconds, mib = watched(archive)
        cpu_s = processor_seconds()
        again, seconds_again, _ = watched(archive)
        size_mib = archive.stat().st_size / 2**20
    repeated = f"{again['new_models']}, {again['new_trials']}, {seconds_again:.0f} s"
    rows = [
        ("models", f"{first['models']:,}"),
        ("results (one per model, data set, epoch and hyperparameters)", f"{first['trials']:,}"),
        ("wall time", f"{seconds:.0f} s (load of the machine by then {os.getloadavg()[0]:.1f})"),
        ("processor time, all processes", f"{cpu_s:.0f} s"),
        ("peak resident memory, all processes", f"{mib:.0f} MiB"),
        ("archive", f"{size_mib:.0f} MiB"),
        ("once more: new models, new results, wall time", repeated),
        ("sources that do not parse", first["unreadable"]),
    ]
    twins = [
        (kind.replace("_", " "), f"{len(groups):,}", f"{sum(map(len, groups)):,}")
        for kind, groups in first["twins"].items()
    ]
    text = EVALUATION.page(
        "Importing LEMUR",
        "The wheel of nn-dataset 2.1.2, two processors.",
        table(("what", "result"), rows),
        "## Twins",
        table(("same", "groups", "models in them"), twins),
        "Equal but for white space:",
        [f"- {', '.join(group)}" for group in first["twins"]["white_space"]],
    )
    return EVALUATION.finish(text, good=True)


def watched(archive: Path) -> tuple[dict[str, Any], float, float]:
    """Run the command; return its output, its seconds, and the peak memory of its processes in MiB."""
    begin, peak = time.monotonic(), 0
    command = [sys.executable, "-m", "nngen", "lemur", "import", "--archive", str(archive), "--json"]
    with tempfile.TemporaryFile("w+") as out, subprocess.Popen(command, stdout=out) as process:
        whole = psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, resident(whole))
            time.sleep(0.1)
        if process.returncode:
            raise SystemExit(process.returncode)
        out.seek(0)
        return json.load(out), time.monotonic() - begin, peak / 2**20


def resident(process: psutil.Process) -> int:
    """Return the resident memory of a process and its children in bytes; shared pages count several times."""
    total = 0
    try:
        for one in (process, *process.children(recursive=True)):
            total += one.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total


def processor_seconds() -> float:
    """Return the CPU time of all children so far, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
