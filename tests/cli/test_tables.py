"""Tests of the tables on stdout: width, order in which columns are left out, lists and sentences."""

import itertools

import pytest

from nngen.cli.output import print_table
from nngen.cli.tables import OPTIONAL_COLUMNS

ROWS = [
    {
        "rank": rank,
        "experts": experts,
        "dataset": "digits",
        "validation_accuracy": 0.9965 - rank / 100,
        "test_accuracy": None,
        "batch": 32,
        "seconds": 101.2749 * rank,
        "parameters": 6_426_225,
        "id": f"MoE4-{rank}c84621d",
        "reason": reason,
    }
    for rank, experts, reason in (
        (1, ["AirNext", "BagNet", "DenseNet", "ShuffleNet"], ""),
        (
            2,
            ["ComplexNet", "ICNet", "MobileNetV3", "SqueezeNet-2"],
            "cannot be separated from the others in this sample",
        ),
        (3, ["AirNext", "ICNet", "MobileNetV3", "ShuffleNet"], "cannot be separated from the others in this sample"),
    )
]
NUMBERS = {"0.9865", "0.9765", "0.9665", "MoE4-1c84621d", "MoE4-2c84621d", "MoE4-3c84621d"}


@pytest.fixture
def drawn(monkeypatch, capsys):
    """Return the table of ``ROWS`` as drawn on a terminal of a width, with the notes on stderr."""

    def draw(width, rows=ROWS):
        monkeypatch.setenv("COLUMNS", str(width))
        print_table(rows)
        return capsys.readouterr()

    return draw


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
def test_no_number_and_no_id_is_folded(width, drawn):
    table = drawn(width).out
    assert "MoE4-2c84621d" in table.split()
    assert {word for word in table.split() if word.startswith(("0.9", "MoE"))} <= NUMBERS
    if width >= 60:
        assert max(map(len, table.splitlines())) <= width
        assert set(table.split()) >= NUMBERS


def test_columns_are_left_out_in_the_stated_order(drawn):
    lost = [
        {name for name in ("parameters", "batch", "seconds", "dataset") if name not in drawn(width).out.split()}
        for width in range(140, 50, -1)
    ]
    assert lost[0] == set()
    assert lost[-1] == {"parameters", "batch", "seconds", "dataset"}
    assert all(before <= after for before, after in itertools.pairwise(lost))
    first = sorted(lost[-1], key=OPTIONAL_COLUMNS.index)
    assert all(gone == set(first[: len(gone)]) for gone in lost)
    assert "left out at 60 columns: parameters, batch" in drawn(60).err


def test_lists_continue_after_a_comma_and_sentences_stand_below(drawn):
    lines = drawn(80).out.splitlines()
    assert any(line.endswith("sample") and "ComplexNet" not in line for line in lines)
    assert sum("cannot be separated" in line for line in lines) == 1
    for name in ("AirNext", "SqueezeNet-2", "MobileNetV3"):
        assert any(name in line.replace(",", "").split() for line in lines)


def test_a_pipe_gets_every_column(monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    print_table(ROWS)
    out, err = capsys.readouterr()
    assert set(out.split()) >= {"parameters", "batch", "seconds", "reason"}
    assert "AirNext, BagNet, DenseNet, ShuffleNet" in out
    assert err == ""


def test_wide_characters_are_aligned(drawn):
    rows = [{"class": "猫", "count": 3}, {"class": "dog", "count": 40_000}]
    heading, _, cat, dog, *_ = drawn(80, rows).out.splitlines()
    assert heading.index("count") + 5 == len(dog)
    assert len(cat) + 1 == len(dog)


def test_a_long_first_column_never_costs_the_result(drawn):
    row = {"image": "photos/" + "x" * 90 + ".jpg", "class": "cat", "probability": 0.75}
    assert {"cat", "0.7500"} <= set(drawn(80, [row]).out.split())
