"""``nngen campaign pause, resume, stop, watch, events``: from another terminal than the one that runs it."""

from __future__ import annotations

import json as plain
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nngen.archive import Archive, Event
    from nngen.campaign import Watcher

__all__ = ["events", "pause", "resume", "stop", "watch"]

_LOOK_S = 1.0


def pause(name: str, /, *, archive: Path | None = None) -> None:
    """Let a campaign that is being run rest: what trains is finished, nothing begins.

    Args:
        name: The campaign's name.
        archive: The archive's file; NNGEN_ARCHIVE or ./nngen.db by default.

    Examples:
        nngen campaign pause first
    """
    _wish("pause", name, archive)


def resume(name: str, /, *, archive: Path | None = None) -> None:
    """Let a campaign that rests go on; one that is not being run goes on with nngen campaign run.

    Args:
        name: The campaign's name.
        archive: The archive's file; NNGEN_ARCHIVE or ./nngen.db by default.

    Examples:
        nngen campaign resume first
    """
    _wish("resume", name, archive)


def stop(name: str, /, *, archive: Path | None = None) -> None:
    """Let a campaign end: what trains is finished, what is prepared is put back. It can be run again later.

    Args:
        name: The campaign's name.
        archive: The archive's file; NNGEN_ARCHIVE or ./nngen.db by default.

    Examples:
        nngen campaign stop first
    """
    _wish("stop", name, archive)


def watch(name: str, /, *, archive: Path | None = None) -> None:
    """Look on while a campaign is being run: a live table on a terminal, one line per trial elsewhere.

    Ends when the campaign is over or nobody runs it any more; what it came to then goes to stdout.

    Args:
        name: The campaign's name.
        archive: The archive's file; NNGEN_ARCHIVE or ./nngen.db by default.

    Examples:
        nngen campaign watch first
    """
    from nngen.archive import Archive, TrialState, default_path
    from nngen.campaign import summarise
    from nngen.campaign.status import standing
    from nngen.cli.campaign_text import print_standing, print_summary
    from nngen.cli.watcher import watch as screen

    with Archive.open(archive or default_path(), readonly=True) as store:
        before = summarise(store, name)
        with screen() as watcher:
            watcher.begin(name, before.done, before.total)
            for trial in store.trials(name, state=TrialState.RUNNING):
                watcher.stage(trial, "runs")
            seen = max((event.id for event in store.events(name)), default=0)
            for event in _following(store, name, seen):
                _show(store, event, watcher)
        summary = summarise(store, name)
        print_summary(summary)
        print_standing(summary, standing(store, name))


def events(
    name: str, /, *, follow: bool = False, after: int = 0, archive: Path | None = None, json: bool = True
) -> None:
    """Print what happened to a campaign, one JSON object per line.

    Args:
        name: The campaign's name.
        follow: Go on with what happens from now on, until nobody runs the campaign any more.
        after: Begin after the event with this number.
        archive: The archive's file; NNGEN_ARCHIVE or ./nngen.db by default.
        json: There is no other form; here for scripts that pass it to every command.

    Examples:
        nngen campaign events first
        nngen campaign events first --follow --after 120
    """
    from nngen.archive import Archive, default_path

    with Archive.open(archive or default_path(), readonly=True) as store:
        store.campaign(name)
        for event in _following(store, name, after) if follow else store.events(name, after=after):
            line = {"id": event.id, "at": event.at, "trial": event.trial_id, "event": event.kind}
            sys.stdout.write(plain.dumps(line | {"detail": dict(event.detail)}, ensure_ascii=False) + "\n")
            sys.stdout.flush()


def _wish(word: str, name: str, archive: Path | None) -> None:
    from nngen.archive import Archive, default_path
    from nngen.campaign import Command, send_command

    with Archive.open(archive or default_path(), create=False) as store:
        driver = send_command(store, name, Command(word))
    print(f"nngen: asked process {driver}, which runs campaign {name}, to {word}", file=sys.stderr)


def _following(store: Archive, name: str, after: int) -> Iterator[Event]:
    """Give events as they come, until the campaign has no driver and all that it wrote was given."""
    while True:
        driven = store.driver(name) is not None
        for event in store.events(name, after=after):
            after = event.id
            yield event
        if not driven:
            return
        time.sleep(_LOOK_S)


def _show(store: Archive, event: Event, watcher: Watcher) -> None:
    from nngen.types import EpochResult

    if event.trial_id is None or event.kind == "test.revealed":
        detail = ", ".join(f"{key} {value}" for key, value in event.detail.items())
        watcher.note(f"{event.kind}{': ' if detail else ''}{detail}")
        return
    trial = store.trial(event.trial_id)
    if event.kind == "trial.promoted":
        told = event.detail
        what = f"with seed {told['replicate'] + 1}" if told["replicate"] else f"to rung {told['rung'] + 1}"
        watcher.note(f"{', '.join(trial.experts)} goes on {what}, being number {told['rank']} by {told['by']}")
    elif event.kind == "trial.started":
        watcher.stage(trial, "runs")
    elif event.kind == "trial.epoch":
        watcher.epoch(trial, EpochResult(**event.detail))
    elif event.kind == "trial.requeued":
        watcher.requeued(trial)
    elif event.kind == "trial.finished":
        watcher.finished(trial)
