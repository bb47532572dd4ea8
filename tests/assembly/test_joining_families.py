"""Verdicts on files that shall join LEMUR's families: one row for each path, from what was measured or refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_lemur import MODELS, make_tree, source

from nngen.assembly import validate_family
from nngen.assembly.validate_family import Joining, may_join
from nngen.families.catalogue import load_families
from nngen.families.profile import NOTES, Profile
from nngen.lemur.reader import Lemur
from nngen.lemur.source import open_lemur
from nngen.types import Family, Interface, Shape

SHAPE = Shape(3, 32, 32)
MEASURED: dict[str, dict[str, Any]] = {
    "Any": {"interface": Interface(low=8), "parameters": {"3x32x32": 123, "1x8x8": 4}},
    "Odd": {
        "interface": Interface(low=64, high=128, square=True, complex=True),
        "parameters": {"1x8x8": 4},
        "notes": ("seeds", "draws"),
    },
    "Square": {"interface": Interface(low=32, square=True), "notes": ("input",)},
    "Late": {"interface": Interface(low=8), "reason": "it is another network as an expert", "notes": ("seeds",)},
    "Broken": {"interface": None, "reason": "line 1: '(' was never closed"},
    "Alpha": {"interface": Interface(low=1), "parameters": {"3x32x32": 7}},
}


@pytest.fixture
def lemur(tmp_path: Path) -> Lemur:
    return open_lemur(make_tree(tmp_path / "lemur"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], Shape, dict[str, Any]]]:
    """Families that were measured, at which shape, with which settings."""
    calls: list[tuple[list[str], Shape, dict[str, Any]]] = []

    def profiles(families: Sequence[Family], shape: Shape, **settings: Any) -> dict[str, Profile]:
        calls.append(([family.name for family in families], shape, settings))
        return {
            family.name: Profile(name=family.name, fingerprint=family.fingerprint, **MEASURED[family.name])
            for family in families
        }

    monkeypatch.setattr(validate_family, "profiles", profiles)
    return calls


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(text)
    return folder / f"{name}.py"


def test_each_path_has_the_row_of_what_was_measured(tmp_path: Path, lemur: Lemur, asked: list[Any]) -> None:
    sources = {name: source(100 + number) for number, name in enumerate(MEASURED)}
    sources |= {"Broken": "class Net(\n", "Alpha": MODELS["Alpha"]}
    paths = {name: write(tmp_path / "new", name, text) for name, text in sources.items()}
    rows = {
        "Any": Joining(
            path=paths["Any"], name="Any", may_join=True, native=True, takes="8 px and more", parameters=123
        ),
        "Odd": Joining(
            path=paths["Odd"], name="Odd", may_join=True, native=False, takes="square, complex, 64 to 128 px",
            message=f"{NOTES['seeds']}; {NOTES['draws']}",
        ),
        "Square": Joining(
            path=paths["Square"], name="Square", may_join=True, native=True, takes="square, 32 px and more",
            message=NOTES["input"],
        ),
        "Late": Joining(
            path=paths["Late"], name="Late", may_join=False, message="it is another network as an expert"
        ),
        "Broken": Joining(path=paths["Broken"], name="Broken", may_join=False, message=MEASURED["Broken"]["reason"]),
        # LEMUR's own file, under its own name.
        "Alpha": Joining(
            path=paths["Alpha"], name="Alpha", may_join=True, native=True, takes="1 px and more", parameters=7
        ),
    }  # fmt: skip
    assert may_join(list(paths.values()), lemur, SHAPE) == tuple(rows.values())
    twice = [paths["Late"], paths["Any"], paths["Late"]]
    progress = print
    assert may_join(twice, lemur, SHAPE, classes=3, progress=progress, wanted="none") == tuple(
        rows[path.stem] for path in twice
    )
    assert asked == [
        (list(rows), SHAPE, {"classes": 10, "progress": None, "wanted": "auto"}),
        (["Late", "Any"], SHAPE, {"classes": 3, "progress": progress, "wanted": "none"}),
    ]


def test_files_that_are_there_already_are_refused_and_not_measured(
    tmp_path: Path, lemur: Lemur, asked: list[Any]
) -> None:
    new, other = tmp_path / "new", tmp_path / "other"
    named = write(new, "Alpha", source(100))
    copied = write(new, "Copy", f"# as LEMUR's\n{MODELS['Alpha']}")
    good, twin = write(new, "Any", source(101)), write(new, "Odd", f"{source(101)}\n# the same\n")
    again = write(other, "Any", source(102))
    lower = write(other, "lower", source(103))
    found = may_join([named, copied, good, twin, again, lower, named], lemur, SHAPE)
    refused = {
        named: "LEMUR has a family Alpha already: give the file another name",
        copied: f"{copied} is the same program as Alpha: a mixture gains nothing from it",
        twin: f"{twin} is the same program as Any: a mixture gains nothing from it",
        again: f"{again}: another file names its family Any too",
    }
    rows = {path: Joining(path=path, name=path.stem, may_join=False, message=text) for path, text in refused.items()}
    accepted = Joining(path=good, name="Any", may_join=True, native=True, takes="8 px and more", parameters=123)
    assert found[:5] == (rows[named], rows[copied], accepted, rows[twin], rows[again])
    assert (found[5].name, found[5].may_join) == ("lower", False)
    assert found[5].message.startswith(f"{lower}: 'lower' cannot be a family's name: a capital")
    assert found[6] == rows[named]
    assert [names for names, _, _ in asked] == [["Any"]]


def test_the_fake_lemur_has_the_family_that_these_tests_name(lemur: Lemur) -> None:
    assert "Alpha" in load_families(lemur)
