"""Command ``nngen plans``, and plans in ``nngen assemble``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nngen.archive import Archive
from nngen.assembly.identity import canonical_hash
from nngen.assembly.plan_toml import from_toml, plan_of, preset, preset_names
from nngen.cli.options import OutputOptions
from nngen.cli.plans import cp, ls, show
from nngen.errors import PlanError, UsageError
from nngen.types import Candidate

Nngen = Callable[..., Any]
POOL = "ShuffleNet,AlexNet,ComplexNet,SqueezeNet-1,DarkNet"


def test_there_is_a_preset_of_every_kind(capsys: pytest.CaptureFixture[str]) -> None:
    ls(output=OutputOptions(json=True))
    rows = json.loads(capsys.readouterr().out)
    assert {row["kind"] for row in rows} == {"hetero", "homogeneous", "single"}
    assert [row["name"] for row in rows] == sorted(preset_names())
    ls()
    assert all(name in capsys.readouterr().out for name in preset_names()[:1])


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_shown_and_copied_as_it_is(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(name)
    text = capsys.readouterr().out
    assert from_toml(text) == preset(name)
    cp(name, tmp_path)
    assert (tmp_path / f"{name}.toml").read_text() == text
    with pytest.raises(UsageError, match="is there already"):
        cp(name, tmp_path)
    cp(name, tmp_path, force=True)


def test_an_unknown_preset_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"no preset is called 'moev8': did you mean moev"):
        cp("moev8", tmp_path)
    with pytest.raises(UsageError, match="cannot write"):
        (tmp_path / "file").touch()
        cp("moev7", tmp_path / "file" / "x.toml")


def test_a_preset_without_families_needs_no_lemur(
    nngen: Nngen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nngen.cli.options.family.open_lemur", lambda *_: pytest.fail("LEMUR was opened"))
    done = nngen("assemble", "--plan", "moev7", "--out", tmp_path, "--json")
    assert done.code == 0, done.err
    (row,) = json.loads(done.out)
    assert row["id"].startswith("MoE8-")
    assert plan_of(Path(row["path"]).read_text()) == preset("moev7")


@pytest.mark.usefixtures("wheel")
def test_a_plan_from_a_file_with_families_from_the_command_line(nngen: Nngen, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('experts = ["AirNet", "VGG"]\n[gate]\nrouting = "top-k"\n[losses]\nswitch = 0.01\n')
    done = nngen("assemble", "--plan", file, "--families", "AlexNet,DarkNet,AlexNet", "--out", tmp_path, "--json")
    assert done.code == 2 and "--allow-repeats" in done.err
    options = ["--families", "AlexNet,DarkNet,AlexNet", "--allow-repeats", "--out", tmp_path, "--json"]
    done = nngen("assemble", "--plan", file, *options)
    assert done.code == 0, done.err
    (row,) = json.loads(done.out)
    plan = plan_of(Path(row["path"]).read_text())
    assert plan is not None and plan.experts == ("AlexNet", "DarkNet", "AlexNet")
    assert (plan.repeats, plan.gate.routing, plan.losses.switch) == (True, "top-k", 0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--plan", "absent.toml"], "cannot read the plan absent.toml: No such file"),
        (["--plan", "moev7", "--size", "3"], "the experts of kind homogeneous are Dense: there is nothing to draw"),
        (["--plan", "moev7", "--families", "VGG,AirNet"], "the experts of kind homogeneous are Dense"),
        (["--size", "2", "--out", "x.tar.zst"], "is for --sampler exhaustive"),
    ],
)
def test_bad_input_gets_one_line(nngen: Nngen, tmp_path: Path, options: list[str], message: str) -> None:
    out = [] if "--out" in options else ["--out", tmp_path / "out"]
    done = nngen("assemble", *options, *out)
    assert done.code == 2
    assert message in done.err and len(done.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("wheel")
def test_exhaustive_takes_the_whole_space_and_goes_on(nngen: Nngen, tmp_path: Path) -> None:
    options = ["--sampler", "exhaustive", "--families", POOL, "--json"]
    first = json.loads(nngen("assemble", *options, "--out", tmp_path / "folder").out)
    assert (first["quartets"], first["written"]) == (5, 5)
    files = sorted((tmp_path / "folder").glob("*.py"))
    assert len(files) == 5
    files[2].unlink()
    again = json.loads(nngen("assemble", *options, "--out", tmp_path / "folder").out)
    assert (again["written"], again["there_already"]) == (1, 4)
    packed = json.loads(nngen("assemble", *options, "--out", tmp_path / "all.tar.zst").out)
    assert packed["written"] == 5
    before = (tmp_path / "all.tar.zst").read_bytes()
    assert json.loads(nngen("assemble", *options, "--out", tmp_path / "all.tar.zst").out)["there_already"] == 5
    assert (tmp_path / "all.tar.zst").read_bytes() == before
    other = nngen("assemble", *options[:2], "--families", f"{POOL},VGG", "--out", tmp_path / "all.tar.zst")
    assert other.code == 2 and "begun with other families" in other.err


@pytest.mark.usefixtures("wheel")
def test_mixtures_in_the_archive_are_left_out_and_counted(nngen: Nngen, tmp_path: Path) -> None:
    options = ["--size", "4", "--families", POOL, "--sampler", "lexicographic", "--json"]
    rows = json.loads(nngen("assemble", *options, "--out", tmp_path / "one").out)
    with Archive.open(tmp_path / "nngen.db") as archive:
        for row in rows[:3]:
            source = Path(row["path"]).read_text()
            if row is rows[0]:  # a twin under another id: only a comment differs
                source += "# the same\n"
            archive.add_candidate(
                Candidate(id=f"MoE4-{'0' * 31}{rows.index(row)}", source=source, canonical=canonical_hash(source))
            )
    done = nngen("assemble", *options, "--out", tmp_path / "two", "--archive", tmp_path / "nngen.db")
    assert done.code == 0, done.err
    assert "1 written, 0 there already, 3 in the archive already" in done.err
    assert [row["id"] for row in json.loads(done.out)] == [rows[3]["id"]]
    options[options.index("lexicographic")] = "exhaustive"
    done = nngen("assemble", *options, "--out", tmp_path / "three", "--archive", tmp_path / "nngen.db")
    assert json.loads(done.out) | {"path": ""} == {
        "path": "",
        "quartets": 4,
        "written": 1,
        "there_already": 0,
        "in_the_archive": 3,
    }


NET = """import torch.nn as nn
def supported_hyperparameters(): return {"lr", "momentum"}
class Net(nn.Module):
    def __init__(self, in_shape, out_shape, prm, device):
        super().__init__()
        self.fc = nn.Linear(in_shape[1], out_shape[0])
    def train_setup(self, prm): pass
    def learn(self, train_data): pass
    def forward(self, x):
        return self.fc(x.mean((2, 3)))
"""
BROKEN = {
    "Syntax": ("def f(:\n", "Syntax cannot be used at 3x32x32: line 1: not Python"),
    "NoNet": (NET.replace("class Net", "class Nest"), "no family is called 'NoNet'"),
    "Star": ("from torch.distributed import *\n" + NET, "Star cannot be used at 3x32x32: line 1: import * hides"),
    "Late": (NET.replace("self.fc(", "made_later("), "NameError: name 'made_later' is not defined"),
}


@pytest.mark.usefixtures("wheel")
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_family_is_named_and_the_rest_of_the_pool_works(nngen: Nngen, tmp_path: Path, name: str) -> None:
    source, message = BROKEN[name]
    folder = tmp_path / "families"
    folder.mkdir()
    (folder / "Plain.py").write_text(NET)
    (folder / f"{name}.py").write_text(source)
    named = f"{name},Plain,ShuffleNet,AlexNet"
    done = nngen("assemble", "--families", named, "--families-from", folder, "--out", tmp_path / "out")
    assert done.code != 0 and message in done.err.splitlines()[-1]
    assert all(line.startswith("nngen: isolation ") for line in done.err.splitlines()[:-1])
    assert not (tmp_path / "out").exists()
    rest = nngen(
        "assemble", "--families", "Plain,ShuffleNet,AlexNet,ICNet", "--families-from", folder, "--out", tmp_path
    )
    assert rest.code == 0, rest.err
