"""The 34 base families and their records in LEMUR, compared with a direct reading of the wheel."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from nngen.errors import FamilyError, LemurError
from nngen.families.catalogue import choose, is_base, load_families
from nngen.families.hyperparameters import best_hyperparameters, supported
from nngen.lemur.reader import Lemur
from nngen.lemur.source import open_lemur
from nngen.types import Family

BASE = [
    "AirNet",
    "AirNext",
    "AlexNet",
    "BagNet",
    "BayesianNet-1",
    "BayesianNet-2",
    "BayesianNet-3",
    "ComplexNet",
    "ConvNeXt",
    "DPN107",
    "DPN131",
    "DPN68",
    "DarkNet",
    "DenseNet",
    "Diffuser",
    "EfficientNet",
    "FractalNet",
    "GoogLeNet",
    "ICNet",
    "InceptionV3-1",
    "InceptionV3-2",
    "MNASNet",
    "MaxVit",
    "MobileNetV2",
    "MobileNetV3",
    "RegNet",
    "ResNet",
    "ShuffleNet",
    "SqueezeNet-1",
    "SqueezeNet-2",
    "SwinTransformer",
    "UNet2D",
    "VGG",
    "VisionTransformer",
]


@pytest.fixture(scope="module")
def direct(wheel: Path) -> dict[str, dict[int, list[dict[str, object]]]]:
    """Trials by family and epoch, read with zipfile alone."""
    found: dict[str, dict[int, list[dict[str, object]]]] = {}
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            start = "ab/nn/stat/train/img-classification_cifar-10_acc_"
            name, _, file = member.removeprefix(start).partition("/")
            if member.startswith(start) and name in BASE:
                found.setdefault(name, {})[int(file.removesuffix(".json"))] = json.loads(archive.read(member))
    return found


def test_there_are_34_sorted_by_name(families: dict[str, Family]) -> None:
    assert list(families) == BASE


@pytest.mark.parametrize("name", BASE)
def test_the_best_record_is_the_wheels(
    name: str, families: dict[str, Family], direct: dict[str, dict[int, list[dict[str, object]]]]
) -> None:
    best = families[name].best
    assert best is not None
    trials = [(trial, epoch) for epoch, rows in direct[name].items() for trial in rows]
    assert best.accuracy == max(trial["accuracy"] for trial, _ in trials)
    assert any(
        epoch == best.epoch
        and trial["accuracy"] == best.accuracy
        and best.hyperparameters == {k: v for k, v in trial.items() if k not in ("accuracy", "duration", "uid")}
        for trial, epoch in trials
    )


@pytest.mark.parametrize("name", BASE)
def test_history_is_the_wheels(name: str, lemur: Lemur, direct: dict[str, dict[int, list[dict[str, object]]]]) -> None:
    epochs = {epoch: max(trial["accuracy"] for trial in rows) for epoch, rows in direct[name].items()}
    told = lemur.history(name)
    assert (told.final_epoch, told.final_accuracy) == (max(epochs), epochs[max(epochs)])
    assert told.best_accuracy == max(epochs.values()) == epochs[told.best_epoch]


@pytest.mark.parametrize("name", BASE)
def test_every_hyperparameter_has_a_recorded_value(name: str, families: dict[str, Family]) -> None:
    family = families[name]
    assert family.best is not None
    values = best_hyperparameters(family)
    assert {"lr", "momentum"} <= set(values)
    assert set(values) == supported(family.source)
    assert values == {key: family.best.hyperparameters[key] for key in values}


def test_a_fingerprint_is_the_sources(families: dict[str, Family], wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        source = archive.read("ab/nn/nn/DenseNet.py")
    assert families["DenseNet"].fingerprint == hashlib.sha256(source).hexdigest()


def test_missing_hyperparameters_come_from_the_defaults(families: dict[str, Family]) -> None:
    bare = replace(families["MaxVit"], best=None)
    assert best_hyperparameters(bare) == {
        "attention_dropout": 0.1,
        "dropout": 0.2,
        "lr": 0.01,
        "momentum": 0.9,
        "stochastic_depth_prob": 0.1,
    }


@pytest.mark.parametrize(
    ("name", "value", "used"),
    [
        ("lr", 0.5, True),
        ("lr", 0.0, False),
        ("lr", 1e9, False),
        ("lr", "0.1", False),
        ("lr", True, False),
        ("momentum", -0.1, False),
        ("momentum", 1.0, True),
        ("dropout", 7, False),
        ("stochastic_depth_prob", float("inf"), False),
        ("stochastic_depth_prob", "x" * 101, False),
        ("stochastic_depth_prob", "linear", True),
    ],
)
def test_recorded_values_of_an_impossible_type_or_range_are_not_used(
    name: str, value: float | str, used: bool, families: dict[str, Family]
) -> None:
    family = families["MaxVit"]
    assert family.best is not None
    record = replace(family.best, hyperparameters={**family.best.hyperparameters, name: value})
    found = best_hyperparameters(replace(family, best=record))[name]
    assert found == (value if used else best_hyperparameters(replace(family, best=None))[name])


@pytest.mark.parametrize(
    "returned",
    ['{"lr", "dropout"}', 'set(["lr", "dropout"])', 'frozenset(("lr", "dropout"))', 'set("lr dropout".split())'],
)
def test_names_are_read_from_any_collection_of_literals(returned: str) -> None:
    assert supported(f"def supported_hyperparameters():\n    return {returned}\n") == {"lr", "dropout"}


@pytest.mark.parametrize("source", ["def supported_hyperparameters():\n    return NAMES\n", "", "def (:", "\0"])
def test_names_that_cannot_be_read_are_those_lemur_always_passes(source: str) -> None:
    assert supported(source) == {"lr", "momentum"}


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("ResNet", True),
        ("BayesianNet-1", True),
        ("ga-1000", False),
        ("MoE-0707-BagNet", False),
        ("AlexNet-0123abcd", False),
        ("AlexNet-0123abcdefabcdef0123456789abcdef", False),
        ("", False),
    ],
)
def test_the_rule_for_base_families(name: str, base: bool) -> None:
    assert is_base(name) is base


def test_families_are_kept_under_the_wheels_identity(cache: Path, wheel: Path, families: dict[str, Family]) -> None:
    assert load_families(open_lemur(wheel)) == families
    assert load_families(open_lemur(wheel)) == families
    (kept,) = (cache / "lemur").glob("families-*.json")
    for harm in ("[]", "{}", kept.read_text()[:1000]):
        kept.write_text(harm)
        assert load_families(open_lemur(wheel)) == families


def test_kept_families_are_read_without_the_wheels_directory(
    cache: Path, wheel: Path, families: dict[str, Family], monkeypatch: pytest.MonkeyPatch
) -> None:
    load_families(open_lemur(wheel))
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("the wheel was opened"))
    assert load_families(open_lemur(wheel)) == families


def test_a_lemur_without_families_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ab/nn/nn").mkdir(parents=True)
    (tmp_path / "ab/nn/stat/train").mkdir(parents=True)
    with pytest.raises(LemurError, match="holds no family"):
        load_families(open_lemur(tmp_path))


def test_choose_keeps_the_order(families: dict[str, Family]) -> None:
    assert [family.name for family in choose(families, ["VGG", "AirNet"])] == ["VGG", "AirNet"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["resnet"], "no family is called 'resnet': did you mean ResNet"),
        (["Densnet"], "did you mean DenseNet"),
        (["Inception"], "did you mean InceptionV3-"),
        (["zzz"], "nngen families"),
        ([""], "no family is called ''"),
        (["VGG", "AirNet", "VGG"], "family VGG is named twice"),
    ],
)
def test_choose_names_what_is_wrong(families: dict[str, Family], names: list[str], message: str) -> None:
    with pytest.raises(FamilyError, match=message):
        choose(families, names)
