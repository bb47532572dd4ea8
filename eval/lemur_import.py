"""LEMUR's 10,482 models and their results into an archive: how long, how much memory, how many twins.

    python eval/lemur_import.py [--write]

Runs ``nngen lemur import`` on two processors, in a folder that is gone afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

OUT = Path(__file__).parent / "results" / "lemur_import.md"


def main() -> None:
    """Import twice, watch the first, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help=f"write {OUT.name} beside the other results")
    asked = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "nngen.db"
        first, seconds, mib = watched(archive)
        cpu_s = processor_seconds()
        again, seconds_again, _ = watched(archive)
        size_mib = archive.stat().st_size / 2**20
    load = os.getloadavg()[0]
    lines = [
        "# Importing LEMUR",
        "",
        "`python eval/lemur_import.py --write`: the wheel of nn-dataset 2.1.2, two processors.",
        "",
        "| what | result |",
        "|---|---|",
        f"| models | {first['models']:,} |",
        f"| results (one per model, data set, epoch and hyperparameters) | {first['trials']:,} |",
        f"| wall time | {seconds:.0f} s (load of the machine by then {load:.1f}) |",
        f"| processor time, all processes | {cpu_s:.0f} s |",
        f"| peak resident memory, all processes | {mib:.0f} MiB |",
        f"| archive | {size_mib:.0f} MiB |",
        f"| once more: new models, new results, wall time | {again['new_models']}, {again['new_trials']},"
        f" {seconds_again:.0f} s |",
        f"| sources that do not parse | {first['unreadable']} |",
        "",
        "## Twins",
        "",
        "| same | groups | models in them |",
        "|---|---|---|",
    ]
    for what, groups in first["twins"].items():
        lines.append(f"| {what.replace('_', ' ')} | {len(groups):,} | {sum(map(len, groups)):,} |")
    lines += ["", "Equal but for white space:", ""]
    lines += [f"- {', '.join(group)}" for group in first["twins"]["white_space"]]
    text = "\n".join(lines) + "\n"
    print(text)
    if asked.write:
        OUT.write_text(text)


def watched(archive: Path) -> tuple[dict[str, Any], float, float]:
    """Run the command; give its answer, its seconds, and the peak of its processes' memory together in MiB."""
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
    """Sum the resident memory of a process and its children, in bytes; shared pages count several times."""
    total = 0
    try:
        for one in (process, *process.children(recursive=True)):
            total += one.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total


def processor_seconds() -> float:
    """Give the processor time of all children so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
