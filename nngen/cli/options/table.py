"""The option ``--table`` of commands that train: recorded trainings that answer in place of new ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from nngen.analysis.results import replay_note
from nngen.campaign_spec import TABLE, CampaignSpec
from nngen.cli.options.family import FamilyOptions
from nngen.cli.output import note
from nngen.errors import UsageError
from nngen.surrogate.recorded_table import FIXED, RecordedTable, read_table

if TYPE_CHECKING:
    from nngen.surrogate.table_engine import TableEngine  # loads scikit-learn

Table = Annotated[
    Path | None,
    Parameter(
        show_default=False,
        help="Train nothing: replay trainings from this file of recorded ones (docs/tables.md). Its settings and "
        "families are the defaults; plans that it lacks are predicted, and counted.",
    ),
]
"""The file; None where trials are trained."""


def with_table(table: Path, typed: Mapping[str, Any], selection: FamilyOptions) -> tuple[dict[str, Any], FamilyOptions]:
    """Return the typed arguments with the table as the data set, and its families as the pool where none is named.

    Raises:
        NngenError: See ``read_table``.
        UsageError: If another data set was typed.
    """
    name = f"{TABLE}{table}"
    if typed.get("dataset", name) != name:
        raise UsageError(f"--table takes the place of --dataset {typed['dataset']}: give one of them")
    found = read_table(table, train_size=typed.get("train_size"), epochs=typed.get("epochs"))
    return {**typed, "dataset": name}, replace(selection, families=selection.families or found.families)


def on_table(dataset: str, stored: CampaignSpec | None, typed: Mapping[str, Any]) -> tuple[CampaignSpec, RecordedTable]:
    """Settle the arguments of a campaign on a table.

    Args:
        dataset: ``table:`` and the path.
        stored: Arguments that the campaign began with; None for one that begins.
        typed: Arguments by field for one that begins.

    Raises:
        UsageError: If the campaign has another fidelity than the table.
    """
    known = {name: getattr(stored, name) for name in ("train_size", "epochs")} if stored else typed
    path = Path(dataset.removeprefix(TABLE))
    table = read_table(path, train_size=known.get("train_size"), epochs=known.get("epochs"))
    recorded = {name: getattr(table.spec, name) for name in FIXED} | {"families": table.families}
    spec = stored or CampaignSpec(**{**recorded, **typed, "dataset": dataset})
    table.check(spec)
    return spec, table


@contextmanager
def replaying(table: RecordedTable) -> Iterator[TableEngine]:
    """Open the engine that answers from a table, and say at the end how many trials it answered."""
    from nngen.surrogate.table_engine import TableEngine

    engine = TableEngine(table)
    note(engine.describe())
    yield engine
    if engine.answers:
        note(f"of this run, {replay_note(engine.answers)}")
