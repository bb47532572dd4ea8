"""Command ``nngen families``: 34 rows, each usable or with a reason; invalid shapes are refused at once."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Nngen = Callable[..., Any]

KEYS = [
    "name",
    "usable",
    "native",
    "adapter",
    "reason",
    "notes",
    "parameters",
    "channels_last",
    "best_accuracy",
    "best_epoch",
    "hyperparameters",
]


@pytest.mark.slow
def test_all_34_have_a_row(nngen: Nngen, wheel: Path) -> None:
    result = nngen("families", "--shape", "3x32x32", "--json")
    assert result.code == 0
    rows = {row["name"]: row for row in json.loads(result.out)}
    assert len(rows) == 34
    assert list(rows) == sorted(rows)
    assert all(list(row) == KEYS for row in rows.values())
    assert all(row["usable"] and row["parameters"] > 0 for row in rows.values())
    assert all((row["adapter"] is None) == row["native"] == (row["reason"] == "") for row in rows.values())
    assert rows["ComplexNet"]["adapter"] == "complex"
    assert rows["EfficientNet"]["best_accuracy"] == max(row["best_accuracy"] for row in rows.values()) == 0.9274


def test_some_as_rows(nngen: Nngen, wheel: Path) -> None:
    result = nngen("families", "--families", "SqueezeNet-2, AlexNet", "--shape", "1x28x28", "--json")
    assert (result.code, result.err) == (0, "")
    squeeze, alex = json.loads(result.out)
    assert squeeze == {
        "name": "SqueezeNet-2",
        "usable": True,
        "native": True,
        "adapter": None,
        "reason": "",
        "parameters": 726_474,
        "channels_last": True,
        "best_accuracy": 0.8434,
        "best_epoch": 45,
        "hyperparameters": squeeze["hyperparameters"],
        "notes": [],
    }
    assert set(squeeze["hyperparameters"]) == {"batch", "dropout", "lr", "momentum", "transform"}
    assert (alex["native"], alex["adapter"], alex["reason"]) == (
        False,
        "resize 63x63",
        "takes images of 63 px and more",
    )


def test_families_that_stay_contiguous_on_a_card_are_named(nngen: Nngen, wheel: Path) -> None:
    result = nngen("families", "--families", "BayesianNet-3,ICNet", "--json")
    assert [row["channels_last"] for row in json.loads(result.out)] == [False, True]
    assert "on a graphics card these stay in contiguous memory format, others in channels_last: BayesianNet-3" in (
        result.err
    )


def test_some_as_a_table(nngen: Nngen, wheel: Path) -> None:
    result = nngen("families", "--families", "SqueezeNet-2", "--shape", "1x28x28")
    assert result.code == 0
    assert "726,474" in result.out


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["--shape", "3x32"], "'3x32' is not a shape"),
        (["--shape", "0x32x32"], "'0x32x32' is not a shape"),
        (["--shape", "3x100000x100000"], "of 1 to 8,192 pixels"),
        (["--shape", "99999x32x32"], "1 to 4 channels come first"),
        (["--families", "Resnet,AirNet"], "no family is called 'Resnet': did you mean ResNet"),
        (["--families", "AirNet,AirNet"], "family AirNet is named twice"),
        (["--families", ""], "--families names nothing"),
        (["--jobs", "0", "--families", "ICNet", "--shape", "3x33x35"], "--jobs must be a whole number from 1"),
    ],
)
def test_bad_input_ends_at_once_in_one_line(nngen: Nngen, wheel: Path, tokens: list[str], message: str) -> None:
    start = time.monotonic()
    result = nngen("families", *tokens)
    assert time.monotonic() - start < 5
    assert (result.code, result.out) == (2, "")
    assert message in result.err
    assert result.err.count("\n") == 1


def test_a_look_at_what_is_known_loads_no_torch(nngen: Nngen, wheel: Path) -> None:
    tokens = ["families", "--families", "SqueezeNet-2", "--shape", "1x28x28", "--json"]
    nngen(*tokens)
    code = "import sys; from nngen.cli import run; code = run(sys.argv[1:]); print(code, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *tokens], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("0 False\n")
