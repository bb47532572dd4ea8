"""The option ``--folds`` of commands that train: each fold of the data set as a campaign, and their comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from cyclopts import Parameter

from nngen.analysis.quality.cross_validation import FoldRow
from nngen.cli.options import ArchiveOptions
from nngen.cli.output import note, print_table, say
from nngen.datasets.folds import MOST, fold_name, parse_fold
from nngen.errors import UsageError
from nngen.ranges import Range

Folds = Annotated[
    int | None,
    Parameter(
        validator=Range(low=2, high=MOST, whole=True),
        help="Cross-validation: the training and validation images together in so many parts, each of which validates "
        "once. Fold I is the campaign NAME-fold-I, with budgets of its own; the test split stays what it is.",
    ),
]
"""Number of folds; None for the data set's own validation split."""


def folded(
    output: ArchiveOptions, name: str, typed: Mapping[str, Any], folds: int | None
) -> list[tuple[str, dict[str, Any]]]:
    """Return name and typed arguments of the campaign of each fold; of one campaign without folds.

    Args:
        output: Place of the archive in which they may have begun.
        name: Name of the campaign.
        typed: Arguments as typed, by field.
        folds: Number of folds.

    Raises:
        UsageError: If the arguments do not go with folds.
    """
    if folds is None:
        return [(name, dict(typed))]
    if typed.get("rungs"):
        raise UsageError("--folds trains every candidate in every fold: leave out --rungs")
    with output.peek() as store:
        stored = {record.name: record.spec.dataset for record in store.campaigns()}
    begun = parse_fold(stored.get(f"{name}-fold-1", ""))
    dataset = typed.get("dataset") or (begun[2] if begun else "digits")
    if parse_fold(dataset):
        raise UsageError(f"--folds {folds} and --dataset {dataset}: name the whole data set")
    return [
        (f"{name}-fold-{number}", {**typed, "dataset": fold_name(dataset, number, folds)})
        for number in range(1, folds + 1)
    ]


def begin_fold(name: str, folds: int | None) -> None:
    """Name the fold that begins."""
    if folds is not None:
        note(f"{name} of {folds} folds", prefix="")


def print_folds(rows: Sequence[FoldRow], folds: int) -> None:
    """Print the accuracies of candidates over the folds."""
    table = [
        {
            "id": row.id[:13],
            "experts": list(row.experts),
            "folds": row.trained,
            "mean": row.mean,
            "std": row.std,
            "95 %": None if row.half is None else f"{row.mean - row.half:.4f} to {row.mean + row.half:.4f}",
            **{f"fold {number}": accuracy for number, accuracy in enumerate(row.accuracies, 1)},
        }
        for row in rows
    ]
    if not table:
        say(f"nothing was trained in any of {folds} folds")
        return
    print_table(table, [name for name in table[0] if name != "experts" or any(row.experts for row in rows)])
    say("validation accuracies; the interval is corrected for training images that folds share")
