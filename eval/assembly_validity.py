"""Validity of assembled quartets: random ones of LEMUR's 34 families, each built, run and trained for a step.

    python eval/assembly_validity.py                    # 300 at 3x32x32 and 100 at 3x64x64
    python eval/assembly_validity.py --quartets 100,40  # fewer of each
    python eval/assembly_validity.py --part 1/10        # every tenth of them: 40
    python eval/assembly_validity.py --part 1/10 --keep parts        # keep the part's results in a folder
    python eval/assembly_validity.py --merge parts --write           # merge the results of all parts

A quartet is valid if its file imports and builds; gives finite logits of the right shape in train and in eval mode;
one full ``learn`` leaves finite weights, with a gradient other than zero for every expert and for the gate; and every
expert has as many parameters as its family alone. Exit code 1 if a quartet is not, or is missing from a merged table.
``--write`` writes the table to ``eval/results/assembly_validity.md``.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from _page import Evaluation, note, table
from torch import nn

from nngen.assembly.assemble import Assembler
from nngen.checks.candidate_net import load_module
from nngen.families.catalogue import load_families
from nngen.families.hyperparameters import best_hyperparameters
from nngen.families.probe import profiles
from nngen.lemur.source import open_lemur
from nngen.plan import Plan
from nngen.seeds import derive
from nngen.space.samplers import draw
from nngen.types import Family, Interface, Shape

SHAPES = (Shape(3, 32, 32), Shape(3, 64, 64))
CLASSES = 10
BATCH = 4
PRM = {"lr": 1e-3, "momentum": 0.9, "batch": BATCH, "epoch": 1}
CPU = torch.device("cpu")
COLUMNS = ("shape", "quartets", "valid", "share", "families", "seconds")
EVALUATION = Evaluation(__file__, __doc__)

Pool = dict[str, tuple[Family, Interface]]


@dataclass(frozen=True)
class Result:
    """Result of one quartet; ``problem`` is empty for a valid one."""

    shape: str
    quartet: tuple[str, ...]
    problem: str
    seconds: float


def main(argv: Sequence[str] | None = None) -> int:
    """Validate the requested part, or merge stored results, and print a table; return 1 if a quartet failed."""
    arguments = _arguments(argv)
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore")
    results = merged(arguments.merge) if arguments.merge else prove_part(arguments)
    rows = [summary(str(shape), [result for result in results if result.shape == str(shape)]) for shape in SHAPES]
    problems = [f"{found.shape} {', '.join(found.quartet)}: {found.problem}" for found in results if found.problem]
    whole = bool(arguments.merge) or arguments.part == "1/1"
    if whole:
        problems += [
            f"{shape}: {row['quartets']} different quartets, {count} are wanted"
            for row, (shape, count) in zip(rows, _wanted(arguments.quartets), strict=True)
            if row["quartets"] != count
        ]
    arguments.write = arguments.write and whole
    return EVALUATION.finish(page(rows, problems), good=not problems)


def prove_part(arguments: argparse.Namespace) -> list[Result]:
    """Validate every N-th quartet; store each result as soon as it is known if requested."""
    part, parts = _parts(arguments.part)
    families = load_families(open_lemur())
    results: list[Result] = []
    kept = None
    if arguments.keep:
        arguments.keep.mkdir(parents=True, exist_ok=True)
        kept = (arguments.keep / f"{part:03d}-of-{parts:03d}.jsonl").open("w")
    for shape, count in _wanted(arguments.quartets):
        pool = usable(families, shape)
        # One seed per shape: the quartets of the larger shape are not a subset of the others.
        quartets = draw("random", list(pool), count, derive(arguments.seed, "validity", str(shape)))
        for quartet in quartets[part - 1 :: parts]:
            results.append(watched(prove, quartet, shape, pool))
            if kept is not None:
                kept.write(json.dumps(asdict(results[-1])) + "\n")
                kept.flush()
    if kept is not None:
        kept.close()
    return results


def merged(folder: Path) -> list[Result]:
    """Read the stored results of all parts; the last result of a quartet counts."""
    found: dict[tuple[str, tuple[str, ...]], Result] = {}
    for file in sorted(folder.glob("*.jsonl")):
        for line in file.read_text().splitlines():
            record = json.loads(line)
            result = Result(**{**record, "quartet": tuple(record["quartet"])})
            found[result.shape, result.quartet] = result
    return list(found.values())


def page(rows: Sequence[dict[str, Any]], problems: Sequence[str]) -> str:
    """Return the table as Markdown."""
    about = f"""torch {torch.__version__}, one thread. Valid: imports and builds; finite logits of
the right shape in train and in eval mode; one full `learn` leaves finite weights, with a gradient other than zero for
every expert and for the gate; every expert has as many parameters as its family alone. Quartets are drawn at random
from all C(34, 4) = 46,376; `families`: how many of the 34 took part. `--part I/N --keep parts` proves every N-th."""
    cells = [[row[column] for column in COLUMNS] for row in rows]
    wrong = [f"- {problem}" for problem in problems] or ["Every quartet is valid."]
    return EVALUATION.page("Validity of assembled quartets", about, table(COLUMNS, cells, right=COLUMNS[1:]), wrong)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    found = EVALUATION.arguments(
        argv,
        part=("1/1", "I/N: every N-th quartet, from the I-th"),
        quartets=("300,100", "quartets at each shape"),
        seed=0,
        threads=1,
        keep=(Path, "folder to keep the results of this part in, one line of JSON per quartet"),
        merge=(Path, "folder of kept results: prove nothing, join them"),
    )
    part, parts = _parts(found.part)
    if not 1 <= part <= parts:
        EVALUATION.error("--part is I/N with I from 1 to N")
    return found


def _wanted(text: str) -> list[tuple[Shape, int]]:
    return list(zip(SHAPES, map(int, text.split(",")), strict=True))


def _parts(text: str) -> tuple[int, int]:
    part, parts = map(int, text.split("/"))
    return part, parts


def usable(families: dict[str, Family], shape: Shape) -> Pool:
    """Return all families with their interfaces; each of LEMUR's 34 must be usable."""
    measured = profiles(list(families.values()), shape)
    pool: Pool = {}
    for name, family in families.items():
        interface = measured[name].interface
        if interface is None or not measured[name].usable:
            raise SystemExit(f"{name} cannot be used at {shape}: {measured[name].reason}")
        pool[name] = (family, interface)
    return pool


def watched(check: Callable[..., None], quartet: tuple[str, ...], shape: Shape, pool: Any) -> Result:
    """Validate one quartet; any exception becomes its ``problem``."""
    began, problem = time.perf_counter(), ""
    try:
        check(quartet, shape, pool)
    except Exception as error:  # the quartet's own code ran: anything may come out of it
        place = traceback.extract_tb(error.__traceback__)[-1]
        problem = f"{type(error).__name__}: {error} ({place.name}, line {place.lineno})"
    gc.collect()
    result = Result(str(shape), quartet, problem, round(time.perf_counter() - began, 2))
    note(f"{result.shape} {', '.join(quartet)}: {problem or 'valid'} ({result.seconds:.1f} s)")
    return result


assembler = Assembler()


def prove(quartet: Sequence[str], shape: Shape, pool: Pool) -> None:
    """Raise AssertionError, or the exception of the file, unless the quartet is valid."""
    candidate = assembler.assemble(Plan(experts=tuple(quartet)), [pool[name] for name in quartet])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{candidate.id}.py"
        path.write_text(candidate.source)
        module: Any = load_module(path)
        torch.manual_seed(0)
        size = (shape.channels, shape.height, shape.width)
        net = module.Net((BATCH, *size), (CLASSES,), dict(PRM), CPU)
        images, labels = torch.randn(BATCH, *size), torch.arange(BATCH) % CLASSES
        for place, name in enumerate(quartet):
            alone = parameters_alone(pool[name][0], (shape.channels, *net.adapters[place].size))
            own = count(net.experts[place])
            assert own == alone, f"{name} has {own:,} parameters in the mixture, {alone:,} alone"
        accuracy, loss = exercise(net, quartet, images, labels)
        assert 0 <= accuracy <= 1 and loss == loss, f"learn returned {accuracy}, {loss}"


def exercise(net: Any, quartet: Sequence[str], images: torch.Tensor, labels: torch.Tensor) -> Any:
    """Run a mixture in both modes and train it for one batch; AssertionError unless all its parts get a gradient."""
    for mode in (True, False):
        with torch.no_grad():
            logits = net.train(mode)(images)
        assert logits.shape == (len(images), CLASSES), f"logits are {tuple(logits.shape)}"
        assert bool(torch.isfinite(logits).all()), "logits are not finite"
    net.train_setup(dict(PRM))
    touched = watch(net)
    learned = net.learn([(images, labels)])
    missing = {"gate", *quartet} - {name if name == "gate" else quartet[int(name)] for name in touched}
    assert not missing, f"no gradient in {', '.join(sorted(missing))}"
    assert all(bool(torch.isfinite(p).all()) for p in net.parameters()), "weights are not finite"
    return learned


def watch(net: Any) -> set[str]:
    """Collect the parts with a nonzero gradient."""
    touched: set[str] = set()
    for name, part in [("gate", net.gate), *((str(place), expert) for place, expert in enumerate(net.experts))]:
        for parameter in part.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(
                    lambda p, name=name: touched.add(name) if bool(p.grad.any()) else None
                )
    return touched


_alone: dict[tuple[str, tuple[int, ...]], int] = {}


def parameters_alone(family: Family, size: tuple[int, ...]) -> int:
    """Count a family's parameters, built by its own source."""
    key = (family.name, size)
    if key not in _alone:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "family.py"
            path.write_text(family.source)
            module: Any = load_module(path)
            _alone[key] = count(module.Net((BATCH, *size), (CLASSES,), best_hyperparameters(family), CPU))
    return _alone[key]


def count(net: nn.Module) -> int:
    """Count trainable and other parameters."""
    return sum(parameter.numel() for parameter in net.parameters())


def summary(shape: str, results: Sequence[Result]) -> dict[str, Any]:
    """Return one row of the table."""
    valid = sum(not result.problem for result in results)
    return {
        "shape": shape,
        "quartets": len(results),
        "valid": valid,
        "share": valid / max(len(results), 1),
        "families": len({name for result in results for name in result.quartet}),
        "seconds": round(sum(result.seconds for result in results)),
    }


if __name__ == "__main__":
    sys.exit(main())
