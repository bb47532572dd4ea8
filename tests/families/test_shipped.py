"""Profiles of LEMUR's families that ship with the package: complete, equal to measurements, and used where they fit."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from nngen.families import shipped, trust
from nngen.families.hyperparameters import best_hyperparameters
from nngen.families.probe import Probe, profiles, versions
from nngen.types import Family, Shape

SHAPE = Shape(3, 32, 32)


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, and no worker that could measure."""
    table = json.loads(shipped.FILE.read_bytes())
    if (table["version"], table["torch"]) != versions():
        pytest.skip("the shipped profiles are of another version: python eval/families_cold.py --profiles")
    monkeypatch.setenv("NNGEN_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "executable", "/nonexistent")


def test_every_family_of_the_pinned_wheel_has_a_profile_at_each_shape() -> None:
    table = json.loads(shipped.FILE.read_bytes())
    pinned = json.loads(trust._PINNED.read_bytes())["lemur"]
    assert {key: row["name"] for key, row in table["families"].items()} == {key: name for name, key in pinned.items()}
    for row in table["families"].values():
        # At 224 pixels one of them needs more memory than a measurement may take.
        assert set(shipped.SHAPES) - set(row["shapes"]) <= {"3x224x224"}


def test_the_versions_are_those_of_this_package() -> None:
    table = json.loads(shipped.FILE.read_bytes())
    assert table["version"] == versions()[0], "measure again: python eval/families_cold.py --profiles"


@pytest.mark.usefixtures("offline")
def test_a_shipped_family_is_not_measured(families: dict[str, Family]) -> None:
    found = profiles(families.values(), SHAPE)
    assert len(found) == 34
    assert all(profile.usable for profile in found.values())
    assert found["ComplexNet"].interface is not None
    assert found["ComplexNet"].interface.complex


@pytest.mark.usefixtures("offline")
def test_whatever_differs_is_measured(families: dict[str, Family]) -> None:
    known = families["ICNet"]
    edited = replace(known, source=known.source + "\n", fingerprint="0" * 64)
    assert known.best is not None
    tuned = replace(known, best=replace(known.best, hyperparameters={"lr": 0.5, "momentum": 0.5}))
    for family, shape, classes in ((edited, SHAPE, 10), (tuned, SHAPE, 10), (known, Shape(3, 48, 48), 10)):
        assert Probe(family=family, shape=shape, classes=classes, wanted="auto").stored() is None
    assert Probe(family=known, shape=SHAPE, classes=7, wanted="auto").stored() is None
    assert Probe(family=known, shape=SHAPE, classes=10, wanted="auto").stored() is not None


def test_an_interface_is_known_for_other_shapes_and_classes(families: dict[str, Family], offline: None) -> None:
    family = families["DenseNet"]
    probe = Probe(family=family, shape=Shape(3, 48, 48), classes=7, wanted="auto")
    assert probe.job().arguments["interface"]["low"] == 29


def test_a_measurement_gives_what_is_shipped(
    cache: Path, families: dict[str, Family], monkeypatch: pytest.MonkeyPatch
) -> None:
    family = families["SqueezeNet-1"]
    measured = profiles([family], SHAPE)["SqueezeNet-1"]
    monkeypatch.undo()
    kept = shipped.profile(versions(), family.fingerprint, best_hyperparameters(family), 10, SHAPE)
    if kept is None:
        pytest.skip("the shipped profiles are of another version: python eval/families_cold.py --profiles")
    assert kept["interface"] == json.loads(json.dumps(asdict(measured.interface)))
    assert kept["parameters"] == measured.parameters["3x32x32"]
    assert (kept["reason"], tuple(kept["notes"])) == (measured.reason, measured.notes)


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """A small table in place of the one that ships."""
    shapes = {
        "3x32x32": {"interface": None, "reason": "no"},
        "1x28x28": {"interface": {"low": 9}, "reason": ""},
        "3x64x64": {"interface": {"low": 8}, "reason": ""},
        "3x224x224": {"interface": {"low": 7}, "reason": ""},
    }
    made = {"version": 7, "torch": "2.14", "classes": 10, "families": {"f": {"prm": {"lr": 0.1}, "shapes": shapes}}}
    monkeypatch.setattr(shipped, "_table", lambda: made)
    return shapes


def test_a_profile_is_found_by_all_that_it_holds_for(table: dict[str, object]) -> None:
    right = {"version": (7, "2.14"), "fingerprint": "f", "prm": {"lr": 0.1}, "classes": 10, "shape": SHAPE}
    assert shipped.profile(**right) is table["3x32x32"]
    others = {"version": [(6, "2.14"), (7, "2.13")], "fingerprint": ["g"], "prm": [{}, {"lr": 0.2}], "classes": [9]}
    for name, values in (others | {"shape": [Shape(3, 32, 33)]}).items():
        for value in values:
            assert shipped.profile(**right | {name: value}) is None, (name, value)


def test_the_first_interface_for_as_many_channels_is_found(table: dict[str, object]) -> None:
    found = {channels: shipped.same_channels((7, "2.14"), "f", {"lr": 0.1}, channels) for channels in (1, 2, 3)}
    assert found == {1: {"low": 9}, 2: None, 3: {"low": 8}}
    assert shipped.same_channels((7, "2.14"), "f", {"lr": 0.2}, 1) is None
    assert shipped.same_channels((7, "2.14"), "g", {"lr": 0.1}, 1) is None
