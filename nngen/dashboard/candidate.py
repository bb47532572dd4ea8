"""Page of one candidate, and the files of it that are downloaded."""

from __future__ import annotations

import csv
import io
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from nngen.analysis.figures import gate_figure, gate_shares
from nngen.analysis.quality.metrics import quality_of
from nngen.analysis.ranking.rows import Row
from nngen.analysis.suspicion import stored_suspicions
from nngen.archive import StoredCandidate, StoredTrial
from nngen.assembly.plan_toml import to_toml
from nngen.dashboard.figures import curve_figures
from nngen.dashboard.selection import select
from nngen.dashboard.snapshot import Snapshot
from nngen.dashboard.view import Query, View, number
from nngen.errors import UsageError
from nngen.export.kept_weights import kept_file
from nngen.plan import changes

_CURVES = 8
_ANCESTORS = 20
_CHILDREN = 50
_CLASSES = 30  # classes up to which the confusion matrix is shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """A file that a page offers."""

    name: str  # name under which it is saved
    content: str = ""  # its content; empty where it is a file on disk
    file: Path | None = None  # the file on disk; None where it is made for the request


def candidate(snapshot: Snapshot, query: Query) -> View:
    """Gather all that the archive holds of one candidate."""
    archive = snapshot.archive
    found = archive.candidate(query.get("id", ""))
    trials = archive.trials(candidate_id=found.id)
    trained = sorted((t for t in trials if t.trained and t.spec), key=_place, reverse=True)
    best = trained[0] if trained else None
    parents = snapshot.parents()
    ancestors = _ancestors(parents, found.id)
    parent = archive.plans(ancestors[:1]).get(ancestors[0]) if ancestors else None
    weights = [trial for trial in trials if _weights(snapshot, trial) is not None]
    quality = quality_of(archive, best) if best else None
    curves = [(f"{trial.campaign}, seed {trial.seed}", trial.curve) for trial in trained[:_CURVES]]
    drawn = curve_figures(curves)
    if gate_shares(trained):
        drawn["gates"] = gate_figure(trained[:_CURVES])
    return View(
        template="candidate",
        title=found.id[:13],
        values={
            "found": found,
            "plan": to_toml(found.plan) if found.plan else "",
            "trials": trials,
            "best": best,
            "suspect": _suspicion(snapshot, best),
            "ancestors": ancestors,
            "children": list(islice((child for child, other in parents.items() if other == found.id), _CHILDREN)),
            "changed": changes(parent, found.plan) if parent and found.plan else {},
            "quality": quality,
            "matrix": quality is not None and len(quality.class_names) <= _CLASSES,
            "weights": weights,
            "commands": _commands(found, best, ancestors[:1], weights=bool(weights)),
        },
        figures=drawn,
    )


def _place(trial: StoredTrial) -> tuple[int, float]:
    """Return the place of a trial among others of its candidate: the longest training first, then accuracy."""
    return trial.spec.epochs if trial.spec else 0, trial.validation_accuracy or 0.0


def _ancestors(parents: Mapping[str, str], candidate_id: str) -> list[str]:
    """Return parent, grandparent and so on; an archive may hold a circle."""
    found: list[str] = []
    while (candidate_id := parents.get(candidate_id, "")) and candidate_id not in found and len(found) < _ANCESTORS:
        found.append(candidate_id)
    return found


def _suspicion(snapshot: Snapshot, best: StoredTrial | None) -> str:
    """Return why the best trial is suspect among those of its campaign; empty for most."""
    reasons = stored_suspicions(lambda campaign, *, brief: snapshot.lines(campaign), [best] if best else [])
    return next(iter(reasons.values()), "")


def _commands(
    found: StoredCandidate, best: StoredTrial | None, parent: Sequence[str], *, weights: bool
) -> list[tuple[str, str]]:
    """Return commands for the candidate with what each does; the server adds the archive's place."""
    short, file = found.id[:13], f"{found.id[:13]}.py"
    commands = [("Show it on a terminal", f"nngen show {short}")]
    if parent:
        commands.append(("Compare it with its parent", f"nngen diff {parent[0][:13]} {short} --source"))
    if weights:
        commands.append(("Classify your own images with its weights", f"nngen predict {short} photos"))
    commands.append(("Export it to LEMUR", f"nngen export --id {short} --out generated/lemur"))
    if best is not None and best.spec is not None:
        spec = best.spec
        train = (
            f"nngen train {file} --dataset {shlex.quote(spec.dataset)} --shape {spec.shape} --epochs {spec.epochs}"
            f" --batch {spec.batch} --lr {spec.lr:g} --seed {spec.seed + 1}"
        )
        commands.append((f"Train {file} (downloaded above) with another seed", train))
    return commands


def _weights(snapshot: Snapshot, trial: StoredTrial) -> Path | None:
    file = kept_file(snapshot.archive, trial)
    # The folder of an archive that came from elsewhere may have a link to any file of this machine.
    return file if file is not None and not file.is_symlink() and not file.parent.is_symlink() else None


def _source(snapshot: Snapshot, query: Query) -> Download:
    found = snapshot.archive.candidate(query.get("id", ""))
    return Download(name=f"{found.id}.py", content=found.source)


def _plan(snapshot: Snapshot, query: Query) -> Download:
    found = snapshot.archive.candidate(query.get("id", ""))
    if found.plan is None:
        raise UsageError(f"{found.id} is a file from outside, and has no plan")
    return Download(name=f"{found.id}.toml", content=f"{to_toml(found.plan)}\n")


def _curves(snapshot: Snapshot, query: Query) -> Download:
    found = snapshot.archive.candidate(query.get("id", ""))
    names = ("epoch", "validation_accuracy", "train_accuracy", "train_loss", "seconds", "entropy")
    rows = [
        [trial.campaign, trial.rung, trial.seed, *(getattr(point, name) for name in names)]
        for trial in snapshot.archive.trials(candidate_id=found.id)
        for point in trial.curve
    ]
    return Download(name=f"{found.id}-curves.csv", content=_csv(["campaign", "rung", "seed", *names], rows))


def _leaderboard(snapshot: Snapshot, query: Query) -> Download:
    chosen = select(snapshot, query)
    names = [name for name in Row.__slots__ if name != "experts"]
    rows = [[*(getattr(row, name) for name in names), " ".join(row.experts)] for row in chosen.rows]
    return Download(name=f"{chosen.campaign or 'leaderboard'}.csv", content=_csv([*names, "experts"], rows))


def _kept(snapshot: Snapshot, query: Query) -> Download:
    trial = snapshot.archive.trial(int(number(query, "trial", 0)))
    file = _weights(snapshot, trial)
    if file is None:
        raise UsageError(f"no weights of trial {trial.id} are kept")
    return Download(name=f"{trial.candidate_id}{file.suffix}", file=file)


_FORMULA = re.compile(r"[=+\-@\t\r]")


def _csv(names: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Write a table as CSV; a text that a spreadsheet would compute gets an apostrophe before it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell for cell in row])
    return text.getvalue()


DOWNLOADS = {"source": _source, "plan": _plan, "curves": _curves, "leaderboard.csv": _leaderboard, "weights": _kept}
"""Downloads by the last part of their address."""
