"""``nngen campaign run``: runs a campaign, its baselines, and the folds of its data, or estimates what they take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from nngen.analysis.gains import Gains, gains
from nngen.analysis.quality.cross_validation import fold_rows
from nngen.analysis.ranking.early_stop import Saving, saving
from nngen.assembly.assemble import Assembler
from nngen.campaign import Campaign, summarise
from nngen.campaign.setup import prepare
from nngen.campaign.summary import Summary
from nngen.cli.folds import Folds, begin_fold, folded, print_folds
from nngen.cli.options import ArchiveOptions, Flag
from nngen.cli.options.dry_run import DryRun, foresee_campaign
from nngen.cli.options.engine import BudgetOptions, CampaignOptions, EngineOptions, read_stored
from nngen.cli.options.family import FamilyOptions
from nngen.cli.output import note, print_json, say
from nngen.cli.progress import print_summary, suggest_next, trial_progress
from nngen.errors import SomeFailedError, UsageError
from nngen.lemur.source import open_lemur
from nngen.surrogate import source as _surrogate  # noqa: F401  # registers the source of a sampler


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
    folds: Folds = None,
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
        nngen campaign run folds --size 4 --folds 5
        nngen campaign run first --epochs 10 --dry-run --price-per-hour 0.44
    """
    if campaign is None:
        raise UsageError("the campaign has no name: type one, or a TOML file of arguments")
    typed = machines.settle(spec, selection)
    parts = folded(output, campaign, typed, folds)
    options = _Options(selection=selection, budget=budget, machines=machines, baselines=baselines, output=output)
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

    @contextmanager
    def campaign(self, name: str, typed: dict[str, Any], *, dry: bool = False) -> Iterator[Campaign]:
        """Prepare a campaign, or its continuation."""
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
                timed=True,
            )

    def run(self, name: str, typed: dict[str, Any]) -> _Ran:
        """Run a campaign, and its baselines if they were asked for."""
        with self.campaign(name, typed) as main:
            with trial_progress(compiled=self.machines.compiled) as watcher:
                for family, reason in main.inputs.left_out.items():
                    watcher.note(f"{family} is left out: {reason}")
                summary = replace(main, watcher=watcher).run()
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
