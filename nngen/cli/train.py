"""``nngen train``: a campaign of given files, trained in isolated workers and scored outside."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from nngen.archive import Archive, StoredTrial, TrialState
from nngen.assembly.provenance import source_level, stated_plan
from nngen.campaign.budget import Budget, last_budget
from nngen.campaign.protocols import CampaignInputs, GivenCandidates, Suggestion, Watcher
from nngen.campaign_spec import CampaignSpec
from nngen.checks import CheckFailed
from nngen.checks.source import own_seeds
from nngen.cli.options import ArchiveOptions, Assignments, Flag, hyperparameters
from nngen.cli.options.dry_run import DryRun, foresee_campaign
from nngen.cli.options.engine import BudgetOptions, EngineOptions, TrialOptions
from nngen.cli.options.family import note_levels
from nngen.cli.options.folds import Folds, begin_fold, folded, print_folds
from nngen.cli.output import note, print_json, print_table, say, suggest
from nngen.cli.progress import trial_progress
from nngen.datasets import Dataset
from nngen.errors import NngenError, SomeFailedError, UsageError
from nngen.families.catalogue import load_families
from nngen.families.probe import usable_families
from nngen.lemur.source import open_lemur
from nngen.plan import Plan
from nngen.training import accuracy
from nngen.training.candidate_files import find_files, read_candidate
from nngen.types import Candidate, EpochResult, Family, Interface, TrialSpec

if TYPE_CHECKING:  # loaded where they are used, which the help of a command does not
    from nngen.analysis.quality.metrics import Quality
    from nngen.campaign.runner import Campaign

_ALSO_JSON = ("curve", "batches_tried", "prm", "energy_j", "data_fingerprint", "isolation", "environment")
"""Fields of a trial that the table leaves out."""

_TAKEN_OVER = (
    "dataset",
    "shape",
    "batch",
    "lr",
    "momentum",
    "augment",
    "class_weights",
    "hyperparameters",
    "train_size",
)
"""Settings of the trial whose weights are started from."""


def train(
    paths: Annotated[list[Path] | None, Parameter(negative="")] = None,
    /,
    *,
    start: Annotated[str | None, Parameter(name="--from")] = None,
    name: str | None = None,
    spec: TrialOptions = TrialOptions(),
    prm: Assignments = (),
    budget: BudgetOptions = BudgetOptions(),
    machines: EngineOptions = EngineOptions(),
    test: Flag = False,
    folds: Folds = None,
    dry_run: DryRun = False,
    output: ArchiveOptions = ArchiveOptions(),
) -> None:
    """Check and train files in isolated workers and score them outside, on the validation split.

    A worker holds the labels of the train split alone; it returns predictions, and the accuracy is computed from
    them outside. On a CPU the same command gives the same accuracy to the last digit. With --name the trials are a
    campaign in the archive: it may be stopped and killed, and the same command resumes it. The exit code is 3 if
    some of several files failed, and 1 if the only one did.

    Args:
        paths: Files in LEMUR's contract, or folders of ``*.py`` files.
        start: Train this candidate of the archive, or the best of this campaign, from its kept weights, with new
            optimizer and schedule; in place of paths. Settings that are not typed are those of its trial.
        name: Name of a campaign that stores the trials in the archive; by default nothing is stored.
        prm: A further hyperparameter as NAME=VALUE.
        test: Print the accuracy on the test split too.

    Examples:
        nngen train generated/first.py --epochs 3
        nngen train generated/first.py --dataset fashion-mnist --shape 1x32x32 --seed 1 --json
        nngen train generated --name mine --epochs 5 --workers 2 --max-hours 1
        nngen train generated --name mine --engine ray
        nngen train generated/first.py --folds 5
        nngen train --from small --epochs 5 --dataset folder:photos --name tuned
    """
    from nngen.analysis.quality.cross_validation import fold_rows
    from nngen.analysis.quality.metrics import quality_of
    from nngen.campaign.summary import summarise

    if (paths is None) == (start is None):
        raise UsageError("say what to train: files or folders, or --from ID")
    origin = _origin(output, start, machines) if start is not None else None
    files = find_files(paths or []) if origin is None else [Path(f"{origin.candidate.id}.py")]
    candidates = [_read(file) for file in files] if origin is None else [origin.candidate]
    for file, candidate in zip(files, candidates, strict=True):
        if warning := own_seeds(candidate.source):
            note(f"{file}: {warning}")
    typed = machines.settle(spec) | ({"hyperparameters": hyperparameters(prm)} if prm else {})
    if origin is not None:
        typed = origin.settings(typed)
    if dry_run:
        candidates = [_with_plan(candidate) for candidate in candidates]
    parts = folded(output, name or "train", typed, folds)
    rows: list[dict[str, Any]] = []
    baselines: tuple[str, ...] = ()
    with _store(output, name, dry_run=dry_run) as store:
        for title, arguments in parts:
            begin_fold(title, folds)
            with _campaign(title, arguments, candidates, store, machines, budget, origin, dry=dry_run) as campaign:
                campaign = replace(campaign, reveal=test)
                if dry_run:
                    # Each fold takes as long as the first.
                    foresee_campaign(campaign, output, times=len(parts))
                    return
                alone = len(files) == 1 and name is None
                epochs = nullcontext(_Epochs(campaign.spec.epochs))
                with epochs if alone else trial_progress(compiled=machines.compiled) as watcher:
                    replace(campaign, watcher=watcher).run()
            trials = sorted(store.trials(title), key=lambda trial: trial.position)
            data = campaign.inputs.dataset
            rows += [
                _row(file, trial, _test_accuracy(store, trial, data) if test else None, quality_of(store, trial))
                for file, trial in zip(files, trials, strict=True)
                if trial.state is TrialState.DONE
            ]
            baselines = summarise(store, title).baselines.lines
            _note_start(trials)
        compared = fold_rows(store, [title for title, _ in parts]) if folds else ()
    expected = len(files) * len(parts)
    if len(rows) < expected:
        note(f"{expected - len(rows)} of {expected} trials are not done: the same command goes on with them")
    if not rows:
        return
    if folds:
        if output.json:
            print_json({"trials": rows, "candidates": [row.to_dict() for row in compared]})
        else:
            print_folds(compared, folds)
        if failed := sum(row["verdict"] != "valid" for row in rows):
            raise SomeFailedError(f"{failed} of {len(rows)} failed")
    else:
        _report(rows, baselines, single=len(files) == 1, test=test, json=output.json)
    again: Sequence[object] = paths or ["--from", start]
    suggest("leaderboard", name, *output.place) if name and not folds else suggest("train", *again, "--name", "first")


@contextmanager
def _campaign(
    title: str,
    typed: dict[str, Any],
    candidates: Sequence[Candidate],
    store: Archive,
    machines: EngineOptions,
    budget: BudgetOptions,
    origin: _Origin | None,
    *,
    dry: bool,
) -> Iterator[Campaign]:
    """Prepare a campaign of given files, or its continuation."""
    from nngen.campaign.runner import Campaign

    def prepare(spec: CampaignSpec, dataset: Dataset, /, **_progress: object) -> CampaignInputs:
        families = _families_of(candidates, dataset, spec, machines.isolation) if dry else {}
        return CampaignInputs(families=families, dataset=dataset, start=origin.file if origin else None)

    stored = next((one.spec for one in store.campaigns() if one.name == title), None)
    with machines.session(title, stored, typed, prepare, size=len(candidates)) as (settled, inputs, engine):
        note_levels((source_level(one.source, machines.isolation) for one in candidates), "files")
        suggestions = tuple(
            Suggestion(plan=candidate.plan or Plan(experts=()), candidate=candidate, seed=settled.seed)
            for candidate in candidates
        )
        yield Campaign(
            spec=settled,
            archive=store,
            inputs=inputs,
            engine=engine,
            source=GivenCandidates(suggestions=suggestions),
            budget=budget.change(last_budget(store.events(settled.name)) if stored else Budget()),
            isolation=machines.isolation,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Origin:
    """A candidate with the kept weights that it starts from, and the settings of their trial."""

    candidate: Candidate
    file: Path
    spec: TrialSpec

    def settings(self, typed: dict[str, Any]) -> dict[str, Any]:
        """Return the typed settings, with those of the trial for others, and the weights."""
        known = {name: getattr(self.spec, name) for name in _TAKEN_OVER}
        if typed.get("dataset", self.spec.dataset) != self.spec.dataset:
            del known["augment"], known["class_weights"], known["train_size"]
        with self.file.open("rb") as file:
            return {**known, **typed, "start": hashlib.file_digest(file, "sha256").hexdigest()}


def _origin(output: ArchiveOptions, name: str, machines: EngineOptions) -> _Origin:
    """Find the weights to start from.

    Raises:
        UsageError: If none are kept, or the trials run on other machines.
    """
    if not machines.here:
        raise UsageError("--from is for --engine local")
    from nngen.export.kept_weights import find_weights

    with output.read() as store:
        found, trial, kept = find_weights(store, name)
    assert trial.spec is not None
    candidate = Candidate(id=found.id, source=found.source, canonical=found.canonical, plan=found.plan)
    return _Origin(candidate=candidate, file=kept.file, spec=trial.spec)


def _store(output: ArchiveOptions, name: str | None, *, dry_run: bool) -> Archive:
    """Open the archive of the trials; without a name nothing is stored, and the campaign lives in memory."""
    if dry_run:
        return output.peek()
    return output.open() if name is not None else Archive.in_memory()


def _with_plan(candidate: Candidate) -> Candidate:
    """Return a file with the plan that it states, by which its time and memory are estimated."""
    with suppress(NngenError):
        return replace(candidate, plan=candidate.plan or stated_plan(candidate.source))
    return candidate


def _families_of(
    candidates: Sequence[Candidate], dataset: Dataset, spec: CampaignSpec, isolation: str
) -> dict[str, tuple[Family, Interface]]:
    """Return LEMUR's families that assembled files are made of, with the inputs they accept."""
    names = {name for candidate in candidates if candidate.plan for name in candidate.plan.experts}
    known = load_families(open_lemur()) if names else {}
    chosen = [known[name] for name in sorted(names & known.keys())]
    return usable_families(chosen, spec.shape, classes=dataset.classes, wanted=isolation)[0]


def _read(path: Path) -> Candidate:
    try:
        return read_candidate(path)
    except CheckFailed as refused:
        raise NngenError(f"{path}: {refused.verdict.outcome.value}: {refused.verdict.message}") from None


class _Epochs(Watcher):
    """Watcher of a single file: one line per epoch on a terminal."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False)

    def epoch(self, trial: StoredTrial, result: EpochResult) -> None:
        if self.console.is_terminal:
            loss = "" if result.train_loss is None else f", train loss {result.train_loss:.4f}"
            self.console.print(
                f"epoch {result.epoch} of {self.epochs}: validation accuracy {result.validation_accuracy:.4f}{loss},"
                f" {result.seconds:.1f} s"
            )


def _test_accuracy(store: Archive, trial: StoredTrial, dataset: Dataset) -> float | None:
    return accuracy(store.predictions(trial.id, "test"), dataset.test_labels) if trial.trained else None


def _row(path: Path, trial: StoredTrial, test_accuracy: float | None, quality: Quality | None) -> dict[str, Any]:
    assert trial.verdict is not None and trial.spec is not None
    known = asdict(trial)
    return {
        "path": str(path),
        "verdict": trial.verdict.outcome.value,
        "validation_accuracy": trial.validation_accuracy,
        "test_accuracy": test_accuracy,
        "seconds": trial.seconds,
        "epochs": trial.spec.epochs,
        "seed": trial.spec.seed,
        "augment": trial.spec.augment,
        "batch": trial.spec.batch if trial.batch is None else trial.batch,
        "parameters": trial.parameters,
        "message": trial.verdict.message,
        "suspect": trial.suspect,
        "id": trial.candidate_id,
        "train_size": trial.spec.train_size,
        "quality": quality and quality.to_dict(),
    } | {name: known[name] for name in _ALSO_JSON}


def _note_start(trials: Sequence[StoredTrial]) -> None:
    """Tell which weights the trainings kept."""
    for text in dict.fromkeys(trial.environment.get("started_from", "") for trial in trials):
        if text:
            note(f"started from kept weights: {text}; optimizer and schedule made anew")


def _report(rows: list[dict[str, Any]], baselines: Sequence[str], *, single: bool, test: bool, json: bool) -> None:
    """Print the results; a single file is one object, and without its path as the command names it."""
    path = rows[0]["path"]
    plain = not json and all(row["augment"] == "none" for row in rows)
    left_out = {"test_accuracy": not test, "path": single, "augment": plain}
    hidden = [name for name, hide in left_out.items() if hide]
    rows = [{key: value for key, value in row.items() if key not in hidden} for row in rows]
    if json:
        print_json(rows[0] if single else rows)
    else:
        columns = list(rows[0])
        # The column is for the few that have a reason.
        last = "id" if any(row["suspect"] for row in rows) else "suspect"
        print_table(rows, columns[: columns.index(last)])
        for line in baselines:
            say(f"baseline {line}")
    failed = [row for row in rows if row["verdict"] != "valid"]
    if failed and single:
        raise NngenError(f"{path}: {failed[0]['verdict']}: {failed[0]['message']}")
    if failed:
        raise SomeFailedError(f"{len(failed)} of {len(rows)} failed")
