"""Rows of a feedback set that a tuning learns: those of its tasks, in its shares, as often as their weights say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

from nngen.errors import RewriterError
from nngen.llm.finetuning.config import Tuning
from nngen.llm.finetuning.splits import Row
from nngen.llm.finetuning.stored_set import read_view
from nngen.seeds import derive


def view_rows(dataset: Path, view: str, split: str, tasks: Sequence[str]) -> list[Row]:
    """Read the rows of a view's split, those of some tasks where tasks are named."""
    return [row for row in read_view(dataset, view, split) if not tasks or row["task"] in tasks]


def train_rows(tuning: Tuning, dataset: Path) -> list[Row]:
    """Read the rows to learn, in the shares and as often as the tuning and their weights say.

    Raises:
        RewriterError: If there are none.
    """
    view = tuning.view or tuning.method
    rows = temper(view_rows(dataset, view, "train", tuning.tasks), tuning.temper, tuning.seed)
    if not rows:
        raise RewriterError(f"{dataset} has no train rows for {view}: build it from more proposals")
    return repeat(rows, tuning.seed)


def repeat(rows: Sequence[Row], seed: int) -> list[Row]:
    """Repeat each row by its weight: one of 1.4 stands once or, drawn with a probability of 0.4, twice."""
    draws = (Random(derive(seed, "weight", number)).random() for number in range(len(rows)))
    return [row for row, draw in zip(rows, draws, strict=True) for _ in range(int(row.get("weight", 1) + draw))]


def temper(rows: Sequence[Row], power: float, seed: int) -> list[Row]:
    """Raise the counts of tasks and regions to a power, in proportion: rows of rare kinds are repeated.

    A ``power`` of 1 keeps the rows, one of 0 makes all kinds equally frequent.
    """
    if power == 1:
        return list(rows)
    kinds: dict[str, list[Row]] = {}
    for row in rows:
        kinds.setdefault(f"{row['task']} {row.get('place', '')}", []).append(row)
    whole = sum(len(same) ** power for same in kinds.values())
    found: list[Row] = []
    for name, same in sorted(kinds.items()):
        wanted = max(round(len(rows) * len(same) ** power / whole), 1)
        order = Random(derive(seed, "temper", name)).sample(same, len(same))
        found += [order[number % len(order)] for number in range(wanted)]
    return found
