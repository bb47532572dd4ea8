"""Imports LEMUR's models and their results into an archive, as external results; nothing is trained.

Sources are fingerprinted in worker processes while this one reads and stores the results. A killed import leaves
whole chunks behind; the same command adds the missing ones, and nothing twice.
"""

from __future__ import annotations

import multiprocessing
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from more_itertools import chunked, map_reduce

from nngen.archive import Archive, ExternalModel, ExternalResult
from nngen.assembly.identity import canonical_hash
from nngen.errors import UsageError
from nngen.families.catalogue import is_base
from nngen.families.near_duplicates import Sketch, group_sketches, sketch_text
from nngen.lemur.layout import nn_id
from nngen.lemur.reader import Lemur
from nngen.lemur.records import ResultFile, to_record
from nngen.text import one_line

KINDS = ("any", "hetero")

Progress = Callable[[int, int], None]
"""Receives the steps done and the steps in all: each model is fingerprinted, then its results are read."""

_CHUNK = 20_000
_SLICE = 250
_FEW = 500  # below so many sources, starting a process costs more than it saves


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """The three identities by which sources are compared."""

    nn_id: str  # LEMUR's id
    canonical: str | None  # the canonical hash; None where the source does not parse
    sketch: Sketch  # MinHash of the text


@dataclass(frozen=True, slots=True, kw_only=True)
class Twins:
    """Groups of two or more names that share a source in one of three senses; each group sorted."""

    white_space: tuple[tuple[str, ...], ...]  # equal but for white space (LEMUR's id)
    canonical: tuple[tuple[str, ...], ...]  # equal syntax trees
    # texts of at least ``TWIN_MODELS`` estimated similarity to the first of the group
    near: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """Counts of an import: everything it found, and the part of it that was new."""

    models: int  # number of models, with or without results
    new_models: int  # number of models that were not stored yet
    unreadable: int  # number of sources that are not Python of this version
    trials: int  # number of results; one per model, data set, epoch and set of hyperparameters
    new_trials: int  # number of results that were not stored yet
    orphans: int  # number of results left out because their model was not chosen, or has no source
    known: tuple[str, ...]  # ids of own candidates that LEMUR holds too, by the white-space-blind id
    twins: Twins  # groups of models whose sources are the same or nearly the same


def fingerprint(source: str) -> Fingerprint:
    """Compute all three identities of a source; one that does not parse has no canonical hash."""
    try:
        canonical: str | None = canonical_hash(source)
    except SyntaxError:
        canonical = None
    return Fingerprint(nn_id=nn_id(source), canonical=canonical, sketch=sketch_text(source))


def find_twins(prints: Mapping[str, Fingerprint]) -> Twins:
    """Group the models whose sources are the same or nearly the same."""
    names = sorted(prints)
    white_space = map_reduce(names, lambda name: prints[name].nn_id)
    canonical = map_reduce((name for name in names if prints[name].canonical), lambda name: prints[name].canonical)
    return Twins(
        white_space=tuple(tuple(group) for group in white_space.values() if len(group) > 1),
        canonical=tuple(tuple(group) for group in canonical.values() if len(group) > 1),
        near=group_sketches({name: found.sketch for name, found in prints.items()}),
    )


def kind_of(model: str) -> str:
    """Classify a model of LEMUR by its name: base, hetero (mixture of different families), mixture or generated."""
    if "MoE" in model:
        return "hetero" if "hetero" in model.lower() else "mixture"
    return "base" if is_base(model) else "generated"


def import_lemur(
    archive: Archive,
    lemur: Lemur,
    names: Sequence[str],
    *,
    dataset: str | None = None,
    jobs: int = 2,
    progress: Progress | None = None,
) -> Intake:
    """Import models of LEMUR and their results, on one data set or all; ``jobs`` processes fingerprint sources.

    Raises:
        LemurError: If it cannot be read.
        ArchiveError: If the archive cannot be written.
    """
    sources = {name: lemur.source(name) for name in names}
    prints = _fingerprints(sources, jobs, progress)
    before = archive.external.counts()
    numbers = archive.external.add_models(
        ExternalModel(
            origin=lemur.name,
            name=name,
            kind=kind_of(name),
            nn_id=prints[name].nn_id,
            canonical=prints[name].canonical,
            source=source,
        )
        for name, source in sources.items()
    )
    orphans, seen = Counter[str](), set[int]()
    stream = _results(lemur.read_results(None if dataset is None else {dataset}), numbers, orphans)
    offered = new = 0
    for chunk in chunked(stream, _CHUNK):
        added = archive.external.add_results(chunk)
        offered, new = offered + added.offered, new + added.new
        seen |= {result.model_id for result in chunk}
        if progress:
            progress(len(names) + len(seen), 2 * len(names))
    counts, theirs = archive.external.counts(), {found.nn_id for found in prints.values()}
    intake = Intake(
        models=len(numbers),
        new_models=counts["models"] - before["models"],
        unreadable=sum(found.canonical is None for found in prints.values()),
        trials=offered,
        new_trials=new,
        orphans=orphans.total(),
        known=tuple(candidate.id for candidate in archive.candidates() if nn_id(candidate.source) in theirs),
        twins=find_twins(prints),
    )
    archive.log("lemur.imported", origin=lemur.name, dataset=dataset, models=intake.models, trials=intake.new_trials)
    return intake


def choose_models(lemur: Lemur, *, dataset: str | None = None, kind: str = "any") -> list[str]:
    """Choose the models to import: ``any``, or ``hetero`` for mixtures of different families; with results on the data.

    Raises:
        UsageError: If there is none; the message lists the choices.
        LemurError: If LEMUR cannot be read.
    """
    if kind not in KINDS:
        raise UsageError(f"no kind of model is called {kind!r}: choose {' or '.join(KINDS)}")
    names = [name for name in lemur.models() if kind == "any" or kind_of(name) == kind]
    if not names:
        raise UsageError(f"{lemur.name} holds no model of kind {kind}: choose --kind any")
    if dataset is None:
        return names
    recorded = {file.results.model for file in lemur.read_results({dataset})}
    if not recorded:
        others = sorted({file.results.dataset for file in lemur.read_results()})
        raise UsageError(f"{lemur.name} has no results on {dataset!r}; it has some on {', '.join(others)}")
    chosen = [name for name in names if name in recorded]
    if not chosen:
        raise UsageError(f"{lemur.name} has no results of kind {kind} on {dataset!r}: choose --kind any")
    return chosen


def _results(
    files: Iterable[ResultFile], numbers: Mapping[str, int], orphans: Counter[str]
) -> Iterator[ExternalResult]:
    """Iterate over the results of the models that have a number; count the others by model in ``orphans``."""
    for file in files:
        number = numbers.get(file.results.model)
        if number is None:
            orphans[file.results.model] += len(file.trials)
            continue
        for trial in file.scored:
            yield ExternalResult(
                model_id=number,
                task=file.results.task,
                metric=file.results.metric,
                uid=one_line(str(trial.get("uid", "")), 100),
                record=to_record(file.results, file.epoch, trial),
            )


def _fingerprints(sources: Mapping[str, str], jobs: int, progress: Progress | None) -> dict[str, Fingerprint]:
    """Fingerprint every source, in processes of their own where there are many."""
    slices = [[sources[name] for name in part] for part in chunked(sources, _SLICE)]
    prints: list[Fingerprint] = []
    with ExitStack() as stack:
        mapped: Iterable[list[Fingerprint]] = map(_fingerprint_all, slices)
        if jobs > 1 and len(sources) >= _FEW:
            # Spawned, not forked: this process may have threads of torch or SQLite.
            context = multiprocessing.get_context("spawn")
            stack.enter_context(_without_current_folder())
            mapped = stack.enter_context(ProcessPoolExecutor(jobs, mp_context=context)).map(_fingerprint_all, slices)
        for found in mapped:
            prints += found
            if progress:
                progress(len(prints), 2 * len(sources))
    return dict(zip(sources, prints, strict=True))


@contextmanager
def _without_current_folder() -> Iterator[None]:
    """Keep Python processes started in the block from importing modules of the current folder; spawn has no option."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def _fingerprint_all(sources: list[str]) -> list[Fingerprint]:
    with warnings.catch_warnings():
        # Invalid escapes in LEMUR's sources are none of the user's concern.
        warnings.simplefilter("ignore", SyntaxWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        return [fingerprint(source) for source in sources]
