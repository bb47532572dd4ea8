"""User-defined families: from a folder, a file or an entry point, or refused with a reason."""

import importlib.metadata
import json
import os
import sys
from pathlib import Path

import pytest
from fake_lemur import source

from nngen.assembly.assemble import assemble
from nngen.assembly.validate_family import may_join
from nngen.errors import FamilyError
from nngen.families.catalogue import load_families, user_families
from nngen.plan import Plan
from nngen.types import Interface, Shape

EXAMPLES = Path(__file__).parents[2] / "examples" / "families"
NAMES = ["Brook", "Lantern", "Pebble"]


def test_a_folder(lemur, families):
    found = load_families(lemur, [str(EXAMPLES)])
    assert sorted(found) == list(found)
    assert found.keys() - families.keys() == set(NAMES)
    assert {found[name].best for name in NAMES} == {None}
    assert {name: found[name] for name in families} == families


def test_the_environment_names_places_too(lemur, monkeypatch):
    monkeypatch.setenv("NNGEN_FAMILIES_FROM", os.pathsep.join([str(EXAMPLES / "Brook.py"), str(EXAMPLES)]))
    assert set(NAMES) <= load_families(lemur).keys()


def test_a_package(tmp_path, monkeypatch):
    (tmp_path / "pond.py").write_text(
        "from pathlib import Path\n"
        f"STONES = {{'Stone': {source(8)!r}}}\n"
        f"def all(): return {{**STONES, 'Pebble': Path({str(EXAMPLES / 'Pebble.py')!r})}}\n"
        "WRONG = {'Stone': 3}\nEMPTY = {}\nMIXED = {3: 'x', 'A': 'x'}\nBYTES = {'A': '\\ud800'}\n"
        "def raises(): return 1 / 0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert list(user_families(["pond:STONES"])) == ["Stone"]
    found = user_families(["pond:all", "pond:STONES"])
    assert list(found) == ["Pebble", "Stone"]
    assert found["Pebble"].source == (EXAMPLES / "Pebble.py").read_text()
    entry = importlib.metadata.EntryPoint(name="pond", value="pond:all", group="nngen.families")
    monkeypatch.setattr("nngen.families.catalogue.entry_points", lambda group: [entry] if group == entry.group else [])
    assert list(user_families(["pond"])) == ["Pebble", "Stone"]
    for place, message in (
        ("pond:WRONG", "gives int for Stone"),
        ("pond:EMPTY", "not give a mapping of names"),
        ("pond:nothing", "cannot be loaded"),
        ("pond:raises", "cannot be loaded: division by zero"),
        ("pond:MIXED", "3 cannot be a family's name"),
        ("pond:BYTES", "is not UTF-8 text"),
        ("lake:all", "cannot be loaded"),
        ("lake", "installed entry points: pond"),
    ):
        with pytest.raises(FamilyError, match=message):
            user_families([place])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("small.py", "x = 1", "cannot be a family's name"),
        ("Under_score.py", "x = 1", "cannot be a family's name"),
        ("Text.txt", "x = 1", "not a Python file"),
        ("Bytes.py", b"\xff\xfe", "not UTF-8 text"),
        ("Missing.py", None, "cannot be read"),
    ],
)
def test_files_that_are_none(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FamilyError, match=message):
        user_families([str(tmp_path / name)])


def test_names_are_given_once(lemur, tmp_path):
    (tmp_path / "ResNet.py").write_text(source(8))
    with pytest.raises(FamilyError, match="LEMUR has a family ResNet already"):
        load_families(lemur, [str(tmp_path)])
    (tmp_path / "Brook.py").write_text(source(8))
    (tmp_path / "ResNet.py").unlink()
    with pytest.raises(FamilyError, match="family Brook comes from"):
        user_families([str(EXAMPLES), str(tmp_path)])
    with pytest.raises(FamilyError, match=r"holds no .py file"):
        (tmp_path / "empty").mkdir()
        user_families([str(tmp_path / "empty")])


def test_ours_and_lemurs_stand_in_one_mixture(lemur):
    found = load_families(lemur, [str(EXAMPLES)])
    experts = (*NAMES, "ShuffleNet")
    made = assemble(Plan(experts=experts), [(found[name], Interface(low=32)) for name in experts])
    classes = ("def pebble():", "class Squeeze(", "def brook():", "class Mixer(", "def lantern():", "class Block(")
    assert all(name in made.source for name in classes)


CONTRACT = "def supported_hyperparameters():\n    return {'lr'}\n\n\n"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("Small", "x = (", "not Python"),
        ("Small", "class Net: pass", "supported_hyperparameters() is missing"),
        ("Small", CONTRACT, "class Net is missing"),
        (
            "Small",
            CONTRACT + "class Net:\n    def __init__(self, a, b, c, d): pass",
            "line 5: class Net has no method train_setup",
        ),
        (
            "Small",
            source(8).replace("in_shape, out_shape, prm, device)", "in_shape, classes)"),
            "Net.__init__ cannot be called as __init__(self, in_shape, out_shape, prm, device)",
        ),
        ("Small", "import timm\n" + source(8).replace("nn.ReLU()", "timm.relu()"), "line 1: imports timm"),
        ("ResNet", source(8), "LEMUR has a family ResNet already"),
        ("Small", source(8).replace("self.head(self.features(x)", "self.head(x.relu(self.features(x))"), "Error"),
    ],
)
def test_why_not(lemur, tmp_path, name, text, message):
    (tmp_path / f"{name}.py").write_text(text)
    (found,) = may_join([tmp_path / f"{name}.py"], lemur, Shape(3, 32, 32))
    assert not found.may_join
    assert message in found.message


def test_the_same_program_joins_once(lemur, families, tmp_path):
    (tmp_path / "Other.py").write_text("# another name\n" + families["ShuffleNet"].source)
    (tmp_path / "One.py").write_text(source(8))
    (tmp_path / "Two.py").write_text(source(8))
    found = may_join([tmp_path / f"{name}.py" for name in ("Other", "One", "Two")], lemur, Shape(3, 32, 32))
    assert [one.may_join for one in found] == [False, True, False]
    assert "the same program as ShuffleNet" in found[0].message
    assert "the same program as One" in found[2].message


@pytest.mark.network
def test_the_command(nngen, tmp_path):
    (tmp_path / "Bad.py").write_text("class Net: pass")
    done = nngen("check", "--family", EXAMPLES / "Brook.py", "--family", tmp_path / "Bad.py", "--json")
    rows = {row["name"]: row for row in json.loads(done.out)}
    assert done.code == 3
    assert rows["Brook"]["may_join"] and rows["Brook"]["native"] and rows["Brook"]["takes"].endswith("px and more")
    assert not rows["Bad"]["may_join"]
    assert nngen("check").code == 2
    listed = nngen("families", "--families-from", EXAMPLES, "--families", "Pebble", "--json")
    assert [row["name"] for row in json.loads(listed.out)] == ["Pebble"]


def test_helpers_in_a_folder_are_passed_over_with_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "Good.py").write_text(source(8))
    (tmp_path / "plotting.py").write_bytes(b"name = '\xff'\n")
    (tmp_path / "Training.py").write_text("def fit():\n    pass\n")
    (tmp_path / "Broken.py").write_text("class Net(\n")
    (tmp_path / "_private.py").write_text("")
    assert list(user_families([str(tmp_path)])) == ["Broken", "Good"]  # the verdict on a broken one names its line
    lines = [record.getMessage() for record in caplog.records]
    assert [line.rpartition("/")[2] for line in lines] == [
        "Training.py is passed over: it has no class Net",
        "plotting.py is passed over: a family's name is a capital, then letters, digits, dots, dashes",
    ]
    for name in ("Good", "Broken"):
        (tmp_path / f"{name}.py").unlink()
    with pytest.raises(FamilyError, match="holds no family"):
        user_families([str(tmp_path)])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-8 without a declaration"])
def test_a_file_is_decoded_as_python_does(tmp_path: Path, encoding: str) -> None:
    codec, _, bare = encoding.partition(" ")
    declared = "" if bare or codec == "utf-8-sig" else f"#!/usr/bin/python\n# -*- coding: {codec} -*-\n"
    text = declared + source(8).replace("self.width", "self.größe") + "TEXT = 'é'\n"
    (tmp_path / "Encoded.py").write_bytes(text.encode(codec))
    found = user_families([str(tmp_path)])["Encoded"].source
    space: dict[str, object] = {}
    exec(compile(found.encode(), "Encoded.py", "exec"), space)  # as the worker's file is read
    assert space["TEXT"] == "é" and "self.größe" in found and "\ufeff" not in found
    assert found.count("utf-8") == bool(declared)


@pytest.mark.parametrize("cookie", ["no-such-codec", "rot13", "punycode"])
def test_an_encoding_that_is_none_is_one_line(tmp_path: Path, cookie: str) -> None:
    (tmp_path / "Odd.py").write_text(f"# coding: {cookie}\n" + source(8))
    with pytest.raises(FamilyError, match=r"Odd\.py cannot be read as Python: ") as caught:
        user_families([str(tmp_path)])
    assert "\n" not in str(caught.value)


@pytest.mark.network
def test_no_sampler_draws_a_family_that_cannot_join(nngen, tmp_path: Path, families) -> None:
    (tmp_path / "Modern.py").write_text(source(8).replace("self.width = 8", "self.width = eval('8')"))
    (tmp_path / "Plain.py").write_text(source(8))
    names = "Modern,Plain,ShuffleNet,MobileNetV3,SqueezeNet-1"
    where = ("--families-from", tmp_path, "--families", names)
    drawn = nngen("sample", *where, "--sampler", "exhaustive", "--json")
    assert json.loads(drawn.out) == [["MobileNetV3", "Plain", "ShuffleNet", "SqueezeNet-1"]]
    assert "Modern is left out: line 13: eval() looks names up" in drawn.err
    rows = {row["name"]: row for row in json.loads(nngen("families", *where, "--json").out)}
    assert [name for name, row in rows.items() if not row["usable"]] == ["Modern"]
    named = nngen(
        "assemble", *where[:2], "--families", "Modern,Plain,ShuffleNet,MobileNetV3", "--out", tmp_path / "out"
    )
    assert named.code == 2 and "Modern cannot be used at 3x32x32: line 13: eval()" in named.err
    alone = json.loads(nngen("check", "--family", tmp_path / "Modern.py", "--json").out)
    assert alone[0]["message"] == rows["Modern"]["reason"]


def test_links_and_devices_in_a_folder_of_families_are_refused(tmp_path: Path) -> None:
    (tmp_path / "Secret.txt").write_text("password")
    folder = tmp_path / "families"
    folder.mkdir()
    (folder / "Taken.py").symlink_to(tmp_path / "Secret.txt")
    with pytest.raises(FamilyError, match=r"Taken\.py cannot be read: Taken\.py is a link"):
        user_families([str(folder)])
    (folder / "Taken.py").unlink()
    os.mkfifo(folder / "Pipe.py")
    for place in (folder, folder / "Pipe.py", Path("/dev/zero")):
        with pytest.raises(FamilyError, match="not a regular file; name regular files"):
            user_families([str(place)])


def test_a_name_that_is_too_long_is_refused_in_one_line() -> None:
    with pytest.raises(FamilyError, match="is not a folder, file or entry point of families"):
        user_families(["x" * 300])


@pytest.mark.parametrize("here", ["", ".", "cwd"])
def test_modules_of_the_current_folder_are_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: str
) -> None:
    (tmp_path / "brook_of_others.py").write_text(f"STONES = {{'Stone': {source(8)!r}}}\nopen('TAKEN', 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    entry = str(tmp_path) if here == "cwd" else here
    installed = list(sys.path)
    monkeypatch.setattr(sys, "path", [entry, *installed])
    with pytest.raises(FamilyError, match="cannot be loaded: No module named"):
        user_families(["brook_of_others:STONES"])
    assert not (tmp_path / "TAKEN").exists()
    assert sys.path == [entry, *installed]
    # An editable installation puts a folder behind the installed packages: that one is the user's own.
    monkeypatch.setattr(sys, "path", [*installed, entry])
    assert here != "cwd" or list(user_families(["brook_of_others:STONES"])) == ["Stone"]
