"""Execution of campaigns with the options of one command, for ``nngen campaign run``: trials, baselines, dry run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from nngen.campaign.protocols import Watcher
from nngen.campaign.summary import Summary, summarise
from nngen.cli.options import ArchiveOptions
from nngen.cli.options.dry_run import foresee_campaign
from nngen.cli.options.engine import BudgetOptions, EngineOptions, read_stored
from nngen.cli.options.family import FamilyOptions
from nngen.cli.output import note
from nngen.cli.progress import trial_progress
from nngen.errors import UsageError
from nngen.lemur.source import open_lemur

if TYPE_CHECKING:  # loaded where they are used, which the help of a command does not
    from nngen.analysis.quality.gains import Gains
    from nngen.analysis.ranking.early_stop import Saving
    from nngen.campaign.runner import Campaign


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
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
class RunOptions:
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

    def run(self, name: str, typed: dict[str, Any]) -> RunResult:
        """Run a campaign, and its baselines if they were asked for."""
        from nngen.analysis.quality.gains import gains
        from nngen.analysis.ranking.early_stop import saving

        with self.campaign(name, typed) as main:
            with trial_progress(compiled=self.machines.compiled) as watcher:
                for family, reason in main.inputs.left_out.items():
                    watcher.note(f"{family} is left out: {reason}")
                summary = replace(main, watcher=self.tracked(watcher) if self.tracked else watcher).run()
            alone, store = _run_baselines(main, summary, asked=self.baselines), main.archive
            saved = saving(main.spec, store.trials(name)) if main.spec.stop_early else None
            if alone is None:
                return RunResult(summary=summary, saved=saved)
            compared = gains(store, store.campaign(name), store.trials(name, curves=False))
            # Once more, since the best of its families stands beside its best now.
            return RunResult(summary=summarise(store, name), alone=alone, compared=compared, saved=saved)

    def foresee(self, name: str, typed: dict[str, Any], *, times: int) -> None:
        """Print the estimate of so many campaigns of this kind."""
        with self.campaign(name, typed, dry=True) as main:
            foresee_campaign(main, self.output, times=times, baselines=self.baselines)


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
