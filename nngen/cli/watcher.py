"""A campaign's progress on stderr: one quiet table on a terminal, one line per trial elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from nngen.archive import StoredTrial
    from nngen.campaign import Watcher
    from nngen.types import EpochResult

__all__ = ["Lines", "Screen", "watch"]

_SHOWN = 8


@contextmanager
def watch() -> Iterator[Watcher]:
    """Give the watcher that fits stderr, and end it well."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    from rich.console import Console
    from rich.live import Live

    screen = Screen()
    with Live(get_renderable=screen.render, console=Console(stderr=True), refresh_per_second=4) as live:
        screen.live = live
        yield screen


class Lines:
    """One plain line per trial that is done."""

    def __init__(self) -> None:
        self.name, self.done, self.total = "", 0, 0

    def note(self, line: str) -> None:
        print(f"nngen: {line}", file=sys.stderr)

    def begin(self, name: str, done: int, total: int) -> None:
        self.name, self.done, self.total = name, done, total
        if done:
            print(f"{name}: {done} of {total} trials are done already", file=sys.stderr)

    def stage(self, trial: StoredTrial, stage: str) -> None: ...

    def epoch(self, trial: StoredTrial, result: EpochResult) -> None: ...

    def requeued(self, trial: StoredTrial) -> None: ...

    def finished(self, trial: StoredTrial) -> None:
        self.done += 1
        self.total = max(self.total, self.done)
        experts, result = ", ".join(trial.experts), _result(trial)
        print(
            f"{self.name} {self.done}/{self.total}  {experts}  {result}  {_time(trial.seconds)}",
            file=sys.stderr,
            flush=True,
        )


class Screen:
    """A live table: the last trials and the one that runs, under a line of totals."""

    def __init__(self) -> None:
        self.live: Live | None = None
        self.name, self.before, self.total = "", 0, 0
        self.trials: list[tuple[StoredTrial, str]] = []
        self.now: dict[int, tuple[StoredTrial, str]] = {}
        self.best: float | None = None
        self.since = time.monotonic()

    def note(self, line: str) -> None:
        if self.live is not None:
            self.live.console.print(f"nngen: {line}", markup=False, highlight=False)

    def begin(self, name: str, done: int, total: int) -> None:
        self.name, self.before, self.total, self.since = name, done, total, time.monotonic()

    def stage(self, trial: StoredTrial, stage: str) -> None:
        self.now[trial.id] = (trial, stage)

    def requeued(self, trial: StoredTrial) -> None:
        self.now.pop(trial.id, None)

    def epoch(self, trial: StoredTrial, result: EpochResult) -> None:
        self.now[trial.id] = (trial, f"epoch {result.epoch}: {result.validation_accuracy:.4f}")

    def finished(self, trial: StoredTrial) -> None:
        self.now.pop(trial.id, None)
        self.trials.append((trial, _result(trial)))
        if trial.validation_accuracy is not None:
            self.best = max(trial.validation_accuracy, self.best or 0.0)

    def render(self) -> RenderableType:
        """Draw the state of things; called several times a second."""
        from rich.box import SIMPLE_HEAD
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        if not self.total:
            return Text("")
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for column, justify in (("#", "right"), ("experts", "left"), ("result", "left"), ("time", "right")):
            table.add_column(column, justify="right" if justify == "right" else "left")
        for trial, result in self.trials[-_SHOWN:]:
            style = None if trial.trained else "dim"
            table.add_row(
                str(trial.position + 1), Text(", ".join(trial.experts)), Text(result), _time(trial.seconds), style=style
            )
        for _, (trial, stage) in sorted(self.now.items()):
            table.add_row(str(trial.position + 1), Text(", ".join(trial.experts)), Text(stage), "", style="bold")
        return Group(Text(self._totals()), table)

    def _totals(self) -> str:
        here, elapsed = len(self.trials), time.monotonic() - self.since
        done = self.before + here
        parts = [f"campaign {self.name}: {done} of {self.total} trials", _time(elapsed)]
        if here and done < self.total:
            parts.append(f"about {_time(elapsed / here * (self.total - done))} left")
        if self.best is not None:
            parts.append(f"best so far {self.best:.4f}")
        return ", ".join(parts)


def _result(trial: StoredTrial) -> str:
    if trial.validation_accuracy is not None:
        return f"{trial.validation_accuracy:.4f}" + (" (known)" if trial.copied_from is not None else "")
    return f"{trial.verdict.outcome}: {trial.verdict.message}"[:100] if trial.verdict else trial.state.value


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
