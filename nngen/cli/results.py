"""``nngen leaderboard``, ``nngen show`` and ``nngen diff``: trained candidates ranked, one in full, two compared."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from difflib import unified_diff
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from nngen.analysis.formatting import data_titles
from nngen.analysis.leaderboard import brief_leaderboard, validation_images
from nngen.analysis.leaderboard import leaderboard as rank
from nngen.analysis.quality.metrics import Quality, quality_of
from nngen.analysis.ranking.columns import columns_of
from nngen.analysis.ranking.limits import limits
from nngen.analysis.ranking.rows import Place, Row
from nngen.analysis.suspicion import stored_suspicions
from nngen.archive import StoredCandidate, StoredTrial
from nngen.campaign.summary import summarise
from nngen.cli.options import ArchiveOptions, Count, Flag
from nngen.cli.output import emit, print_json, print_table, say, suggest
from nngen.export.kept_weights import kept_file
from nngen.llm.proposals.log import lineage
from nngen.plan import changes
from nngen.text import clean, listed

_SHOWN = 8
"""Most children and curves that are shown of a candidate."""

_SHOWN_CLASSES = 10

_INNER = ("id", "rung", "replicate", "plan", "given", "given_seed", "candidate_id")
"""Fields of a stored trial that JSON leaves out: places in a campaign, and what the candidate itself shows."""


def leaderboard(
    campaign: str | None = None, /, *, top: Count | None = None, output: ArchiveOptions = ArchiveOptions()
) -> None:
    """Rank the trained candidates by validation accuracy, within each fidelity: data, shape, epochs, batch and rate.

    Trials of one candidate that differ in the seed alone are one row, with their mean. The interval is the one that
    the number of validation images allows; ``among`` are the ranks that a candidate may have by the noise. Below, one
    line says how well the accuracies tell the candidates apart, and one how far so few epochs rank. A test accuracy is
    shown where it was revealed: for the best candidate of a finished campaign.

    Args:
        campaign: Name of a campaign; all of the archive's by default.
        top: Rows per fidelity; all of them by default.

    Examples:
        nngen leaderboard
        nngen leaderboard demo --top 5
        nngen leaderboard --json
    """
    with output.read() as store:
        if campaign is not None:
            store.campaign(campaign)
        ranked: Sequence[Row | Place] = (
            rank(store.scores(campaign), images=partial(validation_images, store))
            if top is None
            else brief_leaderboard(store, campaign, top)
        )
        baselines = summarise(store, campaign).baselines.lines if campaign is not None else ()
    rows = [row for row in ranked if isinstance(row, Row)]
    if output.json:
        print_json([row.to_dict() for row in rows])
    elif not rows:
        say("nothing was trained yet")
    else:
        columns = [column for column in columns_of(rows) if column.terminal]
        # Numbers stay numbers, so that the table aligns and formats them.
        cells = [{c.name: getattr(row, c.name) if c.style == "n" else c.text(row) for c in columns} for row in rows]
        print_table(cells, [column.name for column in columns])
        for sentence in limits(ranked):
            say(sentence)
        for line in baselines:
            say(f"baseline {line}")
    if rows:
        suggest("show", rows[0].id[:13], *output.place)


def show(
    candidate: Annotated[str, Parameter(name="ID")],
    /,
    *,
    source: Flag = False,
    output: ArchiveOptions = ArchiveOptions(),
) -> None:
    """Show all that the archive holds of one candidate: plan, checks, trials, curves.

    Args:
        candidate: Id of the candidate, or the start of one (with or without ``MoE4-``) that fits no other.
        source: Print its source instead, one self-contained PyTorch file; with --json, add the source.

    Examples:
        nngen show MoE4-1a2b
        nngen show 1a2b --json
        nngen show 1a2b --source
    """
    with output.read() as store:
        found = store.candidate(candidate)
        stored = store.trials(candidate_id=found.id)
        reasons = stored_suspicions(store.lines, stored)
        parent, children = lineage(store, found.id)
        weights = {trial.id: file for trial in stored if (file := kept_file(store, trial)) is not None}
        best = max((trial for trial in stored if trial.trained), key=_place, default=None)
        measured = stored if output.json else [best] if best else []
        qualities = {trial.id: quality_of(store, trial) for trial in measured}
    trials = tuple(replace(trial, suspect=reasons.get(trial.id, "")) for trial in stored)
    if output.json:
        extra = {"source": found.source} if source else {}
        family = {"parent": parent or None, "children": list(children)}
        print_json(
            _describe(found)
            | family
            | {"trials": [_trial(trial, weights.get(trial.id), qualities[trial.id]) for trial in trials]}
            | extra
        )
    elif source:
        # A terminal would obey escape sequences; a file gets the source byte for byte.
        emit(clean(found.source, None, lines=True) if sys.stdout.isatty() else found.source)
    else:
        _print(found, trials, parent, children)
        if best and (quality := qualities[best.id]):
            say(f"validation images, {best.campaign}, seed {best.seed}:")
            print_quality(quality)
        for file in dict.fromkeys(weights.values()):
            say(
                f"weights    {file} ({file.stat().st_size / 2**20:,.1f} MiB): nngen predict classifies images with them"
            )
        suggest("export", "--id", found.id[:13], "--out", "generated/lemur", *output.place)


def diff(
    old: Annotated[str, Parameter(name="ID")],
    new: Annotated[str, Parameter(name="ID2")],
    /,
    *,
    source: Flag = False,
    output: ArchiveOptions = ArchiveOptions(),
) -> None:
    """Compare two candidates: the fields in which their plans differ, their accuracies, and their sources.

    Accuracies are means over the seeds of trials at one fidelity, and are shown where both have some.

    Args:
        old: Id of the first candidate, or the start of one.
        new: Id of the second.
        source: Print the unified diff of the sources; with --json, add it.

    Examples:
        nngen diff 1a2b 3c4d
        nngen diff 1a2b 3c4d --source
    """
    with output.read() as store:
        first, second = store.candidate(old), store.candidate(new)
        rows = rank(store.trials(candidate_id=first.id) + store.trials(candidate_id=second.id))
    fields = changes(first.plan, second.plan) if first.plan and second.plan else {}
    texts = first.source.splitlines(), second.source.splitlines()
    lines = list(unified_diff(texts[0], texts[1], first.id, second.id, lineterm=""))
    added, removed = (sum(line.startswith(sign) for line in lines[2:]) for sign in "+-")
    results = _shared_results(first.id, second.id, rows)
    if output.json:
        plan = {name: {"old": before, "new": after} for name, (before, after) in fields.items()}
        counts = {"lines_added": added, "lines_removed": removed} | ({"source": lines} if source else {})
        print_json({"old": first.id, "new": second.id, "plan": plan, "results": results} | counts)
        return
    say(f"old {first.id}\nnew {second.id}")
    if first.plan is None or second.plan is None:
        say("plan: a file from outside has none")
    elif not fields:
        say("plan: the same")
    else:
        print_table([{"field": name, "old": _words(a), "new": _words(b)} for name, (a, b) in fields.items()])
    if results:
        print_table(results)
    if source:
        say("\n".join(lines), limit=None)
    else:
        say(
            f"source: {added:,} lines added, {removed:,} removed; --source prints them" if lines else "source: the same"
        )


def _shared_results(old: str, new: str, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the accuracies of two candidates at the fidelities at which both were trained."""
    found: dict[tuple[Any, ...], dict[str, Row]] = defaultdict(dict)
    for row in rows:
        found[row.fidelity][row.id] = row
    return [
        {
            "dataset": both[old].dataset,
            "shape": both[old].shape,
            "epochs": both[old].epochs,
            "old": both[old].validation_accuracy,
            "new": both[new].validation_accuracy,
            "gain": both[new].validation_accuracy - both[old].validation_accuracy,
            "seeds": f"{both[old].seeds} and {both[new].seeds}",
        }
        for both in found.values()
        if len(both) == 2
    ]


def _words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _describe(found: StoredCandidate) -> dict[str, Any]:
    prints = found.fingerprints
    return {
        "id": found.id,
        "canonical": found.canonical,
        "created_at": found.created_at,
        "experts": [{"family": name, "fingerprint": prints[place]} for place, name in enumerate(found.experts)],
        "plan": found.plan.to_dict() if found.plan else None,
        "checks": [asdict(verdict) for verdict in found.verdicts],
    }


def _place(trial: StoredTrial) -> tuple[int, float]:
    """Return the place of a trained trial among others of its candidate: the longest training first, then accuracy."""
    return trial.spec.epochs if trial.spec else 0, trial.validation_accuracy or 0.0


def print_quality(quality: Quality) -> None:
    """Print the metrics of a classifier, and the classes with the lowest accuracies with their mistakes."""
    print_table([quality.summary], [name for name, value in quality.summary.items() if value is not None])
    classes = sorted(quality.classes, key=lambda one: (one.accuracy is None, one.accuracy or 0.0))
    rows = [{"class": c.name, "images": c.images, "accuracy": c.accuracy, "taken_for": c.mistakes} for c in classes]
    print_table(rows[:_SHOWN_CLASSES])
    if len(rows) > _SHOWN_CLASSES:
        say(f"the {_SHOWN_CLASSES} classes of {len(rows):,} with the lowest accuracies; --json has all")


def _trial(trial: StoredTrial, weights: Path | None, quality: Quality | None) -> dict[str, Any]:
    shown = {name: value for name, value in asdict(trial).items() if name not in _INNER}
    shown["weights"] = weights and str(weights)
    shown["quality"] = quality and quality.to_dict()
    if trial.spec is not None:
        # As it is typed, 3x32x32, not as three numbers.
        shown["spec"]["shape"] = str(trial.spec.shape)
    return shown


def _print(found: StoredCandidate, trials: Sequence[StoredTrial], parent: str, children: Sequence[str]) -> None:
    say(found.id)
    say(f"experts    {', '.join(found.experts) or '(a file from outside)'}")
    for verdict in found.verdicts:
        place = f", line {verdict.line}" if verdict.line else ""
        rule = f" ({verdict.rule}{place})" if verdict.rule else ""
        say(f"check      {verdict.outcome}{rule} {verdict.message}".rstrip())
    counts = [trial.parameters for trial in trials if trial.parameters]
    if counts:
        say(f"parameters {counts[0]:,}")
    say(f"stored     {found.created_at}")
    if parent:
        say(f"parent     {parent}")
    if children:
        say(f"children   {listed([child[:13] for child in children], _SHOWN)}")
    if not trials:
        say("no trial yet")
        return
    say()
    titles = data_titles((trial.spec.dataset, trial.data_fingerprint) for trial in trials if trial.spec is not None)
    lines = [_line(trial, titles) for trial in trials]
    print_table(lines, [name for name in lines[0] if any(line[name] is not None for line in lines)])
    trained = [trial for trial in trials if trial.curve]
    for trial in trained[-_SHOWN:]:
        seed = f", seed {trial.spec.seed}" if trial.spec else ""
        say(f"campaign {trial.campaign}{seed}:")
        rows = [asdict(point) | {"usage": " ".join(f"{share:.2f}" for share in point.usage)} for point in trial.curve]
        columns = ("epoch", "validation_accuracy", "train_accuracy", "train_loss", "seconds", "usage", "entropy")
        print_table(rows, columns)
    if len(trained) > _SHOWN:
        say(f"the curves of the last {_SHOWN} of {len(trained)} trials; --json has all")


def _line(trial: StoredTrial, titles: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    spec, verdict = trial.spec, trial.verdict
    title = "" if spec is None else titles[spec.dataset, trial.data_fingerprint]
    return {
        "campaign": trial.campaign,
        "dataset": spec and title + (f" ({spec.train_size:,} images)" if spec.train_size else ""),
        "shape": spec and str(spec.shape),
        "epochs": spec and spec.epochs,
        "seed": spec and str(spec.seed),
        "outcome": verdict.outcome.value if verdict else trial.state.value,
        "validation_accuracy": trial.validation_accuracy,
        "test_accuracy": trial.test_accuracy,
        "seconds": trial.seconds,
        "message": verdict.message if verdict and verdict.message else None,
        "suspect": trial.suspect or None,
    }
