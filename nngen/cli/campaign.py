"""``nngen campaign``: run campaigns, list them, print their status, control and follow them from another terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from nngen.analysis.formatting import data_titles
from nngen.archive import Archive, Event, TrialState
from nngen.campaign.commands import Command, send_command
from nngen.campaign.protocols import Watcher
from nngen.campaign.successive_halving import workload
from nngen.campaign.summary import Summary, read_status, summarise
from nngen.cli.options import ArchiveOptions, Assignments, CampaignName, Flag, Index, hyperparameters
from nngen.cli.options.dry_run import DryRun, foresee_campaign
from nngen.cli.options.engine import BudgetOptions, CampaignOptions, EngineOptions, read_stored
from nngen.cli.options.family import FamilyOptions
from nngen.cli.options.folds import Folds, begin_fold, folded, print_folds
from nngen.cli.options.table import Table
from nngen.cli.output import emit, note, print_json, print_table, say, to_json
from nngen.cli.progress import print_status, print_summary, suggest_next, trial_progress
from nngen.errors import SomeFailedError, UsageError
from nngen.lemur.source import open_lemur
from nngen.types import EpochResult

if TYPE_CHECKING:  # loaded where they are used, which the help of a command does not
    from nngen.analysis.gains import Gains
    from nngen.analysis.ranking.early_stop import Saving
    from nngen.campaign.runner import Campaign

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
    prm: Assignments = (),
    selection: FamilyOptions = FamilyOptions(),
    budget: BudgetOptions = BudgetOptions(),
    machines: EngineOptions = EngineOptions(),
    baselines: Flag = False,
    folds: Folds = None,
    table: Table = None,
    report_to: str | None = None,
    dry_run: DryRun = False,
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
        prm: A hyperparameter of families as NAME=VALUE, in place of LEMUR's best value; for those that have it.
        baselines: Train each family of the pool alone too, once the campaign is done: at its fidelity, under its
            recipe, with what is left of its budget, as campaign CAMPAIGN-alone-EPOCHS. The report compares them.
        report_to: Also report each finished trial, with its plan and curve, to tensorboard (files in ARCHIVE.runs),
            trackio or wandb (project nngen, each with its own settings).

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
        nngen campaign run wide --size 40 --plan wide.toml --prm dropout=0.4
        nngen campaign run folds --size 4 --folds 5
        nngen campaign run replayed --size 40 --table moe4.json
        nngen campaign run first --report-to tensorboard
        nngen campaign run first --epochs 10 --dry-run --price-per-hour 0.44
    """
    if campaign is None:
        raise UsageError("the campaign has no name: type one, or a TOML file of arguments")
    if table is not None and folds is not None:
        raise UsageError("--folds trains on parts of the images, and a table has none: give --table or --folds")
    typed = machines.settle(spec, selection, table=table) | ({"hyperparameters": hyperparameters(prm)} if prm else {})
    parts = folded(output, campaign, typed, folds)
    tracked = None
    if report_to is not None:
        from nngen.campaign.trackers import Tracked, tracker

        report = tracker(report_to, output.path.with_name(f"{output.path.name}.runs"))
        tracked = partial(Tracked, name=report_to, report=report)
    options = _Options(
        selection=selection, budget=budget, machines=machines, baselines=baselines, output=output, tracked=tracked
    )
    if dry_run:
        # Each fold takes as long as the first.
        options.foresee(*parts[0], times=len(parts))
        return
    done = []
    for name, arguments in parts:
        begin_fold(name, folds)
        done.append(options.run(name, arguments))
        if not done[-1].summary.over:
            break
    if folds is None:
        _print_run(done[0], output)
    else:
        from nngen.analysis.quality.cross_validation import fold_rows

        with output.read() as store:
            rows = fold_rows(store, [name for name, _ in parts])
        if output.json:
            print_json({"folds": [one.to_dict() for one in done], "candidates": [row.to_dict() for row in rows]})
        else:
            print_folds(rows, folds)
    failed = [one for ran in done for one in (ran.summary, ran.alone) if one is not None and one.failed]
    if failed:
        first = failed[0]
        raise SomeFailedError(
            f"{first.failed} of {first.total} candidates failed: nngen campaign status {first.name} says why"
        )
    suggest_next(done[-1].summary, output, again=(campaign, *(["--folds", folds] if folds else [])))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ran:
    """A campaign that was run: its summary, that of its baselines, and its gains over them, where they were run,
    and what ending trials early saved.
    """

    summary: Summary
    alone: Summary | None = None
    compared: Gains | None = None
    saved: Saving | None = None

    def to_dict(self) -> dict[str, Any]:
        found = self.summary.to_dict()
        if self.alone and self.compared:
            found |= {"baselines": self.alone.to_dict(), "gains": self.compared.to_dict()}
        return found | ({"stop_early": asdict(self.saved)} if self.saved else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """Options that the campaigns of one command share: one campaign for each fold."""

    selection: FamilyOptions
    budget: BudgetOptions
    machines: EngineOptions
    baselines: bool
    output: ArchiveOptions
    tracked: Callable[[Watcher], Watcher] | None = None

    @contextmanager
    def campaign(self, name: str, typed: dict[str, Any], *, dry: bool = False) -> Iterator[Campaign]:
        """Prepare a campaign, or its continuation."""
        from nngen.assembly.assemble import Assembler
        from nngen.campaign.runner import Campaign
        from nngen.campaign.setup import prepare
        from nngen.surrogate import source as _surrogate  # noqa: F401  # registers the source of a sampler

        machines, output = self.machines, self.output
        stored, limits = read_stored(output.path, name, self.budget)
        if stored is None and "size" not in typed:
            raise UsageError(f"campaign {name} does not exist yet: say how many quartets it takes with --size")
        inputs_of = partial(prepare, stored=stored, lemur=open_lemur(), families_from=self.selection.families_from)
        begun = stored.spec if stored else None
        with (
            machines.session(name, begun, typed, inputs_of, grows=True) as (settled, inputs, engine),
            output.peek() if dry else output.open() as store,
        ):
            yield Campaign(
                spec=settled,
                archive=store,
                inputs=inputs,
                engine=engine,
                assemble=Assembler().assemble,
                budget=limits,
                isolation=machines.isolation,
                timed=not settled.replayed,
            )

    def run(self, name: str, typed: dict[str, Any]) -> _Ran:
        """Run a campaign, and its baselines if they were asked for."""
        from nngen.analysis.gains import gains
        from nngen.analysis.ranking.early_stop import saving

        with self.campaign(name, typed) as main:
            with trial_progress(compiled=self.machines.compiled) as watcher:
                for family, reason in main.inputs.left_out.items():
                    watcher.note(f"{family} is left out: {reason}")
                summary = replace(main, watcher=self.tracked(watcher) if self.tracked else watcher).run()
            alone, store = _run_baselines(main, summary, asked=self.baselines), main.archive
            saved = saving(main.spec, store.trials(name)) if main.spec.stop_early else None
            if alone is None:
                return _Ran(summary=summary, saved=saved)
            compared = gains(store, store.campaign(name), store.trials(name, curves=False))
            # Once more, since the best of its families stands beside its best now.
            return _Ran(summary=summarise(store, name), alone=alone, compared=compared, saved=saved)

    def foresee(self, name: str, typed: dict[str, Any], *, times: int) -> None:
        """Print the estimate of so many campaigns of this kind."""
        with self.campaign(name, typed, dry=True) as main:
            foresee_campaign(main, self.output, times=times, baselines=self.baselines)


def _print_run(ran: _Ran, output: ArchiveOptions) -> None:
    if output.json:
        print_json(ran.to_dict())
        return
    print_summary(ran.summary)
    if ran.saved:
        say(ran.saved.sentence)
    if ran.alone and ran.compared:
        print_summary(ran.alone)
        for sentence in ran.compared.sentences:
            say(sentence)


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
            for trial in store.trials(
                campaign, failed=True, last=None if output.json else _SHOWN_FAILURES, curves=False
            )
            if trial.verdict is not None
        ]
    if output.json:
        more = {"standing": stands.to_dict(), "arguments": stored.arguments(), "failures": failures}
        print_json(summary.to_dict() | more)
        return
    if stored.spec.note:
        say(f"note: {stored.spec.note}")
    print_summary(summary)
    print_status(summary, stands)
    if failures:
        print_table(failures, ("outcome", "experts", "rule", "message"))
    if summary.failed > len(failures):
        print(f"the last {len(failures)} of {summary.failed:,} failures; --json lists all")
    suggest_next(summary, output, running=stands.driver is not None)


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
