"""Command ``nngen assemble`` with LEMUR's real families."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nngen.assembly.identity import canonical_hash
from nngen.assembly.plan_toml import plan_of
from nngen.lemur.layout import nn_id

pytestmark = pytest.mark.usefixtures("wheel")

QUARTET = ("ShuffleNet", "AlexNet", "ComplexNet", "SqueezeNet-1")
POOL = ",".join([*QUARTET, "DarkNet", "DPN68"])
Nngen = Callable[..., Any]


def test_four_families_make_one_file(nngen: Nngen, tmp_path: Path) -> None:
    done = nngen("assemble", "--families", ",".join(QUARTET), "--out", tmp_path, "--json")
    assert done.code == 0, done.err
    (row,) = json.loads(done.out)
    assert row["experts"] == list(QUARTET)
    assert row["written"] is True
    path = Path(row["path"])
    source = path.read_text()
    assert path == tmp_path / f"{row['id']}.py"
    assert row["id"] == f"MoE4-{nn_id(source)}"
    assert row["canonical"] == canonical_hash(source)
    plan = plan_of(source)
    assert plan is not None and plan.experts == QUARTET
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_existing_files_are_left_unchanged_and_counted(nngen: Nngen, tmp_path: Path) -> None:
    first = nngen("assemble", "--families", ",".join(QUARTET), "--out", tmp_path)
    assert "1 written, 0 there already" in first.err
    (file,) = tmp_path.iterdir()
    before = file.stat().st_mtime_ns
    second = nngen("assemble", "--families", ",".join(QUARTET), "--out", tmp_path, "--json")
    assert "0 written, 1 there already" in second.err
    assert json.loads(second.out)[0]["written"] is False
    assert file.stat().st_mtime_ns == before


@pytest.mark.parametrize("sampler", ["stratified", "random", "lexicographic"])
def test_quartets_are_drawn_from_the_pool(nngen: Nngen, tmp_path: Path, sampler: str) -> None:
    options = ("--size", "9", "--sampler", sampler, "--seed", "3", "--families", POOL, "--out", tmp_path, "--json")
    done = nngen("assemble", *options)
    assert done.code == 0, done.err
    rows = json.loads(done.out)
    drawn = {tuple(row["experts"]) for row in rows}
    assert len(drawn) == 9
    assert set().union(*drawn) <= set(POOL.split(","))
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(f"{row['id']}.py" for row in rows)


def test_the_same_bytes_in_two_processes(tmp_path: Path) -> None:
    for hash_seed in ("1", "2"):
        command = [sys.executable, "-m", "nngen", "assemble", "--size", "6", "--sampler", "random", "--seed", "7"]
        command += ["--families", POOL, "--out", str(tmp_path / hash_seed)]
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": hash_seed}, check=True, capture_output=True)
    one, two = ({file.name: file.read_bytes() for file in (tmp_path / seed).iterdir()} for seed in ("1", "2"))
    assert len(one) == 6
    assert one == two


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--families", "AirNet,AlexNet,DensNet,VGG"], "no family is called 'DensNet': did you mean DenseNet"),
        (["--families", "AirNet,AlexNet,VGG"], "a mixture takes 4 families, not 3: AirNet, AlexNet, VGG; for another"),
        (["--families", "VGG", "--experts", "1"], "a mixture takes 2 to 64 experts, not 1: VGG"),
        (
            ["--families", "AirNet,AlexNet,VGG,VGG"],
            "VGG is named twice: name different families, or ask for --allow-repeats",
        ),
        (["--size", "3", "--families", "AirNet,AlexNet,VGG"], "takes 4 different families, but there are only 3"),
        (["--size", "16", "--families", POOL], "6 families make only 15"),
        (["--size", "0"], "--size must be a whole number from 1"),
        (["--size", "3", "--sampler", "randm"], "unknown sampler 'randm': did you mean random?"),
        (["--families", ",".join(QUARTET), "--shape", "3x32"], "'3x32' is not a shape"),
        ([], "say what to assemble: --families A,B,C,D for one quartet, or --size N"),
    ],
)
def test_bad_input_gets_one_line_and_writes_nothing(
    nngen: Nngen, tmp_path: Path, options: list[str], message: str
) -> None:
    out = tmp_path / "out"
    done = nngen("assemble", *options, "--out", out)
    assert done.code == 2
    assert done.out == ""
    assert message in done.err
    assert len(done.err.splitlines()) == 1
    assert not out.exists()


def test_a_folder_that_cannot_be_written_is_named(nngen: Nngen, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    done = nngen("assemble", "--families", ",".join(QUARTET), "--out", tmp_path / "file")
    assert done.code == 2
    assert "cannot write into" in done.err and "--out" in done.err
    assert (tmp_path / "file").read_text() == "mine"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_help_names_every_flag(nngen: Nngen) -> None:
    done = nngen("assemble", "--help")
    assert done.code == 0
    for word in (
        "--families",
        "--size",
        "--sampler",
        "--seed",
        "--out",
        "--shape",
        "--plan",
        "--allow-repeats",
        "--archive",
        "--json",
    ):
        assert word in done.out
