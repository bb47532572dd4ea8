"""``nngen export``: trained mixtures as LEMUR's own files, or rows of its database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from nngen.analysis.suspicion import stored_suspicions
from nngen.archive import Archive
from nngen.assembly.provenance import source_level
from nngen.cli.options import ArchiveOptions, DataName, Flag, IsolationOption
from nngen.cli.options.family import note_levels
from nngen.cli.output import note, print_json, print_table, say
from nngen.cli.progress import progress_bar
from nngen.datasets import Dataset, load_dataset
from nngen.errors import UsageError
from nngen.export.database import export_to_database
from nngen.export.folder import Written, export_to_folder
from nngen.export.selection import Export, Repetition, gather, select
from nngen.export.weights import check_installed, repeat, to_repeat
from nngen.lemur.layout import LemurVersion
from nngen.training.local_engine import LocalEngine
from nngen.training.state.artifacts import ONNX
from nngen.training.state.checkpoints import WEIGHTS
from nngen.types import Shape

_COLUMNS = ("model", "dataset", "epoch", "validation_accuracy", "test_accuracy", "transform", "new")


def export(
    campaign: str | None = None,
    /,
    *,
    out: Path,
    ids: Annotated[tuple[str, ...], Parameter(name="--id", negative="", show_default=False)] = (),
    min_accuracy: float = 0.0,
    lemur: str = "2.1.2",
    dataset: DataName | None = None,
    dataset_name: str | None = None,
    weights: Flag = False,
    onnx: Flag = False,
    data_root: Path | None = None,
    isolation: IsolationOption = "auto",
    output: ArchiveOptions = ArchiveOptions(),
) -> None:
    """Export trained mixtures to LEMUR: as files in its layout, or into its database.

    Each trial becomes a model file, a result file of its last epoch and a model card; names, ids and layout are
    LEMUR's. The accuracy is the one on the test split, computed from the predictions stored with the trial and
    revealed in the archive. A second export adds nothing twice; into a checkout of nn-dataset it merges as LEMUR
    does. An export that was killed leaves the target as it was, or is completed by the next one.

    Args:
        campaign: Name of the campaign whose trials are exported; with --id, those of its candidates alone.
        out: A folder (a checkout of nn-dataset, or a new one), or an ab.nn.db.
        ids: Id of a candidate to export, or the start of one; may be given several times.
        min_accuracy: Least validation accuracy of the trials.
        lemur: Release of nn-dataset that will read the export, 2.1.2 or 2.2.11.
        dataset: Data set of the trials; all by default.
        dataset_name: Name in LEMUR of the data set that LEMUR has no name for.
        weights: Also write trained weights (safetensors), with a config.json that says how images are prepared.
            Trials keep none, so each model's best trial on each data set is trained again; the card states whether
            it predicted the same.
        onnx: Also write the trained graph, checked with onnxruntime against torch.
        data_root: Folder that torchvision's files are read from.

    Examples:
        nngen export demo --min-accuracy 0.9 --out ../nn-dataset
        nngen export --id MoE4-3f2a --out exported --lemur 2.2.11
        nngen export --id MoE4-3f2a --out exported --weights --onnx
        nngen export demo --out ../nn-dataset/db/ab.nn.db --json
    """
    version = _version(lemur)
    into_database = out.is_file() or out.suffix == ".db"
    wanted = (*([WEIGHTS] if weights else []), *([ONNX] if onnx else []))
    if wanted and into_database:
        raise UsageError("a database holds no weights and no graphs: export them to a folder")
    if wanted:
        check_installed(wanted)

    def load(name: str, shape: Shape) -> Dataset:
        return load_dataset(name, data_root=data_root, shape=shape)

    with output.open(create=False) as store:
        trials = select(store, campaign=campaign, ids=ids, dataset=dataset, min_accuracy=min_accuracy)
        for trial_id, reason in stored_suspicions(store.lines, trials).items():
            note(f"trial {trial_id} is suspect: {reason}")
        exports = gather(store, trials, load, dataset_name=dataset_name)
        repetitions = _repeat(store, exports, wanted, load, isolation)
    written = (
        export_to_database(out, exports, version)
        if into_database
        else export_to_folder(out, exports, version, repetitions)
    )
    by_key = {one.export.key: one for one in repetitions}
    rows = [_row(one, by_key.get(one.export.key)) for one in written]
    if output.json:
        print_json(rows)
    else:
        print_table(rows, _COLUMNS)
        say(f"{out}: {sum(row['new'] for row in rows)} of {len(rows)} results are new")


def _repeat(
    store: Archive,
    exports: Sequence[Export],
    wanted: Sequence[str],
    load: Callable[[str, Shape], Dataset],
    isolation: str,
) -> list[Repetition]:
    """Train each model's best trial on each data set again, if weights or a graph are asked for."""
    if not wanted:
        return []
    chosen, found = to_repeat(exports), list[Repetition]()
    note_levels((source_level(export.candidate.source, isolation) for export in chosen), "candidates")
    with LocalEngine() as engine, progress_bar("training again") as report:
        for done, export in enumerate(chosen, 1):
            spec = export.trial.spec
            assert spec is not None
            data = load(spec.dataset, spec.shape)
            predictions = store.predictions(export.trial.id, "test")
            found.append(repeat(export, data, engine, wanted, isolation=isolation, test_predictions=predictions))
            report(done, len(chosen))
            if reason := found[-1].reason:
                note(f"{export.candidate.id}: no graph: {reason}")
    return found


def _version(text: str) -> LemurVersion:
    try:
        return LemurVersion(text)
    except ValueError:
        known = " or ".join(LemurVersion)
        raise UsageError(f"no layout of nn-dataset {text} is known: choose --lemur {known}") from None


def _row(written: Written, repetition: Repetition | None) -> dict[str, Any]:
    export = written.export
    repeated = repetition and {
        "weights": repetition.weights is not None,
        "onnx": repetition.onnx is not None,
        "same_predictions": repetition.same,
        "repeated_test_accuracy": repetition.test_accuracy,
    }
    return {
        "model": export.candidate.id,
        "dataset": export.results.dataset,
        "epoch": export.score.epoch,
        "validation_accuracy": export.trial.validation_accuracy,
        "test_accuracy": export.score.accuracy,
        "transform": export.transform.name,
        "new": written.new,
        "place": written.place,
        **(repeated or {}),
    }
