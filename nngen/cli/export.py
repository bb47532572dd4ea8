"""``nngen export``: trained mixtures as LEMUR's own files, rows of its database, or a folder for the model hub."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from nngen.analysis.formatting import duration
from nngen.analysis.suspicion import stored_suspicions
from nngen.archive import Archive, StoredTrial
from nngen.assembly.provenance import source_level
from nngen.cli.options import ArchiveOptions, DataName, Flag, IsolationOption
from nngen.cli.options.family import note_levels
from nngen.cli.output import note, print_json, print_table, say, suggest
from nngen.cli.progress import progress_bar
from nngen.datasets import Dataset, load_dataset
from nngen.errors import DataError, UsageError
from nngen.export.database import export_to_database
from nngen.export.folder import PROGRAM, Written, export_to_folder, export_to_hub_folder
from nngen.export.kept_weights import kept_file
from nngen.export.selection import Export, TrainedFiles, gather, select
from nngen.export.weights import best_trial, check_installed, from_kept, repeat, with_weights
from nngen.lemur.layout import LemurVersion
from nngen.text import public_name
from nngen.training.inference import KeptWeights
from nngen.training.local_engine import LocalEngine
from nngen.training.state.artifacts import ONNX
from nngen.training.state.checkpoints import WEIGHTS
from nngen.types import Shape

_COLUMNS = ("model", "dataset", "epoch", "validation_accuracy", "test_accuracy", "transform", "new")


def export(
    campaign: Annotated[str | None, Parameter(name="CAMPAIGN|ID")] = None,
    /,
    *,
    out: Path,
    ids: Annotated[tuple[str, ...], Parameter(name="--id", negative="", show_default=False)] = (),
    form: Annotated[str, Parameter(name="--format")] = "lemur",
    min_accuracy: float = 0.0,
    lemur: str = "2.1.2",
    dataset: DataName | None = None,
    dataset_name: str | None = None,
    weights: Flag = False,
    onnx: Flag = False,
    data_root: Path | None = None,
    isolation: IsolationOption = "auto",
    dry_run: Flag = False,
    output: ArchiveOptions = ArchiveOptions(),
) -> None:
    """Export trained mixtures to LEMUR, as files in its layout or into its database, or one of them to the model hub.

    Each trial becomes a model file, a result file of its last epoch and a model card; names, ids and layout are
    LEMUR's. The accuracy is the one on the test split, computed from the predictions stored with the trial and
    revealed in the archive. A second export adds nothing twice; into a checkout of nn-dataset it merges as LEMUR
    does. An export that was killed leaves the target as it was, or is completed by the next one.

    With ``--format hf`` the best of the trials becomes a folder for the Hugging Face hub: weights, configuration,
    source, a program that classifies images without nngen, and a model card as README.md.

    Args:
        campaign: Name of the campaign whose trials are exported; with --id, those of its candidates alone. Or the id
            of a candidate.
        out: A folder (a checkout of nn-dataset, or a new one), or an ab.nn.db.
        ids: Id of a candidate to export, or the start of one; may be given several times.
        form: ``lemur``, or ``hf`` for a folder for the Hugging Face hub.
        min_accuracy: Least validation accuracy of the trials.
        lemur: Release of nn-dataset that will read the export, 2.1.2 or 2.2.11.
        dataset: Data set of the trials; all by default.
        dataset_name: Name in the export of the data set that LEMUR has no name for.
        weights: Also write trained weights (safetensors), with a config.json that says how images are prepared: those
            that each model's best trial on each data set kept. A trial that kept none is trained again; the card
            states whether it predicted the same.
        onnx: Also write the trained graph, checked with onnxruntime against torch.
        data_root: Folder that torchvision's files are read from.
        dry_run: Write, train and reveal nothing: print the results that would be exported, and the time of the trials
            that kept no weights and would be trained again.

    Examples:
        nngen export demo --min-accuracy 0.9 --out ../nn-dataset
        nngen export MoE4-3f2a --out exported --lemur 2.2.11
        nngen export --id MoE4-3f2a --out exported --weights --onnx
        nngen export demo --out ../nn-dataset/db/ab.nn.db --json
        nngen export demo --format hf --out best
    """
    version, hub = _version(lemur), _is_hub(form)
    into_database = out.is_file() or out.suffix == ".db"
    wanted = (*([WEIGHTS] if weights or hub else []), *([ONNX] if onnx else []))
    if wanted and into_database:
        raise UsageError("a database holds no weights and no graphs: export them to a folder")
    if wanted:
        check_installed(wanted)

    def load(name: str, shape: Shape) -> Dataset:
        return load_dataset(name, data_root=data_root, shape=shape)

    with output.read() if dry_run else output.open(create=False) as store:
        campaign, ids = _settle(store, campaign, ids)
        trials = select(store, campaign=campaign, ids=ids, dataset=dataset, min_accuracy=min_accuracy)
        kept = {trial.id: file for trial in trials if (file := kept_file(store, trial)) is not None}
        if hub:
            best = best_trial(trials, kept)
            trials = (best,)
            if best.spec and ":" in best.spec.dataset:  # named by a path of this machine
                dataset_name = dataset_name or public_name(best.spec.dataset)
        for trial_id, reason in stored_suspicions(store.lines, trials).items():
            note(f"trial {trial_id} is suspect: {reason}")
        if dry_run:
            _foresee(trials, kept if wanted else None, output)
            return
        exports = gather(store, trials, load, dataset_name=dataset_name)
        trained = _trained_files(store, exports, wanted, kept, load, isolation) if wanted else []
    if hub:
        names = export_to_hub_folder(out, trained[0])
        written: Sequence[Written] = [Written(export=exports[0], new=True, place=str(out))]
        ending = f"{', '.join(names)}; python {out}/{PROGRAM} IMAGE classifies images, without nngen"
    else:
        written = (
            export_to_database(out, exports, version)
            if into_database
            else export_to_folder(out, exports, version, trained)
        )
        ending = f"{sum(one.new for one in written)} of {len(written)} results are new"
    by_key = {one.export.key: one for one in trained}
    rows = [_row(one, by_key.get(one.export.key)) for one in written]
    if output.json:
        print_json(rows)
    else:
        print_table(rows, _COLUMNS[:5] if hub else _COLUMNS)
        say(f"{out}: {ending}")
    suggest("show", written[0].export.candidate.id[:13], *output.place)


def _foresee(trials: Sequence[StoredTrial], kept: Mapping[int, Path] | None, output: ArchiveOptions) -> None:
    """Print what an export would hold, and the time of trainings for weights; ``kept`` is None without weights."""
    models: dict[tuple[str, str], list[StoredTrial]] = {}
    for trial in trials:
        if trial.candidate_id is not None and trial.spec is not None:
            models.setdefault((trial.candidate_id, trial.spec.dataset), []).append(trial)
    chosen = [best_trial(same, kept or ()) for same in models.values()]
    again = [] if kept is None else [trial for trial in chosen if trial.id not in kept]
    rows = [
        {
            "model": trial.candidate_id,
            "dataset": dataset,
            "validation_accuracy": trial.validation_accuracy,
            "trained_again": trial in again,
            "seconds": trial.seconds if trial in again else 0.0,
        }
        for (_, dataset), trial in zip(models, chosen, strict=True)
    ]
    seconds = sum(trial.seconds or 0.0 for trial in again)
    if output.json:
        print_json({"results": len(trials), "hours": seconds / 3600, "models": rows})
        return
    print_table(rows)
    say(f"dry run: nothing is written, trained or revealed; {len(trials):,} results of {len(rows):,} models")
    if again:
        took = duration(seconds)
        say(f"{len(again):,} are trained again for their weights: about {took}, as long as their trials took")


def _settle(store: Archive, name: str | None, ids: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    """Return the campaign and the ids that are meant: the positional name may be an id."""
    if name is None or any(record.name == name for record in store.campaigns()):
        return name, ids
    try:
        return None, (store.candidate(name).id, *ids)
    except UsageError:  # neither; the message on campaigns names those that there are
        return name, ids


def _trained_files(
    store: Archive,
    exports: Sequence[Export],
    wanted: Sequence[str],
    kept: Mapping[int, Path],
    load: Callable[[str, Shape], Dataset],
    isolation: str,
) -> list[TrainedFiles]:
    """Return the files of each model's best trial on each data set, which is trained again where it kept no weights."""
    chosen, found = with_weights(exports, kept), list[TrainedFiles]()
    note_levels((source_level(export.candidate.source, isolation) for export in chosen), "candidates")
    again = sum(export.trial.id not in kept for export in chosen)
    if again:
        note(f"{again} of {len(chosen)} trials kept no weights and are trained again")
    with LocalEngine() as engine, progress_bar("weights") as report:
        for done, export in enumerate(chosen, 1):
            spec, file, name = export.trial.spec, kept.get(export.trial.id), export.candidate.id
            assert spec is not None
            data, predictions = load(spec.dataset, spec.shape), store.predictions(export.trial.id, "test")
            files = None
            if file is not None:
                try:
                    weights = KeptWeights.read(file.parent)
                    files = from_kept(
                        export, data, engine, wanted, weights, isolation=isolation, test_predictions=predictions
                    )
                except DataError as error:
                    note(f"{name} is trained again: {error}")
            files = files or repeat(export, data, engine, wanted, isolation=isolation, test_predictions=predictions)
            found.append(files)
            report(done, len(chosen))
            if files.reason:
                note(f"{name}: no graph: {files.reason}")
    return found


def _is_hub(form: str) -> bool:
    if form not in ("lemur", "hf"):
        raise UsageError(f"--format is lemur or hf, not {form!r}")
    return form == "hf"


def _version(text: str) -> LemurVersion:
    try:
        return LemurVersion(text)
    except ValueError:
        known = " or ".join(LemurVersion)
        raise UsageError(f"no layout of nn-dataset {text} is known: choose --lemur {known}") from None


def _row(written: Written, trained: TrainedFiles | None) -> dict[str, Any]:
    export = written.export
    files = trained and {
        "weights": trained.weights is not None,
        "onnx": trained.onnx is not None,
        "kept_weights": trained.kept,
        "same_predictions": trained.same,
        "repeated_test_accuracy": trained.test_accuracy,
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
        **(files or {}),
    }
