"""Pages of campaigns: all of them, one with its progress, two side by side, and a closed loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from statistics import fmean
from typing import Any

from nngen.analysis.formatting import data_titles
from nngen.analysis.ranking.rows import Row, by_fidelity, describe_fidelity
from nngen.analysis.statistics import Span, difference_interval, mean_interval
from nngen.archive import CampaignRecord, StoredTrial, Tally, TrialState
from nngen.campaign.successive_halving import planned
from nngen.campaign.summary import read_status
from nngen.dashboard import figures
from nngen.dashboard.snapshot import Snapshot
from nngen.dashboard.view import LISTED, Query, View, paged, table_columns
from nngen.errors import UsageError
from nngen.types import EpochResult

_CURVES = 8
"""Most trials whose curves are drawn in one figure."""

_BEST = 10  # candidates of a campaign's first page

_MEASURED = ("epoch", "validation_accuracy", "train_accuracy", "train_loss")
"""Values of an epoch that a driver stores while a trial is running."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Progress of a campaign."""

    record: CampaignRecord
    state: str  # ``running``, ``done``, ``stopped`` or ``new``
    total: int  # number of trials, those to come included
    done: int
    running: int
    trained: int
    failed: int
    best: float | None  # highest validation accuracy on the highest rung that has one; None without one


def home(snapshot: Snapshot, query: Query) -> View:
    """Gather the campaigns of the archive, running ones first, then the newest, and its closed loops."""
    records, tallies = snapshot.archive.campaigns(), snapshot.tallies()
    titles = data_titles((record.spec.dataset, record.data_fingerprint) for record in records)
    lines = [_progress(snapshot, record, tallies.get(record.name, ())) for record in reversed(records)]
    lines.sort(key=lambda line: line.state != "running")
    return View(
        template="home",
        title="Campaigns",
        values={
            "pages": paged(lines, query, {}),
            "titles": [titles[line.record.spec.dataset, line.record.data_fingerprint] for line in lines],
            "loops": list(dict.fromkeys(record.loop for record in records if record.loop)),
        },
    )


def campaign(snapshot: Snapshot, query: Query) -> View:
    """Gather the state of one campaign: progress, running trials with their curves, rungs, failures, the best."""
    archive = snapshot.archive
    record = archive.campaign(query.get("campaign", ""))
    name, spec = record.name, record.spec
    tallies, status = snapshot.tallies().get(name, ()), read_status(archive, name)
    running = archive.trials(name, state=TrialState.RUNNING, curves=False)
    live = _live_curves(snapshot, name, running)
    rows = next(iter(by_fidelity(snapshot.rows(name))), [])[:_BEST]
    best = ((row, _trial_of(snapshot, row, name)) for row in rows[:_CURVES])
    curves = [(f"{row.rank}. {row.id[:13]}", trial.curve) for row, trial in best if trial is not None]
    drawn = figures.curve_figures(live, prefix="live_", least=1) | figures.curve_figures(curves)
    first = [line for line in snapshot.lines(name) if not line.rung]
    if any(line.trained for line in first):
        drawn["progress"] = figures.progress_figure(first)
    progress = _progress(snapshot, record, tallies)
    left = progress.total - progress.done
    return View(
        template="campaign",
        title=name,
        values={
            "progress": progress,
            "status": status,
            "left_s": 3600 * left / status.per_hour if status.per_hour and left > 0 else None,
            "rungs": _rungs(spec.fidelities, tallies),
            "running": [
                (trial, next((points for key, points in live if key == _named(trial)), ()))
                for trial in running[:LISTED]
            ],
            "outcomes": snapshot.outcomes(name),
            "rows": rows,
            "columns": table_columns(rows),
            "notes": snapshot.limits(name),
            "arguments": {key: value for key, value in record.arguments().items() if value not in (None, "", [], {})},
        },
        figures=drawn,
        campaign=name,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Difference of the mean accuracies of two campaigns at one fidelity."""

    title: str  # the fidelity
    # number of candidates, mean and highest accuracy of each campaign
    sides: tuple[tuple[int, float, float], tuple[int, float, float]]
    gap: float  # mean of the second less that of the first
    span: Span | None  # welch's 95 % interval of the gap; None for fewer than two candidates on a side
    shared: int  # number of candidates that both trained
    paired: float | None  # mean difference over these; None without any
    paired_span: Span | None  # Student's 95 % interval of it; None for fewer than two


def compare(snapshot: Snapshot, query: Query) -> View:
    """Gather two campaigns side by side: arguments that differ, results, and differences at equal fidelities."""
    names = [record.name for record in snapshot.archive.campaigns()]
    pair = query.get("a", ""), query.get("b", "")
    values: dict[str, Any] = {
        "names": names[::-1][:1000],
        "pair": pair,
        "sides": (),
        "differences": [],
        "arguments": {},
    }
    drawn: dict[str, str] = {}
    if all(pair):
        records = [snapshot.archive.campaign(name) for name in pair]
        tallies = snapshot.tallies()
        values["sides"] = [_progress(snapshot, record, tallies.get(record.name, ())) for record in records]
        texts = [record.arguments() for record in records]
        values["arguments"] = {
            key: [text.get(key) for text in texts]
            for key in dict.fromkeys([*texts[0], *texts[1]])
            if texts[0].get(key) != texts[1].get(key) and key != "name"
        }
        boards = [_boards(snapshot.rows(name)) for name in pair]
        common = [key for key in boards[0] if key in boards[1]]
        values["differences"] = [_difference(boards[0][key], boards[1][key]) for key in common]
        if common:
            sides = zip(pair if pair[0] != pair[1] else (pair[0], f"{pair[1]} "), boards, strict=True)
            accuracies = {name: [row.validation_accuracy for row in board[common[0]].values()] for name, board in sides}
            drawn["comparison"] = figures.comparison_figure(accuracies)
    return View(template="compare", title="Two campaigns side by side", values=values, figures=drawn)


def loop(snapshot: Snapshot, query: Query) -> View:
    """Gather a closed loop by cycle, beside the other loops of its fidelity."""
    name = query.get("name", "")
    records = [record for record in snapshot.archive.campaigns() if record.loop == name and name]
    if not records:
        raise UsageError(f"no closed loop {name!r} in this archive")
    found = snapshot.loops(records[0].name)
    return View(
        template="loop",
        title=f"Closed loop {name}",
        values={"loops": found, "records": records},
        figures={"loop": figures.loop_figure(found.cycles)} if found and found.cycles else {},
    )


def _progress(snapshot: Snapshot, record: CampaignRecord, tallies: Sequence[Tally]) -> Progress:
    count = {name: sum(getattr(one, name) for one in tallies) for name in ("trials", "done", "running", "trained")}
    first = sum(one.trials for one in tallies if not one.rung and not one.again)
    reached = max((one.rung for one in tallies if one.best is not None), default=0)
    # A campaign of which nothing can be trained promotes nothing.
    whole = first >= record.spec.size and (reached == len(record.spec.fidelities) - 1 or not count["trained"])
    if snapshot.archive.driver(record.name) is not None:
        state = "running"
    elif not count["trials"]:
        state = "new"
    else:
        state = "done" if whole and count["done"] == count["trials"] else "stopped"
    return Progress(
        record=record,
        state=state,
        total=count["trials"] if state == "done" else max(count["trials"], sum(planned(record.spec))),
        done=count["done"],
        running=count["running"],
        trained=count["trained"],
        failed=sum(one.failed for one in tallies),
        best=max((one.best or 0.0 for one in tallies if one.rung == reached and not one.again), default=None)
        if count["trained"]
        else None,
    )


def _rungs(epochs: Sequence[int], tallies: Iterable[Tally]) -> list[tuple[int, Tally | None]]:
    first = {one.rung: one for one in tallies if not one.again}
    return [(length, first.get(rung)) for rung, length in enumerate(epochs)]


def _live_curves(snapshot: Snapshot, name: str, running: Sequence[StoredTrial]) -> list[figures.Curve]:
    """Return the epochs that running trials have behind them, from the events of their driver."""
    points: dict[int, list[EpochResult]] = {trial.id: [] for trial in running}
    since = min((trial.started_at or "" for trial in running), default=None)
    if since is None:
        return []
    for event in takewhile(lambda event: event.at >= since, snapshot.archive.epochs(name)):
        values: dict[str, Any] = {
            key: value for key in _MEASURED if isinstance(value := event.detail.get(key), int | float)
        }
        own = points.get(event.trial_id or 0)
        # From the last epoch back to the first; one that began anew with a smaller batch has more behind that.
        if own is not None and {"epoch", "validation_accuracy"} <= values.keys():
            point = EpochResult(**values)
            if not own or point.epoch < own[-1].epoch:
                own.append(point)
    return [(_named(trial), points[trial.id][::-1]) for trial in running[:_CURVES]]


def _named(trial: StoredTrial) -> str:
    return f"{trial.position + 1}. {', '.join(trial.experts) or trial.candidate_id or ''}"


def _trial_of(snapshot: Snapshot, row: Row, campaign: str) -> StoredTrial | None:
    """Return the first trial of a row, with its curve."""
    trials = snapshot.archive.trials(campaign, candidate_id=row.id)
    return next((trial for trial in trials if trial.trained and trial.spec and trial.spec.epochs == row.epochs), None)


def _boards(rows: Sequence[Row]) -> dict[tuple[Any, ...], dict[str, Row]]:
    """Return the rows of each fidelity by candidate."""
    found: dict[tuple[Any, ...], dict[str, Row]] = {}
    for group in by_fidelity(rows):
        found.setdefault(group[0].fidelity, {row.id: row for row in group})
    return found


def _difference(first: Mapping[str, Row], second: Mapping[str, Row]) -> Difference:
    ones, others = ([row.validation_accuracy for row in side.values()] for side in (first, second))
    pairs = [second[key].validation_accuracy - row.validation_accuracy for key, row in first.items() if key in second]
    return Difference(
        title=describe_fidelity(next(iter(first.values()))),
        sides=((len(ones), fmean(ones), max(ones)), (len(others), fmean(others), max(others))),
        gap=fmean(others) - fmean(ones),
        span=difference_interval(others, ones),
        shared=len(pairs),
        paired=fmean(pairs) if pairs else None,
        paired_span=mean_interval(pairs),
    )
