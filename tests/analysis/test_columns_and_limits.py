"""Columns and limits of the leaderboard, from hand-made rows."""

from __future__ import annotations

from dataclasses import replace

from nngen.analysis.ranking.columns import COLUMNS, columns_of
from nngen.analysis.ranking.fidelity import fidelity_note
from nngen.analysis.ranking.limits import limits, reliabilities, ties
from nngen.analysis.ranking.reliability import reliability
from nngen.analysis.ranking.rows import Row, describe_fidelity


def row(rank, accuracy, **changes):
    made = Row(
        rank=rank,
        id=f"MoE4-{rank:032}",
        experts=("A", "B"),
        dataset="digits",
        data="0123456789",
        shape="1x8x8",
        epochs=2,
        batch=64,
        lr=0.001,
        momentum=0.9,
        seeds=1,
        validation_accuracy=accuracy,
        validation_std=None,
        test_accuracy=None,
        seconds=1.55,
        parameters=None,
    )
    return replace(made, **changes)


FULL = row(
    2,
    0.98765,
    validation_half=0.01234,
    images=10_000,
    validation_low=0.9812,
    validation_high=0.9934,
    rank_low=1,
    rank_high=3,
    test_accuracy=0.5,
    parameters=1_234_567,
    suspect="perfect",
    train_size=1000,
    augment="flip",
    horizon=9,
    class_weights="balanced",
    data="9876543210",
    shape="3x8x8",
    lr=0.05,
    momentum=0.5,
)


PLAIN = {
    "rank": "1",
    "among": "-",
    "experts": "A, B",
    "dataset": "digits",
    "validation_accuracy": "0.5000",
    "interval": "-",
    "images": "-",
    "validation_half": "-",
    "suspect": "",
    "seeds": "1",
    "test_accuracy": "-",
    "data": "01234567",
    "shape": "1x8x8",
    "epochs": "2",
    "horizon": "2",
    "train_size": "all",
    "batch": "64",
    "lr": "0.001",
    "momentum": "0.9",
    "augment": "none",
    "class_weights": "none",
    "seconds": "1.6",
    "parameters": "-",
    "id": "MoE4-00000000",
}
"""Texts of the columns of a row without optional values; a column that is added is not one of them."""


def test_each_column_has_its_text():
    plain, full = ({column.name: column.text(one) for column in COLUMNS} for one in (row(1, 0.5), FULL))
    assert plain == plain | PLAIN
    changed = {
        "rank": "2",
        "among": "1 to 3",
        "validation_accuracy": "0.9877",
        "interval": "0.981 to 0.993",
        "images": "10,000",
        "validation_half": "0.0123",
        "suspect": "perfect",
        "test_accuracy": "0.5000",
        "data": "98765432",
        "shape": "3x8x8",
        "horizon": "9",
        "train_size": "1,000",
        "lr": "0.05",
        "momentum": "0.5",
        "augment": "flip",
        "class_weights": "balanced",
        "parameters": "1,234,567",
    }
    assert full == full | PLAIN | changed
    assert replace(FULL, rank_high=1).among == "1"


def shown(rows):
    return [column.name for column in columns_of(rows) if column.name in PLAIN]


def test_a_table_has_the_columns_that_its_rows_need():
    always = [
        *("rank", "experts", "dataset", "validation_accuracy", "images", "validation_half", "seeds"),
        *("test_accuracy", "epochs", "batch", "seconds", "parameters", "id"),
    ]
    first = row(1, 0.5)
    assert shown([first, replace(first, rank=2)]) == always
    assert shown([first, FULL]) == [column.name for column in COLUMNS if column.name in PLAIN]
    assert shown([]) == always
    # Another data set is not another version of one.
    other = replace(first, dataset="fashion", data="9876543210")
    assert shown([first, other]) == always


def test_a_fidelity_is_named_as_far_as_it_was_chosen():
    assert describe_fidelity(row(1, 0.5)) == "digits at 1x8x8, 2 epochs, batch 64, rate 0.001"
    assert describe_fidelity(FULL) == (
        "digits (1,000 images) at 3x8x8, 2 epochs of 9, batch 64, rate 0.05, augmented by flip, class weights balanced"
    )
    assert row(1, 0.5).fidelity == ("digits", "1x8x8", "0123456789", None, 2, 64, 0.001, 0.9, "none", None, "none")


def test_ties_are_named_for_each_fidelity_and_not_all_of_many():
    spans = [(1, 9), (1, 9), (1, 9), (1, 9), (1, 9), (1, 9), (1, 9), (2, 9)]
    many = [row(rank, 0.5, rank_low=low, rank_high=high) for rank, (low, high) in enumerate(spans, start=1)]
    few = [row(1, 0.5, rank_low=1, epochs=1), row(2, 0.5, rank_low=1, epochs=1)]
    none = [row(1, 0.5, rank_low=1, lr=0.5), row(2, 0.1, rank_low=2, lr=0.5)]
    place = "digits at 1x8x8, 2 epochs, batch 64, rate 0.001"
    assert ties([*many, *none, *few]) == (
        f"{place}: 6 more cannot be told from the best (95 %): MoE4-00000000, MoE4-00000000, MoE4-00000000,"
        " MoE4-00000000 and 2 more",
        f"{place.replace('2 epochs', '1 epoch')}: 1 more cannot be told from the best (95 %): MoE4-00000000",
    )


def test_the_reliability_is_that_of_the_rows_that_are_not_suspect():
    rows = [
        row(1, 0.9, suspect="perfect", images=100),
        row(2, 0.8, seeds=3, validation_std=0.02),
        row(3, 0.6, seeds=2, validation_std=0.04),
        row(4, 0.5),
        row(1, 0.6, epochs=1, images=50),
        row(2, 0.5, epochs=1),
        row(3, 0.4, epochs=1),
    ]
    (best, found), (other, single) = reliabilities([*rows, row(1, 0.5, lr=0.5), row(2, 0.5, lr=0.5)])
    assert (best, other) == (rows[0], rows[4])
    assert found == reliability([0.8, 0.6, 0.5], [3, 2, 1], 2 * 0.02**2 + 0.04**2, 100)
    assert single == reliability([0.6, 0.5, 0.4], [1, 1, 1], 0.0, 50)
    assert single.noise_sd > 0.05  # by so few images


def test_limits_name_replays_ties_noise_and_rankings_that_change_in_this_order():
    rows = [
        row(1, 0.6, dataset="table:a.csv", rank_low=1),
        row(2, 0.5, dataset="table:a.csv", rank_low=1),
        row(3, 0.4, dataset="table:a.csv", rank_low=2),
        row(1, 0.5, epochs=50, lr=0.1),
        row(1, 0.5, epochs=1),
        row(1, 0.5, epochs=1, lr=0.1),
    ]
    ((best, found),) = reliabilities(rows)
    assert limits(rows) == (
        "the accuracies on table:a.csv are replayed from a recorded table, not trained",
        *ties(rows),
        f"{describe_fidelity(best)}: {found.sentence}",
        fidelity_note("table:a.csv", 2),
        fidelity_note("digits", 1),
    )
    assert len(ties(rows)) == 1
    assert limits([]) == ()
