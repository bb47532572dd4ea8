"""``nngen lemur``: bring LEMUR here and read its records."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from nngen.cli.output import print_json, print_table
from nngen.cli.progress import progress_bar

__all__ = ["app"]

app = App(name="lemur", help="Bring LEMUR here and read its records.")

_COLUMNS = ("model", "final_epoch", "final_accuracy", "best_epoch", "best_accuracy")


@app.command
def fetch(
    *,
    source: Annotated[Path | None, Parameter(name="--from", help="A wheel, a checkout or an ab.nn.db.")] = None,
    json: bool = False,
) -> None:
    """Bring LEMUR (the wheel nn-dataset 2.1.2, 103 MB) from PyPI into the user's cache, once.

    A broken or half download is replaced. With --from, that wheel is copied into the cache, or that
    checkout of nn-dataset or SQLite database is remembered, and later commands read it. The environment
    variable NNGEN_LEMUR names a source for one command; NNGEN_CACHE moves the cache.

    Args:
        source: A wheel, a checkout or an ab.nn.db to use instead of PyPI.
        json: Print the path and the name as JSON.

    Examples:
        nngen lemur fetch
        nngen lemur fetch --from nn_dataset-2.1.2-py3-none-any.whl
        nngen lemur fetch --from ../nn-dataset
    """
    from nngen.lemur.fetch import fetch as fetch_wheel
    from nngen.lemur.source import install, open_lemur

    if source is None:
        fetch_wheel(show_progress=sys.stderr.isatty())
    path = install(source)
    models = len(open_lemur(path).models())
    if json:
        print_json({"path": str(path), "models": models})
    else:
        print(f"{path}: {models:,} models")


@app.command
def history(
    models: Annotated[list[str], Parameter(negative="")],
    /,
    *,
    dataset: str = "cifar-10",
    json: bool = False,
) -> None:
    """Show the last epoch LEMUR recorded of each model, and its best one.

    An epoch's accuracy is the best of its trials.

    Args:
        models: Names of LEMUR's models, base families or generated ones.
        dataset: As LEMUR calls it: cifar-10, cifar-100, mnist, svhn, imagenette, ...
        json: Print the rows as JSON.

    Examples:
        nngen lemur history ResNet GoogLeNet
        nngen lemur history AirNet --dataset mnist --json
    """
    from nngen.lemur.history import history as read_history
    from nngen.lemur.source import open_lemur

    lemur = open_lemur()
    rows = []
    for model in models:
        row = asdict(read_history(lemur, model, dataset))
        rows.append({key: row[key] for key in _COLUMNS})
    if json:
        print_json(rows)
    else:
        print_table(rows, _COLUMNS)


@app.command(name="import")
def import_(
    *,
    dataset: str | None = None,
    kind: str = "any",
    source: Annotated[Path | None, Parameter(name="--from", help="A wheel, a checkout or an ab.nn.db.")] = None,
    archive: Path | None = None,
    jobs: int = 2,
    json: bool = False,
) -> None:
    """Bring LEMUR's models and results into the archive, as facts of foreign origin; nothing is trained.

    Epoch, transform and hyperparameters of every result are kept. Sources that are the same program are
    reported: equal but for white space (LEMUR's id), of equal syntax tree, or nearly alike (MinHash over
    7 tokens, estimated Jaccard similarity of at least 0.9). Importing again adds what is new and nothing twice.

    Args:
        dataset: Only models with results on it, and only those results; everything by default.
        kind: any, or hetero for mixtures of different families.
        source: A wheel, a checkout or an ab.nn.db other than the one that was fetched.
        archive: The archive's file; NNGEN_ARCHIVE or ./nngen.db by default.
        jobs: Processes that compare sources.
        json: Print what was found as JSON, every group of twins by name.

    Examples:
        nngen lemur import
        nngen lemur import --dataset cifar-10 --kind hetero
        nngen lemur import --from ../nn-dataset --json
    """
    from nngen.archive import Archive, default_path
    from nngen.archive.import_lemur import choose_models, import_lemur
    from nngen.errors import UsageError
    from nngen.lemur.source import open_lemur

    if jobs < 1:
        raise UsageError(f"--jobs must be at least 1, not {jobs}")
    lemur = open_lemur(source)
    names = choose_models(lemur, dataset=dataset, kind=kind)
    with Archive.open(archive or default_path()) as store, progress_bar("LEMUR into the archive") as report:
        found = asdict(import_lemur(store, lemur, names, dataset=dataset, jobs=jobs, progress=report))
    if json:
        print_json(found)
        return
    twins = found.pop("twins")
    print_table([found | {"known": len(found["known"])}], tuple(found))
    rows = [
        {"same": what.replace("_", " "), "groups": len(groups), "models": sum(map(len, groups))}
        for what, groups in twins.items()
    ]
    print_table(rows, ("same", "groups", "models"))
