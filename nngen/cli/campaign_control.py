"""``nngen campaign pause, resume, stop, watch, events``: control and follow a campaign from another terminal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator

from nngen.archive import Archive, Event, TrialState
from nngen.campaign import Command, Watcher, send_command, summarise
from nngen.campaign.status import read_status
from nngen.cli.options import ArchiveOptions
from nngen.cli.output import note, print_json
from nngen.cli.progress import print_status, print_summary, trial_progress
from nngen.types import EpochResult

__all__ = ["events", "pause", "resume", "stop", "watch"]

_POLL_S = 1.0


def pause(campaign: str, /, *, output: ArchiveOptions = ArchiveOptions()) -> None:
    """Pause a running campaign: running trials are finished, no other begins.

    Args:
        campaign: Name of the campaign.

    Examples:
        nngen campaign pause first
    """
    _send(Command("pause"), campaign, output)


def resume(campaign: str, /, *, output: ArchiveOptions = ArchiveOptions()) -> None:
    """Resume a paused campaign; one without a running process is resumed by nngen campaign run.

    Args:
        campaign: Name of the campaign.

    Examples:
        nngen campaign resume first
    """
    _send(Command("resume"), campaign, output)


def stop(campaign: str, /, *, output: ArchiveOptions = ArchiveOptions()) -> None:
    """Stop a running campaign: running trials are finished. nngen campaign run resumes it later.

    Args:
        campaign: Name of the campaign.

    Examples:
        nngen campaign stop first
    """
    _send(Command("stop"), campaign, output)


def watch(campaign: str, /, *, output: ArchiveOptions = ArchiveOptions()) -> None:
    """Follow a running campaign: a live table on a terminal, one line per trial elsewhere.

    Ends when the campaign is over or its process has ended, and then prints the summary.

    Args:
        campaign: Name of the campaign.

    Examples:
        nngen campaign watch first
    """
    with output.read() as store:
        before = summarise(store, campaign)
        with trial_progress() as watcher:
            watcher.begin(campaign, before.done, before.total)
            for trial in store.trials(campaign, state=TrialState.RUNNING):
                watcher.stage(trial, "runs")
            seen = max((event.id for event in store.events(campaign)), default=0)
            for event in _follow(store, campaign, seen):
                _show(store, event, watcher)
        summary, stands = summarise(store, campaign), read_status(store, campaign)
    if output.json:
        print_json(summary.to_dict() | {"standing": stands.to_dict()})
    else:
        print_summary(summary)
        print_status(summary, stands)


def events(
    campaign: str, /, *, follow: bool = False, after: int = 0, output: ArchiveOptions = ArchiveOptions()
) -> None:
    """Print the events of a campaign, one JSON object per line; --json changes nothing.

    Args:
        campaign: Name of the campaign.
        follow: Go on with new events until the campaign's process ends.
        after: Begin after the event with this number.

    Examples:
        nngen campaign events first
        nngen campaign events first --follow --after 120
    """
    with output.read() as store:
        store.campaign(campaign)
        for event in _follow(store, campaign, after) if follow else store.events(campaign, after=after):
            line = {"id": event.id, "at": event.at, "trial": event.trial_id, "event": event.kind}
            sys.stdout.write(json.dumps(line | {"detail": dict(event.detail)}, ensure_ascii=False) + "\n")
            sys.stdout.flush()


def _send(command: Command, campaign: str, output: ArchiveOptions) -> None:
    with output.open(create=False) as store:
        process = send_command(store, campaign, command)
    if output.json:
        print_json({"campaign": campaign, "command": command.value, "process": process})
    else:
        note(f"asked process {process}, which runs campaign {campaign}, to {command.value}")


def _follow(store: Archive, campaign: str, after: int) -> Iterator[Event]:
    """Yield events as they are written, until the campaign's process has ended and all its events were read."""
    while True:
        # Asked before the events are read: what a process wrote before it ended is read in this round.
        running = store.driver(campaign) is not None
        for event in store.events(campaign, after=after):
            after = event.id
            yield event
        if not running:
            return
        time.sleep(_POLL_S)


def _show(store: Archive, event: Event, watcher: Watcher) -> None:
    """Pass an event of the archive to a watcher."""
    if event.trial_id is None or event.kind == "test.revealed":
        detail = ", ".join(f"{key} {value}" for key, value in event.detail.items())
        watcher.note(f"{event.kind}{': ' if detail else ''}{detail}")
        return
    trial, detail_of = store.trial(event.trial_id), event.detail
    if event.kind == "trial.promoted":
        target = (
            f"with seed {detail_of['replicate'] + 1}" if detail_of["replicate"] else f"to rung {detail_of['rung'] + 1}"
        )
        watcher.note(f"{', '.join(trial.experts)} promoted {target}: number {detail_of['rank']} by {detail_of['by']}")
    elif event.kind == "trial.started":
        watcher.stage(trial, "runs")
    elif event.kind == "trial.epoch":
        watcher.epoch(trial, EpochResult(**detail_of))
    elif event.kind == "trial.requeued":
        watcher.requeued(trial)
    elif event.kind == "trial.finished":
        watcher.finished(trial)
