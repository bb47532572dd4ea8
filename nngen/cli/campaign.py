"""``nngen campaign``: run campaigns, list them, print their status, control and follow them from another terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from nngen.analysis.formatting import data_titles
from nngen.analysis.gains import gains
from nngen.analysis.ranking.early_stop import saving
from nngen.archive import Archive, Event, TrialState
from nngen.assembly.assemble import Assembler
from nngen.campaign import Campaign, Command, Watcher, send_command, summarise
from nngen.campaign.setup import prepare
from nngen.campaign.successive_halving import workload
from nngen.campaign.summary import Summary, read_status
from nngen.cli.options import ArchiveOptions, CampaignName, Flag, Index
from nngen.cli.options.engine import BudgetOptions, CampaignOptions, EngineOptions, read_stored
from nngen.cli.options.family import FamilyOptions
from nngen.cli.output import emit, note, print_json, print_table, say, suggest, to_json
from nngen.cli.progress import print_status, print_summary, trial_progress
from nngen.errors import SomeFailedError, UsageError
from nngen.lemur.source import open_lemur
from nngen.surrogate import source as _surrogate  # noqa: F401  # registers the source of a sampler
from nngen.types import EpochResult

app = App(name="campaign", help="Sample, assemble, check, train and store; resumes after any stop.")

_POLL_S = 1.0
_SHOWN_FAILURES = 50


@app.command
def run(
    campaign: Annotated[str | None, Parameter(name="CAMPAIGN|FILE.toml")] = None,
    /,
    *,
    config: Path | None = None,
    spec: CampaignOptions = CampaignOptions(),
    selection: FamilyOptions = FamilyOptions(),
    budget: BudgetOptions = BudgetOptions(),
    machines: EngineOptions = EngineOptions(),
    baselines: Flag = False,
    output: ArchiveOptions = ArchiveOptions(),
) -> None:
    """Run a campaign, or resume it: the same name again goes on where it stopped.

    Every draw and every result is stored at once, so a campaign may be stopped or killed at any moment. Arguments
    that are left out when resuming keep their stored values; those that are typed must agree with them, except
    budgets and machines, which may change, and --size, --epochs, --rungs, --finalists and --replicates, which may
    grow: more epochs are a further rung. Ctrl-C finishes the running trials, a second one ends at once.
    When all is done, the candidate with the best validation accuracy gets its test accuracy.

    Args:
        campaign: Name of the campaign, or a TOML file of arguments.
        config: TOML file of arguments, named as the flags are; typed arguments come first.
        baselines: Train each family of the pool alone too, once the campaign is done: at its fidelity, under its
            recipe, with what is left of its budget, as campaign CAMPAIGN-alone-EPOCHS. The report compares them.

    Examples:
        nngen campaign run small --size 8 --families ShuffleNet,MobileNetV3,SqueezeNet-1,ICNet,DPN68
        nngen campaign run first --size 100 --sampler stratified --dataset cifar-10 --epochs 1 --seed 0
        nngen campaign run first
        nngen campaign run first --epochs 5
        nngen campaign run first --engine ray --address head.example.org:6379
        nngen campaign run second --size 100 --sampler balanced --skip-known --exclude-low-yield
        nngen campaign run other --size 50 --exclude AirNet --without-near-twins
        nngen campaign run third --size 27 --rungs 1,3,9 --finalists 2 --replicates 3 --max-hours 12
        nngen campaign run third.toml --workers 2
        nngen campaign run first --baselines
    """
    if campaign is None:
        raise UsageError("the campaign has no name: type one, or a TOML file of arguments")
    typed = machines.settle(spec, selection)
    stored, limits = read_stored(output.path, campaign, budget)
    if stored is None and "size" not in typed:
        raise UsageError(f"campaign {campaign} does not exist yet: say how many quartets it takes with --size")
    inputs_of = partial(prepare, stored=stored, lemur=open_lemur(), families_from=selection.families_from)
    with (
        machines.session(campaign, stored.spec if stored else None, typed, inputs_of, grows=True) as (
            settled,
            inputs,
            engine,
        ),
        output.open() as store,
    ):
        main = Campaign(
            spec=settled,
            archive=store,
            inputs=inputs,
            engine=engine,
            assemble=Assembler().assemble,
            budget=limits,
            isolation=machines.isolation,
        )
        with trial_progress(compiled=machines.compiled) as watcher:
            for family, reason in inputs.left_out.items():
                watcher.note(f"{family} is left out: {reason}")
            summary = replace(main, watcher=watcher).run()
        alone = _run_baselines(main, summary, asked=baselines)
        compared = gains(store, store.campaign(campaign), store.trials(campaign, curves=False)) if alone else None
        saved = saving(settled, store.trials(campaign)) if settled.stop_early else None
    if output.json:
        more = {"baselines": alone.to_dict(), "gains": compared.to_dict()} if alone and compared else {}
        more |= {"stop_early": asdict(saved)} if saved else {}
        print_json(summary.to_dict() | more)
    else:
        print_summary(summary)
        if saved:
            say(saved.sentence)
        if alone and compared:
            print_summary(alone)
            for sentence in compared.sentences:
                say(sentence)
    failed = [one for one in (summary, alone) if one is not None and one.failed]
    if failed:
        first = failed[0]
        raise SomeFailedError(
            f"{first.failed} of {first.total} candidates failed: nngen campaign status {first.name} says why"
        )
    _suggest(summary, output)


def _run_baselines(main: Campaign, summary: Summary, *, asked: bool) -> Summary | None:
    """Run the families of a campaign alone, or resume them; None where they were not asked for, now or before."""
    name = main.spec.baselines_name
    if main.spec.alone or not (asked or any(record.name == name for record in main.archive.campaigns())):
        return None
    campaign = main.baselines() if summary.over else None
    if campaign is None:
        why = "its budget is spent" if summary.over else "it is not done"
        note(f"{name}: the baselines of {main.spec.name} wait, because {why}: the same command goes on with them")
        return None
    with trial_progress() as watcher:
        return replace(campaign, watcher=watcher).run()


@app.command
def ls(*, output: ArchiveOptions = ArchiveOptions()) -> None:
    """List the campaigns of an archive.

    Examples:
        nngen campaign ls
        nngen campaign ls --archive other.db --json
    """
    with output.read() as store:
        rows = []
        campaigns = store.campaigns()
        titles = data_titles((one.spec.dataset, one.data_fingerprint) for one in campaigns)
        for campaign in campaigns:
            found = summarise(store, campaign.name, brief=True).to_dict()
            best = found["best"]["validation_accuracy"] if found["best"] else None
            counts = {key: found[key] for key in ("campaign", "trials", "done", "failed")}
            suspect = found["best"]["suspect"] if found["best"] else ""
            more = {"dataset": titles[campaign.spec.dataset, campaign.data_fingerprint]}
            more |= {key: getattr(campaign.spec, key) for key in ("sampler", "epochs", "seed")}
            rows.append(counts | more | {"best_accuracy": best, "suspect": suspect, "created_at": campaign.created_at})
    if output.json:
        print_json(rows)
    elif rows:
        columns = [name for name in rows[0] if name != "suspect" or any(row["suspect"] for row in rows)]
        print_table([row | {"created_at": row["created_at"][:19]} for row in rows], columns)
    else:
        say("no campaign yet")


@app.command
def status(campaign: CampaignName, /, *, output: ArchiveOptions = ArchiveOptions()) -> None:
    """Print the status of a campaign: trials, rungs, rate, budget, failures with their reasons, the best candidate.

    Examples:
        nngen campaign status first
        nngen campaign status first --json
    """
    with output.read() as store:
        stored = store.campaign(campaign)
        summary, stands = summarise(store, campaign), read_status(store, campaign)
        failures = [
            {
                "experts": list(trial.experts),
                "candidate": trial.candidate_id,
                "outcome": trial.verdict.outcome.value,
                "rule": trial.verdict.rule,
                "message": trial.verdict.message,
            }
            for trial in store.trials(campaign, failed=True, curves=False)
            if trial.verdict is not None
        ]
    if output.json:
        more = {"standing": stands.to_dict(), "arguments": stored.arguments(), "failures": failures}
        print_json(summary.to_dict() | more)
        return
    print_summary(summary)
    print_status(summary, stands)
    if failures:
        print_table(failures[-_SHOWN_FAILURES:], ("outcome", "experts", "rule", "message"))
    if len(failures) > _SHOWN_FAILURES:
        print(f"the last {_SHOWN_FAILURES} of {len(failures):,} failures; --json lists all")
    _suggest(summary, output, running=stands.driver is not None)


@app.command
def pause(campaign: CampaignName, /, *, output: ArchiveOptions = ArchiveOptions()) -> None:
    """Pause a running campaign: running trials are finished, no other begins.

    Examples:
        nngen campaign pause first
    """
    _send(Command("pause"), campaign, output)


@app.command
def resume(campaign: CampaignName, /, *, output: ArchiveOptions = ArchiveOptions()) -> None:
    """Resume a paused campaign; one without a running process is resumed by nngen campaign run.

    Examples:
        nngen campaign resume first
    """
    _send(Command("resume"), campaign, output)


@app.command
def stop(campaign: CampaignName, /, *, output: ArchiveOptions = ArchiveOptions()) -> None:
    """Stop a running campaign: running trials are finished. nngen campaign run resumes it later.

    Examples:
        nngen campaign stop first
    """
    _send(Command("stop"), campaign, output)


@app.command
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


@app.command
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


def _suggest(summary: Summary, output: ArchiveOptions, *, running: bool = False) -> None:
    if running:
        suggest("campaign", "watch", summary.name, *output.place)
    elif summary.over:
        suggest("report", summary.name, "--out", "report.html", *output.place)
    else:
        suggest("campaign", "run", summary.name, *output.place)


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
