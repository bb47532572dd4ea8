"""Command ``nngen lemur``: output, errors and exit codes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nngen.lemur.fetch import WHEEL

Nngen = Callable[..., Any]


def test_fetch_from_a_wheel(nngen: Nngen, cache: Path, wheel: Path) -> None:
    result = nngen("lemur", "fetch", "--from", wheel, "--json")
    assert (result.code, result.err) == (0, "")
    assert json.loads(result.out) == {"path": str(cache / "lemur" / WHEEL), "models": 10_482}
    again = nngen("lemur", "fetch")
    assert (again.code, again.out) == (0, f"{cache / 'lemur' / WHEEL}: 10,482 models\n")


def test_fetch_from_a_checkout_is_remembered(nngen: Nngen, cache: Path, tmp_path: Path) -> None:
    checkout = tmp_path / "nn-dataset"
    (checkout / "ab/nn/nn").mkdir(parents=True)
    (checkout / "ab/nn/nn/ResNet.py").write_text("class Net: ...\n")
    results = checkout / "ab/nn/stat/train/img-classification_cifar-10_acc_ResNet"
    results.mkdir(parents=True)
    for epoch, accuracies in enumerate(([0.3, 0.2], [0.6], [0.5, 0.4]), start=1):
        trials = [{"accuracy": accuracy, "duration": 1, "transform": "norm", "uid": "0"} for accuracy in accuracies]
        (results / f"{epoch}.json").write_text(json.dumps(trials))
    assert nngen("lemur", "fetch", "--from", checkout).code == 0
    result = nngen("lemur", "history", "ResNet", "--json")
    assert json.loads(result.out) == [
        {"model": "ResNet", "final_epoch": 3, "final_accuracy": 0.5, "best_epoch": 2, "best_accuracy": 0.6}
    ]


def test_history_in_the_order_asked_for(nngen: Nngen, wheel: Path) -> None:
    result = nngen("lemur", "history", "ResNet", "AirNet", "--json")
    assert (result.code, result.err) == (0, "")
    first, second = json.loads(result.out)
    assert first == {
        "model": "ResNet",
        "final_epoch": 50,
        "final_accuracy": 0.9086,
        "best_epoch": 35,
        "best_accuracy": 0.9121,
    }
    assert (second["model"], second["best_accuracy"]) == ("AirNet", 0.8591)


@pytest.mark.parametrize("spelling", ["mnist", "MNIST"])
def test_history_on_another_data_set_as_a_table(nngen: Nngen, wheel: Path, spelling: str) -> None:
    result = nngen("lemur", "history", "ResNet", "--dataset", spelling)
    assert result.code == 0
    assert "0.9962" in result.out


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["Resnett"], "LEMUR has no model 'Resnett': did you mean ResNet or"),
        (["ResNet", "AlxNet"], "did you mean AlexNet"),
        (["ResNet", "--dataset", "cifar11"], "no records of ResNet on 'cifar11'; data sets with records of it: celeba"),
        (["LSTM"], "no records of LSTM on 'cifar-10'; data sets with records of it: wikitext"),
        ([], "nngen: lemur history needs MODELS: see nngen lemur history --help"),
    ],
)
def test_history_refuses_in_one_line(nngen: Nngen, wheel: Path, tokens: list[str], message: str) -> None:
    result = nngen("lemur", "history", *tokens)
    assert (result.code, result.out) == (2, "")
    assert message in result.err
    assert result.err.count("\n") == 1


def test_a_missing_a_truncated_and_a_wrong_file(nngen: Nngen, cache: Path, wheel: Path, tmp_path: Path) -> None:
    missing = nngen("lemur", "history", "ResNet")
    assert (missing.code, missing.out) == (1, "")
    assert missing.err == "nngen: LEMUR is not here yet: run nngen lemur fetch\n"
    half = tmp_path / WHEEL
    with wheel.open("rb") as whole:
        half.write_bytes(whole.read(10_000_000))
    truncated = nngen("lemur", "fetch", "--from", half)
    assert truncated.code == 1
    assert "only 10,000,000 of 102,904,100 bytes, truncated" in truncated.err
    assert not (cache / "lemur").exists() or list((cache / "lemur").iterdir()) == []
    (cache / "lemur").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(half, cache / "lemur" / WHEEL)
    kept = nngen("lemur", "history", "ResNet")
    assert kept.code == 1
    assert "is truncated (10,000,000 of 102,904,100 bytes): run nngen lemur fetch" in kept.err
    assert nngen("lemur", "fetch", "--from", tmp_path / "nowhere").code == 1
