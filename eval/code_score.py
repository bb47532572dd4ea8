"""LEMUR's own code score of assembled files, and the messages that take the points.

    python eval/code_score.py                        # 40 random quartets of LEMUR's 34 families
    python eval/code_score.py --quartets 40 --run    # with LEMUR's dynamic run at 224 px: minutes per file
    python eval/code_score.py --write                # write the table to eval/results/code_score.md

The score is that of ``ab/nn/util/CodeEval.py`` (nn-dataset 2.1.2), over 100: minus 5 for each of pylint's errors, 2 for
each warning, 1 for each convention or refactoring message, with the options given there; minus 1 for each of radon's
blocks with a complexity above 10; minus 10 if ``Net`` cannot be built and trained on two batches of eight images at
224 px. Without ``--run`` the last part counts as passed. All files are checked by one pylint process, which reads
PyTorch once; its check for duplicate code between files (R0801) is disabled, because LEMUR checks single files.
Requires pylint and radon. No check of nngen depends on the score (docs/design/0016).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from _page import Evaluation, table

from nngen.assembly.assemble import Assembler
from nngen.families.catalogue import load_families
from nngen.families.probe import profiles
from nngen.lemur.source import open_lemur
from nngen.plan import Plan
from nngen.seeds import derive
from nngen.space.samplers import draw
from nngen.types import Shape

SHAPE = Shape(3, 32, 32)
MARK = 0.80
WEIGHTS = {"error": 5, "warning": 2, "convention": 1, "refactor": 1}
PYLINT = ("--output-format=json", "--max-line-length=120", "--disable=C0116,C0115,C0114,C0304,C0303,C0305,C0325,R0801")
COMPLEX = 10
RUN = """
import importlib.util, sys, torch
spec = importlib.util.spec_from_file_location("model_module", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
prm = {"lr": 0.01, "momentum": 0.9, "dropout": 0.5}
net = module.Net((1, 3, 224, 224), (10,), prm, torch.device("cpu"))
net.train_setup(prm)
net.learn([(torch.randn(8, 3, 224, 224), torch.randint(0, 10, (8,)))] * 2)
"""
EVALUATION = Evaluation(__file__, __doc__)


def main(argv: Sequence[str] | None = None) -> int:
    """Score every file and print a table."""
    asked = EVALUATION.arguments(argv, quartets=40, seed=0, run=(False, "run each file as LEMUR does"))
    with tempfile.TemporaryDirectory() as folder:
        paths = assemble(Path(folder), asked.quartets, asked.seed)
        lost = deductions(paths, run=asked.run)
    scores = [max(100 - taken.total(), 0) / 100 for taken in lost]
    points = sum(lost, Counter[str]())
    median = statistics.median(scores)
    found = (
        f"{len(scores)} files: median {median:.2f}, lowest {min(scores):.2f}, highest {max(scores):.2f}; "
        f"{sum(score > MARK for score in scores)} above {MARK:.2f}; "
        f"LEMUR's dynamic run {'counted' if asked.run else 'taken as passed'}."
    )
    rows = [(name, f"{number / len(scores):.2f}") for name, number in points.most_common()]
    shown = table(("taken by", "points a file"), (row for row in rows if row[1] != "0.00"), right=("points a file",))
    about = f"pylint {metadata.version('pylint')}. No file asks pylint to be silent."
    text = EVALUATION.page("LEMUR's code score of assembled files", about, found, shown)
    return EVALUATION.finish(text, good=True)


def assemble(folder: Path, count: int, seed: int) -> list[Path]:
    """Write random quartets of all families as LEMUR names them."""
    families = load_families(open_lemur())
    measured = profiles(list(families.values()), SHAPE)
    assembler, paths = Assembler(), []
    for quartet in draw("random", list(families), count, derive(seed, "code score")):
        experts = []
        for name in quartet:
            interface = measured[name].interface
            assert interface is not None, measured[name].reason
            experts.append((families[name], interface))
        candidate = assembler.assemble(Plan(experts=quartet), experts)
        paths.append(folder / f"{candidate.id}.py")
        paths[-1].write_text(candidate.source)
    return paths


def deductions(paths: Sequence[Path], *, run: bool) -> list[Counter[str]]:
    """Return the points that each file loses, by message."""
    from radon.complexity import cc_visit

    command = [sys.executable, "-m", "pylint", *map(str, paths), *PYLINT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    messages: list[dict[str, Any]] = json.loads(done.stdout)
    lost = {path.name: Counter[str]() for path in paths}
    for message in messages:
        weight = WEIGHTS.get(message["type"], 0)
        lost[Path(message["path"]).name][f"pylint {message['symbol']} ({message['message-id']})"] += weight
    for path in paths:
        lost[path.name]["radon complexity"] += sum(block.complexity > COMPLEX for block in cc_visit(path.read_text()))
        if run:
            trial = subprocess.run([sys.executable, "-c", RUN, str(path)], capture_output=True, check=False)
            lost[path.name]["dynamic run"] += 10 if trial.returncode else 0
    return list(lost.values())


if __name__ == "__main__":
    sys.exit(main())
