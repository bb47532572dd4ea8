"""Writer of candidates into a folder, and the hash of a walk through a pool."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nngen.assembly.output import FolderWriter, order_of
from nngen.errors import UsageError
from nngen.plan import Gate, Plan
from nngen.testing.fakes import fake_families
from nngen.types import Candidate, Interface


def test_a_folder_takes_each_candidate_once_and_knows_no_position(tmp_path: Path) -> None:
    candidates = [Candidate(id=f"MoE4-{number}", source=f"x = {number}\n", canonical="") for number in range(2)]
    for written in (True, False):
        with FolderWriter(tmp_path / "deep" / "folder") as writer:
            assert (writer.folder, writer.position, writer.finished) == (tmp_path / "deep" / "folder", 0, False)
            assert [writer.add(candidate) for candidate in candidates] == [written, written]
            writer.reach(7)
            writer.finish()
        assert (writer.position, writer.finished) == (0, False)
        files = {file.name: file.read_text() for file in writer.folder.iterdir()}
        assert files == {"MoE4-0.py": "x = 0\n", "MoE4-1.py": "x = 1\n"}


def test_a_folder_that_takes_no_files_is_refused_before_the_first(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError) as failure:
        FolderWriter(tmp_path / "file")
    reason = "File exists; choose another folder with --out"
    assert str(failure.value) == f"cannot write into {tmp_path / 'file'}: {reason}"


def test_the_hash_of_a_walk_depends_on_all_that_it_gives() -> None:
    plan, pool = Plan(experts=()), fake_families("ABCD")
    order = order_of(plan, pool, 1)
    assert len(order) == 64 and set(order) <= set("0123456789abcdef")
    assert order_of(plan, dict(reversed(pool.items())), 1) == order
    family, interface = pool["A"]
    others = [
        order_of(replace(plan, gate=Gate(width=64)), pool, 1),
        order_of(plan, pool, 2),
        order_of(plan, fake_families("ABCE"), 1),
        order_of(plan, fake_families("ABC"), 1),
        order_of(plan, pool | {"A": (replace(family, fingerprint="0" * 64), interface)}, 1),
        order_of(plan, pool | {"A": (family, Interface(low=9))}, 1),
    ]
    assert len({order, *others}) == 7
