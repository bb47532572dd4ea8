"""Runs a campaign from typed arguments."""

from __future__ import annotations

from pathlib import Path

from nngen.archive import Archive, CampaignRecord, check_creatable
from nngen.assembly.assemble import Assembler
from nngen.campaign import Budget, Campaign
from nngen.campaign.budget import last_budget
from nngen.campaign.setup import prepare
from nngen.cli.engine_options import BudgetOptions, CampaignOptions, EngineOptions
from nngen.cli.family_options import FamilyOptions
from nngen.cli.options import ArchiveOptions
from nngen.cli.output import print_json
from nngen.cli.progress import print_summary, progress_bar, trial_progress
from nngen.errors import SomeFailedError
from nngen.families.probe import check_shape
from nngen.lemur.source import open_lemur
from nngen.training.environment import pick_device

__all__ = ["run_campaign"]


def run_campaign(
    name: str,
    spec: CampaignOptions,
    selection: FamilyOptions,
    budget: BudgetOptions,
    machines: EngineOptions,
    data_root: Path | None,
    output: ArchiveOptions,
) -> None:
    """Run a campaign, or resume it, and print its summary.

    Raises:
        NngenError: See ``prepare`` and ``Campaign.run``; SomeFailedError if candidates failed.
    """
    typed = spec.typed()
    if selection.narrowed:
        typed["families"] = tuple(sorted(selection.pool()))
    elif selection.families is not None:
        typed["families"] = tuple(sorted(selection.families))
    if "shape" in typed:
        check_shape(typed["shape"])
    # "auto" is what the machine suggests below; another device is checked here, before families are measured.
    device = typed.pop("device", "auto")
    if device != "auto":
        typed["device"] = pick_device(device, here=machines.here)
    stored, limits = _stored(output.path, name, budget)
    with machines.join() as cluster:
        with progress_bar("measuring families") as report:
            settled, inputs = prepare(
                name,
                stored,
                typed,
                machines.defaults(cluster),
                lemur=open_lemur(),
                families_from=selection.families_from,
                data_root=data_root,
                progress=report,
            )
        with (
            machines.open(cluster, settled, inputs) as engine,
            output.open() as store,
            trial_progress() as watcher,
        ):
            for family, reason in inputs.left_out.items():
                watcher.note(f"{family} is left out: {reason}")
            campaign = Campaign(
                spec=settled,
                archive=store,
                inputs=inputs,
                engine=engine,
                assemble=Assembler().assemble,
                watcher=watcher,
                budget=limits,
            )
            summary = campaign.run()
    if output.json:
        print_json(summary.to_dict())
    else:
        print_summary(summary)
    if summary.failed:
        raise SomeFailedError(
            f"{summary.failed} of {summary.total} candidates failed: nngen campaign status {summary.name} says why"
        )


def _stored(place: Path, name: str, budget: BudgetOptions) -> tuple[CampaignRecord | None, Budget]:
    """Read a campaign's stored specification and budget; an archive that is missing is not created yet."""
    if not place.exists():
        check_creatable(place)
        return None, Budget().changed(budget.typed())
    with Archive.open(place) as store:
        found = next((campaign for campaign in store.campaigns() if campaign.name == name), None)
        return found, last_budget(store.events(name)).changed(budget.typed())
