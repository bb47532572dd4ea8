"""Families of a small LEMUR, and places of families: what is taken from them, their limits, and what is said."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_lemur import source, trial

from nngen.errors import FamilyError, LemurError
from nngen.families import catalogue
from nngen.families.catalogue import choose, load_families, make_family, read_family, user_families
from nngen.lemur.source import open_lemur
from nngen.types import MAX_SOURCE_BYTES, Record


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout with four models, recorded at several epochs, tasks and data sets."""
    root = tmp_path / "lemur"
    (root / "ab/nn/nn").mkdir(parents=True)
    for name in ("Delta", "Alpha", "Beta", "ga-1", "MoE-Alpha"):
        (root / f"ab/nn/nn/{name}.py").write_text(f"# {name}\n")
    trials = {
        "img-classification_cifar-10_acc_Alpha/1": [trial(0.5)],
        "img-classification_cifar-10_acc_Alpha/5": [trial(0.7, lr=0.5), trial(0.7, lr=0.1), trial(0.6)],
        "img-classification_cifar-10_acc_Alpha/9": [trial(0.7)],
        "img-classification_mnist_acc_Alpha/5": [trial(0.9)],
        "img-segmentation_cifar-10_iou_Alpha/5": [trial(0.95)],
        "img-classification_cifar-10_acc_Delta/3": [trial(0.2)],
        "img-segmentation_cifar-10_iou_Beta/3": [trial(0.9)],
        "img-classification_cifar-10_acc_Gone/3": [trial(0.9)],
        "img-classification_cifar-10_acc_ga-1/3": [trial(0.9)],
        "img-classification_cifar-10_acc_MoE-Alpha/3": [trial(0.9)],
    }
    for name, rows in trials.items():
        file = root / f"ab/nn/stat/train/{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(rows))
    return root


def test_a_family_has_its_best_record_the_earliest_among_equals(tree: Path, cache: Path) -> None:
    found = load_families(open_lemur(tree))
    assert list(found) == ["Alpha", "Delta"]
    prm = {"batch": 64, "lr": 0.5, "momentum": 0.9, "transform": "norm_32"}
    best = Record(model="Alpha", dataset="cifar-10", epoch=5, accuracy=0.7, duration_s=1.0, hyperparameters=prm)
    assert found["Alpha"] == make_family("Alpha", "# Alpha\n", best)
    assert found["Delta"].best is not None and found["Delta"].best.accuracy == 0.2
    # A checkout may change without a sign of it, so that nothing is kept.
    assert not (cache / "lemur").exists()


def test_places_come_from_the_call_and_the_environment(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("Mine", "Yours"):
        (tmp_path / f"{name}.py").write_text(source(8))
    mine, yours = (str(tmp_path / f"{name}.py") for name in ("Mine", "Yours"))
    monkeypatch.setenv("NNGEN_FAMILIES_FROM", f":{yours}::{mine}")
    lemur = open_lemur(tree)
    assert list(load_families(lemur, [mine])) == ["Alpha", "Delta", "Mine", "Yours"]
    monkeypatch.delenv("NNGEN_FAMILIES_FROM")
    assert list(load_families(lemur, [yours])) == ["Alpha", "Delta", "Yours"]
    (tmp_path / "Delta.py").write_text(source(8))
    with pytest.raises(FamilyError, match=r"^LEMUR has a family Delta already: rename the file from outside$"):
        load_families(lemur, [str(tmp_path / "Delta.py")])


def test_a_lemur_without_records_says_what_is_needed(tree: Path) -> None:
    for folder in (tree / "ab/nn/stat/train").glob("img-classification_cifar-10_acc_*"):
        if folder.name.endswith(("Alpha", "Delta")):
            shutil.rmtree(folder)
    with pytest.raises(LemurError) as refused:
        load_families(open_lemur(tree))
    assert str(refused.value) == "lemur holds no family with cifar-10 accuracies: nngen needs nn-dataset 2.1.2"


def test_a_damaged_source_is_left_out_or_raised_as_the_reader_has_it(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lemur = open_lemur(tree)
    read = lemur.source

    def damaged(model: str) -> str:
        if model == "Alpha":
            raise LemurError("Alpha is damaged")
        return read(model)

    monkeypatch.setattr(lemur, "source", damaged)
    assert list(load_families(lemur)) == ["Delta"]
    monkeypatch.setattr(lemur, "skips_damage", False)
    with pytest.raises(LemurError, match="Alpha is damaged"):
        load_families(lemur)


def test_names_that_are_not_known_are_answered_in_one_line() -> None:
    known = {name: make_family(name, "") for name in ("Alpha", "Beta")}
    for names, message in (
        (["Alpa"], "no family is called 'Alpa': did you mean Alpha?"),
        (["Alpha", "zzz"], "no family is called 'zzz': nngen families lists the base families"),
        (["Alpha", "Beta", "Alpha"], "family Alpha is named twice: name different ones"),
    ):
        with pytest.raises(FamilyError) as refused:
            choose(known, names)
        assert str(refused.value) == message


def test_a_source_of_the_largest_size_is_a_family(tmp_path: Path) -> None:
    path, text = tmp_path / "Large.py", "#" * (MAX_SOURCE_BYTES - 1) + "\n"
    path.write_text(text)
    assert read_family(path).source == text
    path.write_text("#" + text)
    with pytest.raises(FamilyError) as refused:
        read_family(path)
    assert str(refused.value) == f"{path} is longer than 4 MiB, the limit for a family"
    with pytest.raises(FamilyError, match=r"^pond: Large is longer than 4 MiB, the limit for a family$"):
        catalogue._from_mapping({"Large": "é" * (MAX_SOURCE_BYTES // 2) + "a"}, "pond")
    assert catalogue._from_mapping({"Large": "é" * (MAX_SOURCE_BYTES // 2)}, "pond")[0].name == "Large"


def test_files_that_are_no_families_are_answered_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "Text.txt").write_text("x = 1")
    (tmp_path / "small.py").write_text("x = 1")
    (tmp_path / "Bytes.py").write_bytes(b"\xff")
    (tmp_path / "empty").mkdir()
    (tmp_path / "helpers").mkdir()
    (tmp_path / "helpers/_Mine.py").write_text(source(8))
    none = "cannot be a family's name: a capital, then letters, digits, dots, dashes"
    for name, message in (
        ("Text.txt", "{} is not a Python file: a family is a file Name.py"),
        ("small.py", f"{{}}: 'small' {none}"),
        ("Bytes.py", "{} is not UTF-8 text: save it as UTF-8"),
        ("Missing.py", "{} cannot be read: No such file or directory; name regular files"),
        ("empty", "{} holds no .py file: name a folder of families"),
        ("helpers", "{} holds no .py file: name a folder of families"),
    ):
        with pytest.raises(FamilyError) as refused:
            user_families([str(tmp_path / name)])
        assert str(refused.value) == message.format(tmp_path / name)


def test_a_folder_of_the_home_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "B.1-a.py").write_text(source(8))
    (tmp_path / "Other.py").write_text("x = 1\n")
    found = user_families(["~"])
    assert found == {"B.1-a": make_family("B.1-a", source(8))}
    (tmp_path / "B.1-a.py").unlink()
    with pytest.raises(FamilyError, match=r"^~ holds no family: name a folder with files Name.py, each with a class"):
        user_families(["~"])


def test_the_same_family_may_come_twice_and_another_of_its_name_may_not(tmp_path: Path) -> None:
    for folder, width in (("a", 8), ("b", 8), ("c", 9)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "Mine.py").write_text(source(width))
    a, b, c = (str(tmp_path / folder) for folder in "abc")
    assert list(user_families([a, b])) == ["Mine"]
    with pytest.raises(FamilyError) as refused:
        user_families([a, b, c])
    assert str(refused.value) == f"family Mine comes from {b} and from {c}: rename one of them"


def test_entry_points_are_loaded_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    made = {
        "zoo": lambda: {"Zebra": "z", "Ape": "a"},
        "attic": {"Box": "b"},
        "bad": dict,
        "numbers": lambda: {"A": 3},
        "names": lambda: {3: "x"},
        "broken": lambda: 1 / 0,
        "list": lambda: ["A"],
    }
    entries = [SimpleNamespace(name=name, load=lambda made=value: made) for name, value in made.items()]
    monkeypatch.setattr(catalogue, "entry_points", lambda group: entries if group == "nngen.families" else [])
    assert list(user_families(["zoo", "attic"])) == ["Ape", "Box", "Zebra"]
    assert [one.name for one in catalogue._families("zoo")] == ["Ape", "Zebra"]
    none = "cannot be a family's name: a capital, then letters, digits, dots, dashes"
    for place, message in (
        ("bad", "the entry point 'bad' does not give a mapping of names to sources"),
        ("list", "the entry point 'list' does not give a mapping of names to sources"),
        ("numbers", "the entry point 'numbers' gives int for A: give text or a path"),
        ("names", f"names: 3 {none}"),
        ("broken", "the entry point 'broken' cannot be loaded: division by zero"),
        ("no such", "'no such' is not a folder, file or entry point of families; installed entry points: attic, bad,"),
        ("os:no_such", "the entry point 'os:no_such' cannot be loaded: module 'os' has no attribute 'no_such'"),
    ):
        with pytest.raises(FamilyError) as refused:
            user_families([place])
        assert str(refused.value).startswith(message)
    monkeypatch.setattr(catalogue, "entry_points", lambda group: [])
    with pytest.raises(FamilyError) as refused:
        user_families(["zoo"])
    assert str(refused.value) == "'zoo' is not a folder, file or entry point of families"
    assert importlib.metadata.entry_points is not catalogue.entry_points


@pytest.mark.parametrize("folder", ["site-packages", "dist-packages"])
def test_the_current_folder_is_left_out_of_the_search_up_to_the_installed_packages(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here = str(tmp_path)
    for path, inside in (
        (["", "/a", here, f"/b/{folder}", here, "."], ["/a", f"/b/{folder}", here, "."]),
        ([f"/b/{folder}", "", here], [f"/b/{folder}", "", here]),
        ([here, "/a", "."], ["/a"]),
        (["/a"], ["/a"]),
    ):
        monkeypatch.setattr("sys.path", list(path))
        with catalogue._installed_packages_only():
            assert catalogue.sys.path == inside
        assert catalogue.sys.path == path
