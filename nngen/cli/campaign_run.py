"""Runs a campaign from typed arguments, and prints campaigns on stdout."""

from __future__ import annotations

from pathlib import Path

from nngen.archive import Archive, CampaignRecord, check_creatable
from nngen.assembly.assemble import Assembler
from nngen.campaign import Budget, Campaign, Status, Summary
from nngen.campaign.budget import last_budget
from nngen.campaign.setup import prepare
from nngen.cli.engine_options import BudgetOptions, CampaignOptions, EngineOptions
from nngen.cli.family_options import FamilyOptions
from nngen.cli.options import ArchiveOptions
from nngen.cli.output import print_json, print_table
from nngen.cli.progress import progress_bar, trial_progress
from nngen.errors import SomeFailedError
from nngen.families.probe import check_shape
from nngen.lemur.source import open_lemur
from nngen.training.environment import pick_device

__all__ = ["print_status", "print_summary", "run_campaign"]


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


def print_summary(summary: Summary) -> None:
    """Print the result of a campaign: trials, coverage, rungs and finalists if there are any, the best candidate."""
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(summary.outcomes.items())) or "none yet"
    print(f"campaign {summary.name}: {summary.done} of {summary.total} trials done ({outcomes})")
    audit = summary.coverage
    if audit is not None:
        print(f"coverage {audit.share:.2%} of {audit.space:,} quartets: {audit.verdict}")
    for number, rung in enumerate(summary.rungs if len(summary.rungs) > 1 else (), start=1):
        reached = "" if rung.best is None else f", best {rung.best:.4f}"
        counts = f"{rung.done} of {rung.trials} done, {rung.promoted} promoted{reached}"
        print(f"rung {number} ({rung.epochs} epochs): {counts}")
    if summary.templates:
        print(summary.templates)
    best = summary.best
    if best is not None:
        test = "not revealed yet" if best.test_accuracy is None else f"{best.test_accuracy:.4f}"
        print(f"best {best.candidate_id} ({', '.join(best.experts)})")
        print(f"     validation accuracy {best.validation_accuracy:.4f}, test accuracy {test}")
    if summary.finalists:
        columns = ("id", "experts", "epochs", "seeds", "validation_accuracy", "validation_std", "test_accuracy")
        rows = [row.to_dict() for row in summary.finalists]
        print_table([row | {"id": row["id"][:13], "experts": ", ".join(row["experts"])} for row in rows], columns)


def print_status(summary: Summary, status: Status) -> None:
    """Print the progress of a campaign: whether it is running, its rate, and the budget used."""
    driver = "" if status.driver is None else f" (process {status.driver})"
    parts = ["over" if summary.over else f"{status.word}{driver}", f"{status.spent.hours:.2f} h used"]
    if status.spent.cost is not None:
        parts.append(f"cost {status.spent.cost:.2f}")
    if status.per_hour is not None:
        parts.append(f"{status.per_hour:.1f} trials per hour")
        if not summary.over:
            parts.append(f"about {(summary.total - summary.done) / status.per_hour:.1f} h left")
    parts += [f"{used:.4g} of {limit:g} {name}" for name, (used, limit) in status.spent.shares(status.budget).items()]
    if status.promotions:
        parts.append(f"{status.promotions} promotions")
    if status.lost:
        parts.append(f"{status.lost} trials lost and tried again")
    print(", ".join(parts))
