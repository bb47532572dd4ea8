"""``nngen lemur`` and ``nngen families``: fetch LEMUR, read its records, list its families, import its models."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from nngen.archive.import_lemur import choose_models, import_lemur
from nngen.cli.options import ArchiveOptions, Count, DataName, IsolationOption, OutputOptions, ShapeOption
from nngen.cli.options.family import FamilySource, note_family_levels
from nngen.cli.output import note, print_json, print_table, say, suggest
from nngen.cli.progress import progress_bar
from nngen.cli.replay import replay
from nngen.errors import UsageError
from nngen.families.near_duplicates import near_twins
from nngen.families.probe import profiles
from nngen.families.profile import NOTES, Profile, check_shape
from nngen.lemur.fetch import fetch as fetch_wheel
from nngen.lemur.source import install, open_lemur
from nngen.space.pool import EXPERTS
from nngen.types import Family, Shape

app = App(name="lemur", help="Fetch LEMUR; read, import and replay its records.")
app.command(replay)

_Source = Annotated[Path | None, Parameter(name="--from")]


@app.command
def fetch(*, source: _Source = None, output: OutputOptions = OutputOptions()) -> None:
    """Fetch LEMUR (the wheel nn-dataset 2.1.2, 103 MB) from PyPI into the user's cache, once.

    An incomplete or damaged download is replaced. With --from, that wheel is copied into the cache, or that
    checkout of nn-dataset or SQLite database is remembered, and later commands read it. The environment
    variable NNGEN_LEMUR names a source for one command; NNGEN_CACHE moves the cache.

    Args:
        source: A wheel, a checkout or an ab.nn.db to use instead of PyPI.

    Examples:
        nngen lemur fetch
        nngen lemur fetch --from nn_dataset-2.1.2-py3-none-any.whl
        nngen lemur fetch --from ../nn-dataset
    """
    if source is None:
        fetch_wheel(show_progress=sys.stderr.isatty())
    path = install(source)
    models = len(open_lemur(path).models())
    if output.json:
        print_json({"path": str(path), "models": models})
    else:
        say(f"{path}: {models:,} models")
    suggest("families", "--shape", "3x32x32")


@app.command
def history(
    models: Annotated[list[str], Parameter(negative="")],
    /,
    *,
    dataset: DataName = "cifar-10",
    output: OutputOptions = OutputOptions(),
) -> None:
    """Show the last epoch LEMUR recorded of each model, and its best one.

    The accuracy of an epoch is that of its best trial.

    Args:
        models: Names of LEMUR's models, base families or generated ones.
        dataset: LEMUR's name of the data set: cifar-10, cifar-100, mnist, svhn, imagenette, ...

    Examples:
        nngen lemur history ResNet GoogLeNet
        nngen lemur history AirNet --dataset mnist --json
    """
    lemur = open_lemur()
    columns = ("model", "final_epoch", "final_accuracy", "best_epoch", "best_accuracy")
    found = [asdict(lemur.history(model, dataset)) for model in models]
    output.print_rows([{key: row[key] for key in columns} for row in found])


@app.command(name="import")
def import_(
    *,
    dataset: DataName | None = None,
    kind: str = "any",
    source: _Source = None,
    jobs: Count = 2,
    output: ArchiveOptions = ArchiveOptions(),
) -> None:
    """Import LEMUR's models and results into the archive as external results; nothing is trained.

    Epoch, transform and hyperparameters of every result are kept. Sources that are the same program are
    reported: equal but for white space (LEMUR's id), of equal syntax tree, or nearly alike (MinHash over
    7 tokens, estimated Jaccard similarity of at least 0.9). Importing again adds only what is new.

    Args:
        dataset: Only models with results on this data set, and only those results; everything by default.
        kind: any, or hetero for mixtures of different families.
        source: A wheel, a checkout or an ab.nn.db other than the one that was fetched.
        jobs: Processes that compare sources.

    Examples:
        nngen lemur import
        nngen lemur import --dataset cifar-10 --kind hetero
        nngen lemur import --from ../nn-dataset --json
    """
    lemur = open_lemur(source)
    names = choose_models(lemur, dataset=dataset, kind=kind)
    with output.open() as store, progress_bar("LEMUR into the archive") as report:
        found = asdict(import_lemur(store, lemur, names, dataset=dataset, jobs=jobs, progress=report))
    if output.json:
        print_json(found)
        return
    twins = found.pop("twins")
    print_table([found | {"known": len(found["known"])}])
    rows = [
        {"same": same.replace("_", " "), "groups": len(groups), "models": sum(map(len, groups))}
        for same, groups in twins.items()
    ]
    print_table(rows)


def families(
    *,
    shape: ShapeOption = Shape(3, 32, 32),
    selection: FamilySource = FamilySource(),
    jobs: Count | None = None,
    isolation: IsolationOption = "auto",
    output: OutputOptions = OutputOptions(),
) -> None:
    """List LEMUR's base families: whether each is usable at a shape and why not, its size and its best result.

    A family is measured once (imported, built, run forward and backward in a process of its own, and compared with
    itself as an expert of a mixture); the result is cached. ``native`` families take the shape as it is; the others are
    usable behind the adapter named, which resizes the images or casts them to complex numbers. Families with nearly the
    same source are named on stderr.

    Args:
        jobs: Families measured at a time; one for each CPU by default.

    Examples:
        nngen families
        nngen families --shape 1x28x28 --json
        nngen families --families ResNet,DenseNet --shape 3x64x64
        nngen families --families-from examples/families
    """
    check_shape(shape)
    chosen = selection.chosen()
    note_family_levels(chosen, isolation, trains=False)
    with progress_bar(f"probing at {shape}") as report:
        measured = profiles(chosen, shape, progress=report, jobs=jobs, wanted=isolation)
    if not any(profile.usable for profile in measured.values()) and selection.families is None:
        first = next(iter(measured.values()))
        raise UsageError(f"no family takes {shape}; {first.name}: {first.reason}")
    rows = [_row(family, measured[family.name], shape) for family in chosen]
    kept = [name for name, profile in measured.items() if profile.interface and not profile.interface.channels_last]
    if kept:
        note(f"on a graphics card these stay in contiguous memory format, others in channels_last: {', '.join(kept)}")
    for name, others in near_twins(chosen).items():
        if name < min(others):  # each group once, under its first name
            note(f"near-twins, a few tokens apart: {', '.join((name, *others))}")
    for fact, text in NOTES.items():
        if names := [name for name, profile in measured.items() if fact in profile.notes]:
            note(f"{', '.join(names)}: {text}")
    columns = ("name", "usable", "native", "adapter", "parameters", "best_accuracy", "best_epoch", "reason")
    output.print_rows(rows, columns)
    usable = sorted((row for row in rows if row["usable"]), key=lambda row: row["parameters"] or 0)
    if len(usable) >= EXPERTS:
        light = ",".join(row["name"] for row in usable[:EXPERTS])
        suggest("assemble", "--families", light, "--shape", shape, "--out", "generated/one")


def _row(family: Family, profile: Profile, shape: Shape) -> dict[str, Any]:
    adapter = profile.adapter(shape)
    best = family.best
    return {
        "name": family.name,
        "usable": profile.usable,
        "native": profile.native(shape),
        "adapter": str(adapter) if adapter else None,
        "reason": profile.why(shape),
        "notes": list(profile.notes),
        "parameters": profile.parameters.get(str(shape)),
        "channels_last": None if profile.interface is None else profile.interface.channels_last,
        "best_accuracy": None if best is None else best.accuracy,
        "best_epoch": None if best is None else best.epoch,
        "hyperparameters": {} if best is None else dict(best.hyperparameters),
    }
