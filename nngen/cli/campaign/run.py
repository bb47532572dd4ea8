"""``nngen campaign run``: run a campaign, one for each fold, or resume it, and print its results."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from nngen.cli.campaign.execution import RunOptions, RunResult
from nngen.cli.options import ArchiveOptions, Assignments, Flag, hyperparameters
from nngen.cli.options.dry_run import DryRun
from nngen.cli.options.engine import BudgetOptions, CampaignOptions, EngineOptions
from nngen.cli.options.family import FamilyOptions
from nngen.cli.options.folds import Folds, begin_fold, folded, print_folds
from nngen.cli.options.table import Table
from nngen.cli.output import print_json, say
from nngen.cli.progress import print_summary, suggest_next
from nngen.errors import SomeFailedError, UsageError


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
    grow: more epochs are a further rung. For a longer --time-limit begin a campaign of another name with the same
    --seed: it takes over what was trained. Ctrl-C finishes the running trials, a second one ends at once.
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
        nngen campaign run third --size 27 --rungs 5,15,45 --finalists 2 --replicates 3 --max-hours 12
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
    options = RunOptions(
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


def _print_run(ran: RunResult, output: ArchiveOptions) -> None:
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
