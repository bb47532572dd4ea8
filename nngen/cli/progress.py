"""Progress on stderr (a bar, a watcher for the trials of a campaign), and the state of a campaign on stdout.

Callbacks are the one convention: a function called with (done, total), or the campaign's ``Watcher`` protocol.
A terminal shows a live display; elsewhere a campaign prints one line per trial, and a bar one line a minute.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from nngen.analysis.formatting import duration
from nngen.analysis.results import replay_note
from nngen.archive import StoredTrial
from nngen.campaign.protocols import Watcher
from nngen.campaign.successive_halving import Workload
from nngen.campaign.summary import Status, Summary
from nngen.campaign.time_left import TRAINING, TimeLeft
from nngen.cli.options import ArchiveOptions
from nngen.cli.output import Talk, note, print_table, say, suggest, talk
from nngen.text import counted, one_line
from nngen.types import EpochResult

if TYPE_CHECKING:  # every help would load it otherwise
    from rich.live import Live

_ROWS = 8
_LINE_S = 60.0


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar while the block runs; it appears with the first report.

    Elsewhere than on a terminal a line is printed each minute.

    Args:
        label: Name of the work, in a few words.

    Yields:
        A function to call with (done, total).
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=Console(stderr=True),
        disable=talk() is Talk.QUIET or not sys.stderr.isatty(),
        transient=True,
    )
    since = printed = time.monotonic()
    before = 0
    with bar:
        task = bar.add_task(label, visible=False, total=None)

        def report(done: int, total: int) -> None:
            nonlocal since, printed, before
            now = time.monotonic()
            if done < before:  # the next step of the work
                since = now
                bar.reset(task)
            before = done
            bar.update(task, completed=done, total=total, visible=True)
            if bar.disable and now >= printed + _LINE_S:
                printed = now
                left = duration((now - since) / max(done, 1) * (total - done))
                note(f"{label}: {done:,} of {total:,}, about {left} left")

        yield report


@contextmanager
def trial_progress(*, compiled: bool = False) -> Iterator[Watcher]:
    """Yield the watcher that fits stderr: a live table on a terminal, else one line per trial.

    Args:
        compiled: Whether networks are compiled, in their first epoch.
    """
    if talk() is Talk.QUIET:
        yield Watcher()
        return
    if not sys.stderr.isatty():
        yield Lines()
        return
    from rich.live import Live

    screen = Screen(compiled=compiled)
    with Live(get_renderable=screen.render, console=Console(stderr=True), refresh_per_second=4) as live:
        screen.live = live
        yield screen


class _Progress(Watcher):
    """Watcher that counts trials and estimates the time left."""

    def __init__(self) -> None:
        self.name = ""
        self.done = self.total = 0
        self.rungs: tuple[int, ...] = (1,)
        self.estimate: TimeLeft | None = None

    @property
    def left(self) -> str:
        """The time left, in words; empty before the first epoch and after the last trial."""
        seconds = self.estimate.seconds() if self.estimate is not None and self.done < self.total else None
        return "" if seconds is None else f", about {duration(seconds)} left"

    def begin(self, name: str, work: Workload) -> None:
        self.name, self.done, self.total, self.rungs = name, work.done, work.trials, work.rungs
        self.estimate = TimeLeft(work)

    def stage(self, trial: StoredTrial, stage: str) -> None:
        if self.estimate is not None and stage in TRAINING:
            self.estimate.started(trial)

    def requeued(self, trial: StoredTrial) -> None:
        if self.estimate is not None:
            self.estimate.requeued(trial)

    def epoch(self, trial: StoredTrial, result: EpochResult) -> None:
        if self.estimate is not None:
            self.estimate.epoch(trial, result)

    def finished(self, trial: StoredTrial) -> None:
        self.done += 1
        self.total = max(self.total, self.done)  # a watcher from another process may see more trials than it counted
        if self.estimate is not None:
            self.estimate.finished(trial)

    def epoch_text(self, trial: StoredTrial, result: EpochResult) -> str:
        return f"epoch {result.epoch} of {self.rungs[trial.rung]}: {result.validation_accuracy:.4f}"


class Lines(_Progress):
    """Watcher that prints one plain line per finished trial, and one per epoch, at most one a minute."""

    def __init__(self) -> None:
        super().__init__()
        self.printed = time.monotonic()

    def note(self, line: str) -> None:
        note(line)

    def begin(self, name: str, work: Workload) -> None:
        super().begin(name, work)
        if work.done:
            note(f"{name}: {work.done} of {work.trials} trials are done already", prefix="")

    def epoch(self, trial: StoredTrial, result: EpochResult) -> None:
        super().epoch(trial, result)
        if result.epoch < self.rungs[trial.rung] and time.monotonic() >= self.printed + _LINE_S:
            self._print(trial, f"{self.epoch_text(trial, result)}  {duration(result.seconds)}")

    def finished(self, trial: StoredTrial) -> None:
        super().finished(trial)
        self._print(trial, f"{_result(trial)}  {duration(trial.seconds)}")

    def _print(self, trial: StoredTrial, text: str) -> None:
        self.printed = time.monotonic()
        note(f"{self.name} {self.done}/{self.total}  {', '.join(trial.experts)}  {text}{self.left}", prefix="")


class Screen(_Progress):
    """Watcher that draws a live table: the last finished trials and those that run, under a line of totals."""

    def __init__(self, *, compiled: bool = False) -> None:
        super().__init__()
        self.live: Live | None = None
        self.compiled = compiled
        self.trials: deque[tuple[StoredTrial, str]] = deque(maxlen=_ROWS)
        self.now: dict[int, tuple[StoredTrial, str]] = {}
        self.best: StoredTrial | None = None
        self.since = time.monotonic()

    def note(self, line: str) -> None:
        if self.live is not None:
            self.live.console.print(one_line(f"nngen: {line}"), markup=False, highlight=False)

    def begin(self, name: str, work: Workload) -> None:
        super().begin(name, work)
        self.since = time.monotonic()

    def stage(self, trial: StoredTrial, stage: str) -> None:
        super().stage(trial, stage)
        self.now[trial.id] = (trial, "compiling" if self.compiled and stage == "train" else stage)

    def requeued(self, trial: StoredTrial) -> None:
        super().requeued(trial)
        self.now.pop(trial.id, None)

    def epoch(self, trial: StoredTrial, result: EpochResult) -> None:
        super().epoch(trial, result)
        self.now[trial.id] = (trial, self.epoch_text(trial, result))

    def finished(self, trial: StoredTrial) -> None:
        super().finished(trial)
        self.now.pop(trial.id, None)
        self.trials.append((trial, _result(trial)))
        best = self.best.validation_accuracy if self.best else None
        if trial.validation_accuracy is not None and trial.validation_accuracy > (-1.0 if best is None else best):
            self.best = trial

    def render(self) -> RenderableType:
        """Draw the current state; rich calls this several times a second."""
        if not self.total:
            return Text("")
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("#", justify="right")
        table.add_column("experts")
        table.add_column("result")
        table.add_column("time", justify="right")
        for trial, result in self.trials:
            style = None if trial.trained else "dim"
            _add_row(table, trial, result, duration(trial.seconds), style)
        for _, (trial, stage) in sorted(self.now.items()):
            _add_row(table, trial, stage, "", "bold")
        return Group(Text(self._totals()), table)

    def _totals(self) -> str:
        elapsed = duration(time.monotonic() - self.since)
        parts = [f"campaign {self.name}: {self.done} of {self.total} trials", elapsed + self.left]
        if self.best is not None:
            parts.append(f"best so far {_result(self.best)}")
        return ", ".join(parts)


def _add_row(table: Table, trial: StoredTrial, result: str, seconds: str, style: str | None) -> None:
    # Text, not str: family names and messages may hold rich's markup.
    table.add_row(
        str(trial.position + 1), Text(one_line(", ".join(trial.experts))), Text(one_line(result)), seconds, style=style
    )


def _result(trial: StoredTrial) -> str:
    if trial.validation_accuracy is not None:
        suspect = f", suspect: {trial.suspect}" if trial.suspect else ""
        return f"{trial.validation_accuracy:.4f}" + (" (known)" if trial.copied_from is not None else "") + suspect
    return one_line(f"{trial.verdict.outcome}: {trial.verdict.message}", 100) if trial.verdict else trial.state.value


def print_summary(summary: Summary) -> None:
    """Print the result of a campaign: trials, coverage, rungs and finalists if there are any, the best candidate."""
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(summary.outcomes.items())) or "none yet"
    say(f"campaign {summary.name}: {summary.done} of {summary.total} trials done ({outcomes})")
    audit = summary.coverage
    if audit is not None:
        say(f"coverage {audit.share:.2%} of {audit.space:,} quartets: {audit.verdict}")
    for number, rung in enumerate(summary.rungs if len(summary.rungs) > 1 else (), start=1):
        reached = "" if rung.best is None else f", best {rung.best:.4f}"
        counts = f"{rung.done} of {rung.trials} done, {rung.promoted} promoted{reached}"
        say(f"rung {number} ({counted(rung.epochs, 'epoch')}): {counts}")
    if summary.templates:
        say(summary.templates)
    if summary.replayed:
        say(replay_note(summary.replayed))
    best = summary.best
    if best is not None:
        unknown = "none" if summary.replayed else "not revealed yet"
        test = unknown if best.test_accuracy is None else f"{best.test_accuracy:.4f}"
        say(f"best {best.candidate_id} ({', '.join(best.experts)})")
        say(f"     validation accuracy {best.validation_accuracy:.4f}, test accuracy {test}")
        if summary.suspect:
            say(f"     suspect: {summary.suspect}")
        for line in summary.baselines.lines:
            say(f"     baseline {line}")
    if summary.finalists:
        columns = ["id", "experts", "epochs", "seeds", "validation_accuracy", "validation_std", "test_accuracy"]
        columns += ["suspect"] if any(row.suspect for row in summary.finalists) else []
        rows = [row.to_dict() for row in summary.finalists]
        print_table([row | {"id": row["id"][:13]} for row in rows], columns)


def suggest_next(
    summary: Summary, output: ArchiveOptions, *, running: bool = False, again: Sequence[object] = ()
) -> None:
    """Name the command that follows a campaign in its state."""
    if running:
        suggest("campaign", "watch", summary.name, *output.place)
    elif summary.over:
        suggest("report", summary.name, "--out", "report.html", *output.place)
    else:
        suggest("campaign", "run", *(again or [summary.name]), *output.place)


def print_status(summary: Summary, status: Status) -> None:
    """Print the progress of a campaign: whether it is running, its rate, and the budget used."""
    driver = "" if status.driver is None else f" (process {status.driver})"
    parts = ["over" if summary.over else f"{status.word}{driver}", f"{status.spent.hours:.2f} h used"]
    if status.spent.cost is not None:
        parts.append(f"cost {status.spent.cost:.2f}")
    if status.per_hour is not None:
        parts.append(f"{status.per_hour:.1f} trials per hour")
        if not summary.over:
            parts.append(f"about {(summary.total - summary.done) / status.per_hour:.1f} h left")
    parts += [f"{used:.4g} of {limit:g} {name}" for name, (used, limit) in status.spent.shares(status.budget).items()]
    if status.promotions:
        parts.append(f"{status.promotions} promotions")
    if status.lost:
        parts.append(f"{status.lost} trials lost and tried again")
    say(", ".join(parts))
