"""``nngen export``: hand what was validated to LEMUR, as if LEMUR had made it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from nngen.cli.output import print_json, print_table
from nngen.cli.progress import progress_bar

if TYPE_CHECKING:
    from nngen.archive import Archive
    from nngen.datasets.dataset import Dataset
    from nngen.export.selection import Export
    from nngen.export.weights import Repetition

__all__ = ["export"]

_COLUMNS = ("model", "dataset", "epoch", "validation_accuracy", "test_accuracy", "transform", "new")


def export(
    *,
    to: Path,
    campaign: str | None = None,
    ids: Annotated[tuple[str, ...], Parameter(name="--id", negative="")] = (),
    min_accuracy: float = 0.0,
    lemur: str = "2.1.2",
    dataset_name: str | None = None,
    weights: bool = False,
    onnx: bool = False,
    data_root: Path | None = None,
    archive: Path | None = None,
    json: bool = False,
) -> None:
    """Write valid trials as LEMUR's own files, or into its database.

    Each trial becomes a model file, a result file of its last epoch and a model card; names, ids and
    layout are LEMUR's. The accuracy is the one on the test split, computed from the predictions kept with the
    trial and revealed in the archive. Exporting again appends nothing twice; into a checkout of nn-dataset it
    merges as LEMUR would. A killed export leaves the target as it was, or is finished by the next one.

    Args:
        to: A folder (a checkout of nn-dataset, or a new one), or an ab.nn.db.
        campaign: Export what this campaign trained.
        ids: Export these candidates, by id or the start of it.
        min_accuracy: Only trials of at least this validation accuracy.
        lemur: The release of nn-dataset that will read it, 2.1.2 or 2.2.11.
        dataset_name: What LEMUR shall call the data set.
        weights: Also write trained weights (safetensors). Trials keep none, so each model's best trial is trained
            again; the card says whether it predicted the same.
        onnx: Also write the trained graph, checked with onnxruntime against torch.
        data_root: Where torchvision's files lie.
        archive: The archive's file; NNGEN_ARCHIVE or ./nngen.db by default.
        json: Print what was written as JSON.

    Examples:
        nngen export --campaign demo --min-accuracy 0.9 --to ../nn-dataset
        nngen export --id MoE4-3f2a --to exported --lemur 2.2.11
        nngen export --id MoE4-3f2a --to exported --weights --onnx
        nngen export --campaign demo --to ../nn-dataset/db/ab.nn.db --json
    """
    from nngen.archive import Archive, default_path
    from nngen.datasets.dataset import load_dataset
    from nngen.export.database import export_to_database
    from nngen.export.folder import export_to_folder
    from nngen.export.selection import gather, select

    version = _version(lemur)
    into_database = to.is_file() or to.suffix == ".db"
    wanted = _wanted(weights=weights, onnx=onnx, into_database=into_database)
    with Archive.open(archive or default_path(), create=False) as store:
        trials = select(store, campaign=campaign, ids=ids, min_accuracy=min_accuracy)
        exports = gather(store, trials, lambda name: load_dataset(name, data_root=data_root), dataset_name=dataset_name)
        repetitions = _repeat(store, exports, wanted, lambda name: load_dataset(name, data_root=data_root))
    written = (
        export_to_database(to, exports, version)
        if into_database
        else export_to_folder(to, exports, version, repetitions)
    )
    rows = [_row(one) | _told(repetitions.get(one.export.candidate.id)) for one in written]
    if json:
        print_json(rows)
    else:
        print_table(rows, _COLUMNS)
        print(f"{to}: {sum(row['new'] for row in rows)} of {len(rows)} results are new")


def _wanted(*, weights: bool, onnx: bool, into_database: bool) -> tuple[str, ...]:
    from nngen.errors import UsageError
    from nngen.export.weights import check_installed
    from nngen.training.artifacts import ONNX, WEIGHTS

    wanted = (*([WEIGHTS] if weights else []), *([ONNX] if onnx else []))
    if wanted and into_database:
        raise UsageError("a database holds no weights and no graphs: export them to a folder")
    if wanted:
        check_installed(wanted)
    return wanted


def _repeat(
    store: Archive, exports: Sequence[Export], wanted: Sequence[str], load: Callable[[str], Dataset]
) -> dict[str, Repetition]:
    """Train each model's best trial once more, if something is wanted of it."""
    if not wanted:
        return {}
    from nngen.export.weights import repeat, to_repeat
    from nngen.training.local_engine import LocalEngine

    chosen, found = to_repeat(exports), {}
    with LocalEngine() as engine, progress_bar("training again") as report:
        for done, export in enumerate(chosen, 1):
            assert export.trial.spec is not None
            told = store.predictions(export.trial.id, "test")
            data = load(export.trial.spec.dataset)
            found[export.candidate.id] = repeat(export, data, engine, wanted, test_predictions=told)
            report(done, len(chosen))
            if reason := found[export.candidate.id].reason:
                print(f"nngen: {export.candidate.id}: no graph: {reason}", file=sys.stderr)
    return found


def _told(repetition: Repetition | None) -> dict[str, Any]:
    if repetition is None:
        return {}
    return {
        "weights": repetition.weights is not None,
        "onnx": repetition.onnx is not None,
        "same_predictions": repetition.same,
        "repeated_test_accuracy": repetition.test_accuracy,
    }


def _version(text: str) -> Any:
    from nngen.errors import UsageError
    from nngen.lemur.layout import LemurVersion

    try:
        return LemurVersion(text)
    except ValueError:
        known = " or ".join(LemurVersion)
        raise UsageError(f"no layout of nn-dataset {text} is known: choose --lemur {known}") from None


def _row(written: Any) -> dict[str, Any]:
    export = written.export
    return {
        "model": export.candidate.id,
        "dataset": export.results.dataset,
        "epoch": export.score.epoch,
        "validation_accuracy": export.trial.validation_accuracy,
        "test_accuracy": export.score.accuracy,
        "transform": export.transform.name,
        "new": written.new,
        "place": written.place,
    }
