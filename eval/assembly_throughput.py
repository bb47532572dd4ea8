"""Valid candidates per second, beside the published generator, on the same quartets in the same run.

    python eval/assembly_throughput.py --peer nn_gpt-1.0.6-py3-none-any.whl --quartets 30

Without ``--peer`` the wheel is fetched by ``pip download nn-gpt==1.0.6 --no-deps``. Of it only
``ab/gpt/brute/moe4/AlterHeteroMoE4.py`` is run, with stand-ins for its three imports (``ab.nn.api``,
``ab.nn.util.Util.uuid4``, ``ab.gpt.util.Const``); its sources of the families are LEMUR's, the same as ours.

Theirs counts what its loop does for a quartet: collision check, assembly, ``compile``, its own forward pass at 256 px,
hash. Ours counts assembly, ``compile``, both identities. Validity of ours is not measured here but proved by
``assembly_validity.py``; with ``--prove`` each of these quartets is proved as there, outside of the clock.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import io
import json
import re
import subprocess
import sys
import tempfile
import time
import types
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import assembly_validity
import torch

from nngen.assembly.assemble import Assembler
from nngen.assembly.expert import transform
from nngen.cli.output import print_table
from nngen.lemur.families import load_families
from nngen.lemur.source import open_lemur
from nngen.space.samplers import draw
from nngen.types import Family, Plan, Shape

MEMBER = "ab/gpt/brute/moe4/AlterHeteroMoE4.py"
SHAPE = Shape(3, 32, 32)
WANTED = 500
REPEATS = 20


def main() -> int:
    """Time both generators and print a table; 1 if ours is less than 500 times theirs, or a quartet of ours fails."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    families = load_families(open_lemur())
    quartets = draw("random", list(families), arguments.quartets, arguments.seed)
    pool = assembly_validity.usable(families, SHAPE)
    with mock.patch("nngen.assembly.assemble.kept_or_transformed", transform):  # nothing kept by an earlier process
        ours_cold = time_ours(quartets, pool, keep=False)
    ours = time_ours(quartets, pool, keep=True)
    proved = [
        assembly_validity.watched(assembly_validity.prove, quartet, SHAPE, pool)
        for quartet in (quartets if arguments.prove else ())
    ]
    failed = [result for result in proved if result.problem]
    peer = load_peer(arguments.peer)
    theirs, fates = time_theirs(peer, quartets, families)
    plain = time_theirs_without_probe(peer, quartets, families)
    rows = [
        {"generator": "nn-gpt 1.0.6, as shipped", **theirs},
        {"generator": "nn-gpt 1.0.6, without its forward pass", **plain},
        {"generator": "nngen, first time (families transformed within)", **ours_cold},
        {"generator": "nngen", **ours},
    ]
    ratio = ours["per_second"] / theirs["per_second"] if theirs["per_second"] else float("inf")
    print_table(rows, ("generator", "quartets", "valid", "seconds", "per_second"))
    print(f"theirs: {', '.join(f'{reason} {number}' for reason, number in fates.most_common())}")
    print(f"ours is {ratio:,.0f} times as fast; {arguments.threads} threads, seed {arguments.seed}")
    if arguments.out:
        found = {"rows": rows, "theirs": fates, "ratio": ratio, "proved": len(proved) - len(failed)}
        Path(arguments.out).write_text(json.dumps(found, indent=1) + "\n")
    return 0 if ratio >= WANTED and not failed else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="the wheel of nn-gpt 1.0.6")
    parser.add_argument("--quartets", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prove", action="store_true", help="prove each of our quartets, outside of the clock")
    parser.add_argument("--out", help="write the rows as JSON")
    return parser.parse_args()


def time_ours(quartets: Sequence[tuple[str, ...]], pool: assembly_validity.Pool, *, keep: bool) -> dict[str, Any]:
    """Assemble and compile every quartet; ``keep`` lets the families be transformed before the clock starts."""
    assembler = Assembler()
    for family, _ in pool.values() if keep else ():
        assembler.expert(family)
    repeats = REPEATS if keep else 1
    began = time.perf_counter()
    for _ in range(repeats):
        for quartet in quartets:
            candidate = assembler.assemble(Plan(experts=quartet), [pool[name] for name in quartet])
            compile(candidate.source, f"{candidate.id}.py", "exec")
    return _row(len(quartets) * repeats, len(quartets) * repeats, time.perf_counter() - began)


def time_theirs(
    peer: Any, quartets: Sequence[tuple[str, ...]], families: dict[str, Family]
) -> tuple[dict[str, Any], Counter[str]]:
    """Do for every quartet what the loop of ``alter`` does; count what became of them."""
    fates: Counter[str] = Counter()
    began = time.perf_counter()
    for quartet in quartets:
        fates[fate(peer, quartet, [families[name].source for name in quartet])] += 1
    return _row(len(quartets), fates["valid"], time.perf_counter() - began), fates


def fate(peer: Any, quartet: Sequence[str], sources: list[str]) -> str:
    """One turn of the published loop."""
    if peer._has_any_class_collision(sources):
        return "class collision"
    with contextlib.redirect_stdout(io.StringIO()):
        code = peer.assemble_moe4(list(quartet), sources)
        try:
            compile(code, "MoE4.py", "exec")
        except SyntaxError:
            return "syntax error"
        passed, _ = peer._forward_pass_ok(code)
    peer.uuid4(code)
    return "valid" if passed else "forward pass failed"


def time_theirs_without_probe(
    peer: Any, quartets: Sequence[tuple[str, ...]], families: dict[str, Family]
) -> dict[str, Any]:
    """Assembly and ``compile`` alone; whether the results work is then unknown, so all that compile count."""
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
    """Import the published generator from its wheel, with stand-ins for its three imports."""
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
