"""``nngen campaign pause``, ``resume``, ``stop``, ``watch``, ``events``: a campaign that another process runs."""

from __future__ import annotations

import time
from collections.abc import Iterator

from nngen.archive import Archive, Event, TrialState
from nngen.campaign.commands import Command, send_command
from nngen.campaign.protocols import Watcher
from nngen.campaign.successive_halving import workload
from nngen.campaign.summary import read_status, summarise
from nngen.cli.options import ArchiveOptions, CampaignName, Index
from nngen.cli.output import emit, note, print_json, to_json
from nngen.cli.progress import print_status, print_summary, trial_progress
from nngen.types import EpochResult

_POLL_S = 1.0


def pause(campaign: CampaignName, /, *, output: ArchiveOptions = ArchiveOptions()) -> None:
    """Pause a running campaign: running trials are finished, no other begins.

    Examples:
        nngen campaign pause first
    """
    _send(Command("pause"), campaign, output)


def resume(campaign: CampaignName, /, *, output: ArchiveOptions = ArchiveOptions()) -> None:
    """Resume a paused campaign; one without a running process is resumed by nngen campaign run.

    Examples:
        nngen campaign resume first
    """
    _send(Command("resume"), campaign, output)


def stop(campaign: CampaignName, /, *, output: ArchiveOptions = ArchiveOptions()) -> None:
    """Stop a running campaign: running trials are finished. nngen campaign run resumes it later.

    Examples:
        nngen campaign stop first
    """
    _send(Command("stop"), campaign, output)


def watch(campaign: CampaignName, /, *, output: ArchiveOptions = ArchiveOptions()) -> None:
    """Follow a running campaign: a live table on a terminal, one line per trial elsewhere.

    Ends when the campaign is over or its process has ended, and then prints the summary.

    Examples:
        nngen campaign watch first
    """
    with output.read() as store:
        record = store.campaign(campaign)
        with trial_progress() as watcher:
            watcher.begin(campaign, workload(record.spec, store.lines(campaign)))
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
    campaign: CampaignName, /, *, follow: bool = False, after: Index = 0, output: ArchiveOptions = ArchiveOptions()
) -> None:
    """Print the events of a campaign, one JSON object per line; --json changes nothing.

    Args:
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
            if not emit(to_json(line | {"detail": dict(event.detail)}, None) + "\n"):
                return


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
    if event.kind == "budget.clock":
        return
    if event.trial_id is None or event.kind == "test.revealed":
        detail = ", ".join(f"{key} {value}" for key, value in event.detail.items())
        watcher.note(f"{event.kind}{': ' if detail else ''}{detail}")
        return
    trial, detail_of = store.trial(event.trial_id), event.detail
    match event.kind:
        case "trial.promoted":
            rung, replicate = detail_of["rung"], detail_of["replicate"]
            target = f"with seed {replicate + 1}" if replicate else f"to rung {rung + 1}"
            experts = ", ".join(trial.experts)
            watcher.note(f"{experts} promoted {target}: number {detail_of['rank']} by {detail_of['by']}")
        case "trial.started":
            watcher.stage(trial, "runs")
        case "trial.epoch":
            watcher.epoch(trial, EpochResult(**detail_of))
        case "trial.requeued":
            watcher.requeued(trial)
        case "trial.finished":
            watcher.finished(trial)
