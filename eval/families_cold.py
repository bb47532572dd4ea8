"""Time of ``nngen families`` with an empty cache, and a sample of the shipped profiles measured anew.

    python eval/families_cold.py [--runs 3] [--sample 6] [--seed 0] [--write]
    python eval/families_cold.py --profiles

The profiles of LEMUR's base families at the shapes of ``nngen.families.shipped.SHAPES`` ship with the package. With
``--profiles`` they are read from this user's cache, or measured where they are missing there, and written to the file
that ships; this takes minutes. Otherwise the script runs ``nngen families`` with a cache that contains the wheel and
nothing else, and measures a random sample of families at all of the shapes, in a cache of their own and without the
shipped profiles. Each run must end within 3 seconds and print every family, and each measurement must equal the shipped
profile, otherwise the exit code is 1. ``--write`` writes ``eval/results/families_cold.md``.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

from _page import Evaluation, note, table

from nngen.families import probe, shipped
from nngen.families.catalogue import load_families
from nngen.families.hyperparameters import best_hyperparameters
from nngen.files import cache_dir
from nngen.lemur.fetch import WHEEL, cached_wheel
from nngen.lemur.wheel import WheelLemur
from nngen.types import Family, Shape

MOST_S = 3.0
CLASSES = 10
EVALUATION = Evaluation(__file__, __doc__)


def measured(families: Sequence[Family], shape: str) -> dict[str, dict[str, object]]:
    """Return the profiles of families at a shape, from the cache or measured, without the shipped ones."""

    def report(done: int, total: int) -> None:
        note(f"{shape}: {done} of {total}")

    with patch.object(shipped, "profile", lambda *_: None), patch.object(shipped, "same_channels", lambda *_: None):
        found = probe.profiles(families, Shape.parse(shape), classes=CLASSES, progress=report)
    return {
        name: {
            "interface": one.interface and asdict(one.interface),
            "reason": one.reason,
            "parameters": one.parameters.get(shape),
            "notes": list(one.notes),
        }
        for name, one in found.items()
    }


def write_profiles(families: Sequence[Family]) -> None:
    """Write the file that ships."""
    rows: dict[str, dict[str, Any]] = {
        one.fingerprint: {"name": one.name, "prm": best_hyperparameters(one), "shapes": {}}
        for one in sorted(families, key=lambda one: one.name)
    }
    for shape in shipped.SHAPES:
        for name, row in measured(families, shape).items():
            fingerprint = next(one.fingerprint for one in families if one.name == name)
            # What a limit of time or memory ended is measured by each user: another machine may do it.
            if row["interface"] is not None and (row["parameters"] is not None or not row["reason"]):
                rows[fingerprint]["shapes"][shape] = row
        _write(rows)  # after each shape, so that little is lost where it is stopped


def _write(rows: Mapping[str, object]) -> None:
    number, torch = probe.versions()
    head = {"version": number, "torch": torch, "classes": CLASSES}
    lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(row, sort_keys=True)}" for key, row in rows.items())
    text = f'{json.dumps(head)[:-1]}, "families": {{\n{lines}\n}}}}\n'
    shipped.FILE.write_text(text, encoding="utf-8")


def cold_run(folder: Path) -> tuple[float, int]:
    """Run the command with a cache that contains the wheel alone; return its seconds and the families printed."""
    (folder / "lemur").mkdir(parents=True)
    (folder / "lemur" / WHEEL).symlink_to(cached_wheel().resolve())
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "nngen", "families", "--json"],
        env=os.environ | {"NNGEN_CACHE": str(folder)},
        check=True,
        capture_output=True,
    )
    return time.perf_counter() - started, len(json.loads(done.stdout))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the evaluation, or write the profiles."""
    given = EVALUATION.arguments(argv, runs=3, sample=6, seed=0, profiles=False)
    families = list(load_families(WheelLemur(cached_wheel())).values())
    if given.profiles:
        write_profiles(families)
        return 0
    with tempfile.TemporaryDirectory() as place:
        runs = [cold_run(Path(place) / f"run-{number}") for number in range(given.runs)]
    chosen = random.Random(given.seed).sample(families, given.sample)
    rows, same = [], True
    with tempfile.TemporaryDirectory() as place, patch.dict(os.environ, NNGEN_CACHE=place):
        assert cache_dir() == Path(place)
        for shape in shipped.SHAPES:
            for name, found in measured(chosen, shape).items():
                family = next(one for one in chosen if one.name == name)
                kept = _shipped(family, shape)
                if kept is not None:
                    same = same and kept == json.loads(json.dumps(found))
                    rows.append((name, shape, "yes" if kept == json.loads(json.dumps(found)) else "NO"))
    good = same and all(seconds <= MOST_S and count == len(families) for seconds, count in runs)
    text = EVALUATION.page(
        "Families with an empty cache",
        f"`nngen families` printed {runs[0][1]} families; each run at most {MOST_S:g} s: {'yes' if good else 'NO'}.",
        table(("run", "seconds"), [(number, f"{seconds:.2f}") for number, (seconds, _) in enumerate(runs, 1)]),
        table(("family", "shape", "as shipped"), rows),
    )
    return EVALUATION.finish(text, good=good)


def _shipped(family: Family, shape: str) -> dict[str, object] | None:
    return shipped.profile(
        probe.versions(), family.fingerprint, best_hyperparameters(family), CLASSES, Shape.parse(shape)
    )


if __name__ == "__main__":
    raise SystemExit(main())
