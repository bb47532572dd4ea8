"""``nngen experts`` and ``nngen surrogate``: families trained alone, their mixtures ranked, and gates over them.

This module has ``experts train``, and the run of campaigns of families alone or of mixtures that a ranking chose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from cyclopts import App, Parameter

from nngen.archive import Archive, CampaignRecord
from nngen.campaign.budget import Budget
from nngen.campaign.protocols import CampaignInputs, CandidateSource
from nngen.campaign.runner import Campaign
from nngen.campaign.selection import FamiliesAlone
from nngen.campaign.setup import prepare, prepare_inputs
from nngen.campaign.summary import Summary
from nngen.campaign_spec import ALONE, CampaignSpec
from nngen.cli.options import ArchiveOptions
from nngen.cli.options.dry_run import DryRun, foresee_campaign
from nngen.cli.options.engine import BudgetOptions, EngineOptions, ExpertOptions, Prepare, read_stored
from nngen.cli.options.family import FamilyOptions
from nngen.cli.output import print_json, suggest
from nngen.cli.progress import print_summary, trial_progress
from nngen.datasets import Dataset
from nngen.errors import DataError, SomeFailedError, UsageError
from nngen.lemur.source import open_lemur
from nngen.ranges import Replicates, range_of
from nngen.surrogate.experts import Experts
from nngen.training import Engine

experts = App(name="experts", help="Train every family alone, once, for the ranking of all their mixtures.")
surrogate = App(name="surrogate", help="Rank all mixtures of families by what the families do alone.")
for _name, _module in (("rank", "ranking"), ("verify", "ranking"), ("gates", "gates")):
    surrogate.command(f"nngen.cli.surrogate.{_module}:{_name}", name=_name)

Seeds = Annotated[int, Parameter(validator=range_of(Replicates))]
"""Number of seeds of each candidate."""

FamiliesFrom = Annotated[tuple[str, ...], Parameter(negative="", show_default=False)]
"""Further sources of families."""


@experts.command
def train(
    campaign: Annotated[str, Parameter(name="CAMPAIGN")] = "experts",
    /,
    *,
    spec: ExpertOptions = ExpertOptions(),
    seeds: Seeds | None = None,
    selection: FamilyOptions = FamilyOptions(),
    budget: BudgetOptions = BudgetOptions(),
    machines: EngineOptions = EngineOptions(),
    dry_run: DryRun = False,
    output: ArchiveOptions = ArchiveOptions(),
) -> None:
    """Train every family of the pool alone, under the recipe of mixtures, and keep its logits on the validation images.

    Their weights are kept too, for mixtures that start from them; --keep-weights none saves the disk. This is a
    campaign like any other: it can be stopped, killed, resumed by the same command, given a budget and run on a Ray
    cluster. With --rungs 1,2,5,10 each family is trained anew for each of these epochs, so that mixtures of that
    fidelity can be ranked too.

    Args:
        campaign: Name of the campaign.
        seeds: Seeds of each family after the last epochs; 1 by default.

    Examples:
        nngen experts train --dataset cifar-10 --epochs 10
        nngen experts train small --dataset digits --families ShuffleNet,MobileNetV3,SqueezeNet-1,ICNet,DPN68
        nngen experts train --dataset cifar-10 --rungs 1,2,5,10 --seeds 2 --max-hours 12
    """
    typed = machines.settle(spec, selection)
    stored, limits = read_stored(output.path, campaign, budget)
    if stored is not None and not stored.spec.alone:
        raise UsageError(f"campaign {campaign} holds mixtures: choose another name for the families alone")
    if seeds is not None and seeds != (stored.spec.replicates if stored else 1):
        # All of them are finalists; their number is settled with the pool.
        typed |= {"replicates": seeds, "finalists": stored.spec.size if stored else 1}
    if stored is None:
        # Mixtures may start from the weights of every family.
        typed = {"keep_weights": "all"} | typed | {"sampler": ALONE, "reduction_factor": 1}
    inputs_of = preparation(stored, selection.families_from)
    with machines.session(campaign, stored.spec if stored else None, typed, inputs_of, grows=True) as session:
        settled, inputs, engine = session
        size = len(inputs.families)
        settled = replace(settled, size=size, finalists=size if settled.replicates > 1 else 0)
        summary = train_candidates(
            settled, inputs, engine, FamiliesAlone(), budget=limits, machines=machines, output=output, dry_run=dry_run
        )
    if summary is not None:
        finish(summary, ("experts", "train", campaign), ("surrogate", "rank", campaign), output)


def begun(archive: Archive, name: str) -> int:
    """Count the candidates of a campaign so far; 0 where it has not begun."""
    if all(record.name != name for record in archive.campaigns()):
        return 0
    return sum(line.rung == line.replicate == 0 for line in archive.lines(name))


def preparation(stored: CampaignRecord | None, families_from: Sequence[str]) -> Prepare:
    """Return the preparation of a campaign of a pool, whatever it tries; one that is resumed keeps its families."""

    def inputs_of(
        spec: CampaignSpec, dataset: Dataset, /, *, progress: Callable[[int, int], None], wanted: str
    ) -> CampaignInputs:
        lemur, names = open_lemur(), spec.families
        if stored is not None:
            return prepare(
                spec, dataset, stored, lemur=lemur, families_from=families_from, progress=progress, wanted=wanted
            )
        return prepare_inputs(
            dataset, spec.shape, names, lemur=lemur, families_from=families_from, progress=progress, wanted=wanted
        )

    return inputs_of


def train_candidates(
    spec: CampaignSpec,
    inputs: CampaignInputs,
    engine: Engine,
    source: CandidateSource,
    *,
    budget: Budget | None,
    machines: EngineOptions,
    output: ArchiveOptions,
    dry_run: bool,
) -> Summary | None:
    """Run a campaign, or print what it would cost and return None."""
    with output.peek() if dry_run else output.open() as store:
        campaign = Campaign(
            spec=spec,
            archive=store,
            inputs=inputs,
            engine=engine,
            source=source,
            budget=budget,
            reveal=False,
            isolation=machines.isolation,
            timed=True,
        )
        if dry_run:
            foresee_campaign(campaign, output)
            return None
        with trial_progress(compiled=machines.compiled) as watcher:
            for family, reason in campaign.inputs.left_out.items():
                watcher.note(f"{family} is left out: {reason}")
            summary = replace(campaign, watcher=watcher).run()
        if output.json:
            print_json(summary.to_dict())
        else:
            print_summary(summary)
        return summary


def train_mixtures(
    alone: Experts,
    spec: CampaignSpec,
    source: CandidateSource,
    *,
    weights: Mapping[str, tuple[Path, ...]] = MappingProxyType({}),
    families_from: Sequence[str],
    budget: BudgetOptions,
    machines: EngineOptions,
    output: ArchiveOptions,
    dry_run: bool,
) -> Summary | None:
    """Run a campaign of mixtures of families that were trained alone, or print what it would cost and return None.

    Args:
        alone: The families.
        spec: Specification; the campaign of its name is resumed, or grows to it.
        source: Source of the mixtures.
        weights: Kept weights of each family, from which the experts start; none for new ones.
        families_from: Further sources of families.
        budget: Limits that were typed.
        machines: Machines to train on.
        output: The archive.
        dry_run: Whether nothing is trained.

    Raises:
        DataError: If a family or the data set has changed since the families were trained.
    """
    stored, limits = read_stored(output.path, spec.name, budget)
    with output.read() as store:
        record = store.campaign(alone.campaign)
    typed = {item.name: getattr(spec, item.name) for item in fields(spec)}
    inputs_of = preparation(stored, families_from)
    with machines.session(spec.name, stored.spec if stored else None, typed, inputs_of, grows=True) as session:
        settled, inputs, engine = session
        changed = [family for family in alone.families if inputs.fingerprints.get(family) != record.pool[family]]
        if changed or inputs.dataset.fingerprint != record.data_fingerprint:
            raise DataError(
                f"{f'family {changed[0]}' if changed else f'data set {settled.dataset}'} has changed since"
                f" {alone.campaign} was trained: train the families again under another name"
            )
        inputs = replace(inputs, experts=weights)
        return train_candidates(
            settled, inputs, engine, source, budget=limits, machines=machines, output=output, dry_run=dry_run
        )


def finish(summary: Summary, again: Sequence[str], then: Sequence[str], output: ArchiveOptions) -> None:
    """Suggest the next command, the same one until the campaign is over; the exit code tells of trials that failed."""
    if summary.failed:
        raise SomeFailedError(
            f"{summary.failed} of {summary.total} trials failed: nngen campaign status {summary.name} says why; nngen"
            f" {' '.join(then)} goes on with what was trained"
        )
    suggest(*(then if summary.over else again), *output.place)
