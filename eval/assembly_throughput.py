"""Valid candidates per second, compared with the published generator on the same quartets in one run.

    python eval/assembly_throughput.py --peer nn_gpt-1.0.6-py3-none-any.whl --quartets 60

Without ``--peer`` the wheel is downloaded by ``pip download nn-gpt==1.0.6 --no-deps``. Only
``ab/gpt/brute/moe4/AlterHeteroMoE4.py`` of it is run, with stubs for its three imports (``ab.nn.api``,
``ab.nn.util.Util.uuid4``, ``ab.gpt.util.Const``); both generators read the same sources of the families.

Both turn quartets into working files on the same number of cores: the published generator runs PyTorch with
``--threads`` threads, nngen runs as many processes. For each quartet the published generator runs its loop: collision
check, assembly, ``compile``, a forward pass at 256 px (its only test that a file works), hash. nngen runs assembly,
``compile`` and both ids; its files are valid by construction.

The files of both are tested alike, outside of the measured time: a file counts if it runs in train and in eval mode and
trains for a batch, with a gradient for the gate and every expert (``assembly_validity.exercise``). Files of nngen are
tested at 3x32x32; files of the published generator at its own size of 256 px, and only those that it reports as valid;
their number has a row of its own. nngen is timed before and after the published generator, and the slower time counts:
on the same quartets once, none of them cached, and on 600 others, after the families are transformed and hashed and the
shared templates are loaded. Python's ``compile`` takes nine tenths of nngen's time. Exit code 1 if nngen is below 500
times the rate of the published generator, or if one of its files does not work.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import multiprocessing
import re
import subprocess
import sys
import tempfile
import time
import types
import zipfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import assembly_validity
import torch
from _page import Evaluation, table

from nngen.assembly.assemble import Assembler
from nngen.assembly.render import read_block
from nngen.checks.candidate_net import load_module
from nngen.families.catalogue import load_families
from nngen.families.family_function import function_name
from nngen.lemur.source import open_lemur
from nngen.plan import Plan
from nngen.space.pool import EXPERTS
from nngen.space.samplers import draw
from nngen.types import Family, Shape

MEMBER = "ab/gpt/brute/moe4/AlterHeteroMoE4.py"
SHAPE = Shape(3, 32, 32)
WANTED = 500
OTHERS = 600
COLUMNS = ("generator", "quartets", "valid", "seconds", "valid per second")
EVALUATION = Evaluation(__file__, __doc__)

Quartets = Sequence[tuple[str, ...]]


def main(argv: Sequence[str] | None = None) -> int:
    """Time both generators and print a table; return 1 if nngen is below 500 times the peer's rate or a file fails."""
    arguments = EVALUATION.arguments(argv, peer=(Path, "the wheel of nn-gpt 1.0.6"), quartets=60, seed=0, threads=2)
    torch.set_num_threads(arguments.threads)
    families = load_families(open_lemur())
    drawn = draw("random", list(families), arguments.quartets + OTHERS, arguments.seed)
    quartets, others = drawn[: arguments.quartets], drawn[arguments.quartets :]
    pool = assembly_validity.usable(families, SHAPE)
    read_block.cache_clear()
    cold = time_ours(quartets, pool, Assembler())
    before = time_all(quartets, others, pool, arguments.threads)
    peer = load_peer(arguments.peer)
    theirs, fates, files = time_theirs(peer, quartets, families)
    plain = time_theirs_without_probe(peer, quartets, families)
    after = time_all(quartets, others, pool, arguments.threads)
    same, rest, alone = (min(pair, key=lambda row: row["per_second"]) for pair in zip(before, after, strict=True))
    work = [not judged(peer, quartet, source).problem for quartet, source in files.items()]
    failed = [
        quartet
        for quartet in quartets
        if assembly_validity.watched(assembly_validity.prove, quartet, SHAPE, pool).problem
    ]
    counted = {**theirs, "valid": sum(work), "per_second": sum(work) / theirs["seconds"]}
    rows = [
        {"generator": "nn-gpt 1.0.6, files that work", **counted},
        {"generator": "nn-gpt 1.0.6, files that it calls valid", **theirs},
        {"generator": "nn-gpt 1.0.6, files that compile, untested", **plain},
        {"generator": "nngen, families transformed within, one process", **cold},
        {"generator": f"nngen, {OTHERS} others, one process", **alone},
        {"generator": f"nngen, {OTHERS} others, {arguments.threads} processes", **rest},
        {"generator": f"nngen, the same quartets, {arguments.threads} processes", **same},
    ]
    slower = min(same["per_second"], rest["per_second"])
    ratio, lax = (slower / max(row["per_second"], 1e-9) for row in (counted, theirs))
    notes = [
        f"Theirs, by its own test: {', '.join(f'{reason} {number}' for reason, number in fates.most_common())}.",
        f"Ours that work: {len(quartets) - len(failed)} of {len(quartets)}.",
        f"Ours is {ratio:,.0f} times as fast as theirs in files that work ({WANTED} are wanted), "
        f"{lax:,.0f} times if what theirs calls valid counts.",
        f"{arguments.threads} threads or processes, seed {arguments.seed}, torch {torch.__version__}, "
        f"Python {sys.version.partition(' [')[0]}.",
    ]
    return EVALUATION.finish(page(rows, notes), good=ratio >= WANTED and not failed)


def page(rows: Sequence[dict[str, Any]], notes: Sequence[str]) -> str:
    """Return the table and its notes as Markdown."""
    about = """Quartets in, files out that work, on two cores: theirs through PyTorch's threads, ours as processes.
Theirs assembles, compiles, runs a forward pass at 256 px and hashes: without that pass it cannot tell which of
its files work. Ours assembles, compiles and hashes twice; its files work by construction. A file works if it
runs in both modes and trains for a batch, with a gradient for the gate and every expert: found outside of
the clock, for theirs at 256 px. Ours is timed before and after theirs; the slower time counts. What is the
same in all files, the families' code and the frame, is made once, before; the fourth row transforms the
families within."""
    cells = [
        (row["generator"], row["quartets"], row["valid"], f"{row['seconds']:.3f}", f"{row['per_second']:.3f}")
        for row in rows
    ]
    lines = [f"- {line}" for line in notes]
    return EVALUATION.page("Valid candidates per second", about, table(COLUMNS, cells, right=COLUMNS[1:]), lines)


def time_all(
    quartets: Quartets, others: Quartets, pool: assembly_validity.Pool, processes: int
) -> tuple[dict[str, Any], ...]:
    """Time nngen with transformed families: the same quartets, others, and others in this process alone."""
    assembler = Assembler()
    for family, _ in pool.values():
        # Its statements are hashed with the first file that has it, once in each process.
        read_block(assembler.function(family).text(function_name(family.name)))
    alone = time_ours(others, pool, assembler)
    # Forked processes inherit the families of this process; none of them uses PyTorch.
    with ProcessPoolExecutor(processes, multiprocessing.get_context("fork"), _keep, (pool, assembler)) as workers:
        rest, same = (_time_shared(workers, given, processes) for given in (others, quartets))
    return same, rest, alone


_kept: list[Any] = []


def _keep(pool: assembly_validity.Pool, assembler: Assembler) -> None:
    _kept[:] = [pool, assembler]


def _share(quartets: Quartets) -> int:
    return int(time_ours(quartets, *_kept)["valid"])


def _time_shared(workers: ProcessPoolExecutor, quartets: Quartets, processes: int) -> dict[str, Any]:
    shares = [quartets[place::processes] for place in range(processes)]
    began = time.perf_counter()
    valid = sum(workers.map(_share, shares))
    return _row(len(quartets), valid, time.perf_counter() - began)


def time_ours(quartets: Quartets, pool: assembly_validity.Pool, assembler: Assembler) -> dict[str, Any]:
    """Assemble and compile every quartet; templates, and what the assembler knows, are cached from before."""
    families = sorted(pool)[-EXPERTS:]
    assembler.assemble(Plan(experts=tuple(families)), [pool[name] for name in families])
    began = time.perf_counter()
    for quartet in quartets:
        candidate = assembler.assemble(Plan(experts=quartet), [pool[name] for name in quartet])
        compile(candidate.source, f"{candidate.id}.py", "exec")
    return _row(len(quartets), len(quartets), time.perf_counter() - began)


def time_theirs(
    peer: Any, quartets: Quartets, families: dict[str, Family]
) -> tuple[dict[str, Any], Counter[str], dict[tuple[str, ...], str]]:
    """Run the loop of ``alter`` for every quartet; count the outcomes, keep the files that it reports as valid."""
    fates: Counter[str] = Counter()
    files: dict[tuple[str, ...], str] = {}
    began = time.perf_counter()
    for quartet in quartets:
        found, code = fate(peer, quartet, [families[name].source for name in quartet])
        fates[found] += 1
        if found == "valid":
            files[quartet] = code
    return _row(len(quartets), fates["valid"], time.perf_counter() - began), fates, files


def fate(peer: Any, quartet: Sequence[str], sources: list[str]) -> tuple[str, str]:
    """Run one iteration of the published loop; return the quartet's outcome and its file."""
    if peer._has_any_class_collision(sources):
        return "class collision", ""
    with contextlib.redirect_stdout(io.StringIO()):
        code = peer.assemble_moe4(list(quartet), sources)
        try:
            compile(code, "MoE4.py", "exec")
        except SyntaxError:
            return "syntax error", code
        passed, _ = peer._forward_pass_ok(code)
    peer.uuid4(code)
    return ("valid" if passed else "forward pass failed"), code


def judged(peer: Any, quartet: tuple[str, ...], source: str) -> assembly_validity.Result:
    """Test a file of the published generator like ours, at the generator's own image size."""

    def check(quartet: Sequence[str], shape: Shape, source: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "MoE4.py"
            path.write_text(source)
            module: Any = load_module(path)
            torch.manual_seed(0)
            prm = {**assembly_validity.PRM, "dropout": 0.2}  # as in its own test
            net = module.Net(peer._PROBE_IN_SHAPE, peer._PROBE_OUT_SHAPE, prm, torch.device("cpu"))
            assembly_validity.exercise(net, quartet, torch.randn(4, *peer._PROBE_IN_SHAPE[1:]), torch.arange(4))

    return assembly_validity.watched(check, quartet, Shape(*peer._PROBE_IN_SHAPE[1:]), source)


def time_theirs_without_probe(peer: Any, quartets: Quartets, families: dict[str, Family]) -> dict[str, Any]:
    """Time assembly and ``compile`` alone; without a test of the results, every file that compiles counts."""
    good, began = 0, time.perf_counter()
    for quartet in quartets:
        sources = [families[name].source for name in quartet]
        if peer._has_any_class_collision(sources):
            continue
        try:
            compile(peer.assemble_moe4(list(quartet), sources), "MoE4.py", "exec")
        except SyntaxError:
            continue
        good += 1
    return _row(len(quartets), good, time.perf_counter() - began)


def _row(quartets: int, valid: int, seconds: float) -> dict[str, Any]:
    return {"quartets": quartets, "valid": valid, "seconds": round(seconds, 3), "per_second": valid / seconds}


def load_peer(wheel: Path | None) -> Any:
    """Import the published generator from its wheel, with stubs for its three imports."""
    with tempfile.TemporaryDirectory() as folder:
        if wheel is None:
            command = [sys.executable, "-m", "pip", "download", "-q", "nn-gpt==1.0.6", "--no-deps", "-d", folder]
            subprocess.run(command, check=True)
            (wheel,) = Path(folder).glob("*.whl")
        path = Path(folder) / "AlterHeteroMoE4.py"
        path.write_bytes(zipfile.ZipFile(wheel).read(MEMBER))
        for name in ("ab", "ab.nn", "ab.nn.util", "ab.gpt", "ab.gpt.util"):
            sys.modules[name] = types.ModuleType(name)
        api, util, const = (types.ModuleType(name) for name in ("ab.nn.api", "ab.nn.util.Util", "ab.gpt.util.Const"))
        sys.modules["ab.nn"].api = api  # type: ignore[attr-defined]
        util.uuid4 = lambda code: hashlib.md5(re.sub(r"\s", "", code).encode()).hexdigest()  # type: ignore[attr-defined]
        const.new_nn_file, const.nngpt_dir = "new_nn.py", Path(folder)  # type: ignore[attr-defined]
        sys.modules |= {"ab.nn.api": api, "ab.nn.util.Util": util, "ab.gpt.util.Const": const}
        spec = importlib.util.spec_from_file_location("peer", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


if __name__ == "__main__":
    sys.exit(main())
