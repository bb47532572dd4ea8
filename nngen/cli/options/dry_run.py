"""The dry run of commands that spend time, disk and money: prints an estimate, trains and stores nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from nngen.analysis.formatting import duration
from nngen.archive import Archive, CampaignRecord
from nngen.campaign.budget import Budget
from nngen.campaign.protocols import CampaignInputs
from nngen.cli.options import ArchiveOptions
from nngen.cli.output import print_json, say
from nngen.cli.progress import progress_bar
from nngen.errors import UsageError
from nngen.text import counted
from nngen.training.engine import Engine

if TYPE_CHECKING:  # loaded where they are used, which the help of a command does not
    from nngen.campaign.estimate import Estimate, Work
    from nngen.campaign.runner import Campaign

DryRun = Annotated[
    bool,
    Parameter(
        negative="",
        show_default=False,
        help="Train and store nothing: print what it would take, in trials, hours, disk and money, and which mixtures "
        "memory does not suffice for. Families without a measurement are measured.",
    ),
]
"""The flag of commands that spend."""

_WIDTH = 10
_SHOWN = 10


def foresee(
    record: CampaignRecord,
    work: Sequence[Work],
    *,
    archive: Archive,
    inputs: CampaignInputs,
    engine: Engine,
    budget: Budget,
    isolation: str,
    output: ArchiveOptions,
    note: str = "",
) -> None:
    """Print the estimate of some trainings.

    Args:
        record: The campaign that they belong to.
        work: The trainings.
        archive: Archive with earlier trials.
        inputs: Families and data set.
        engine: Engine that would train; it is asked for its slots and its memory.
        budget: Limits and price.
        isolation: Level at which families are measured.
        output: Place of the archive, and form of the output.
        note: What the estimate leaves out, as a sentence.
    """
    from nngen.campaign.estimate import estimate
    from nngen.training.local_engine import LocalEngine

    if record.spec.replayed:
        raise UsageError("a recorded table answers at once, without a training to estimate: leave out --dry-run")
    card = record.spec.device != "cpu"
    memory = float(record.spec.memory_mib)
    if card:
        memory = engine.card_mib if isinstance(engine, LocalEngine) else float("inf")
    with progress_bar("measuring the cost of families") as report:
        found = estimate(
            record,
            work,
            archive=archive,
            inputs=inputs,
            workers=engine.slots,
            memory_mib=memory,
            price_per_hour=budget.price_per_hour,
            wanted=isolation,
            progress=report,
        )
    stops = list(_stops(budget, found))
    if output.json:
        print_json(found.to_dict() | {"stops": stops} | ({"note": note} if note else {}))
        return
    say(f"dry run of {found.name}: nothing is trained or stored")
    for title, lines in (_sections(found, output.path) | ({"budget": stops} if stops else {})).items():
        for number, line in enumerate(lines):
            say(f"{'' if number else title:<{_WIDTH}}{line}")
    if note:
        say(note)


def foresee_campaign(main: Campaign, output: ArchiveOptions, *, times: int = 1, baselines: bool = False) -> None:
    """Print the estimate of what is left of a campaign, or of so many of its kind, perhaps with their baselines."""
    from nngen.campaign.estimate import Work

    record, work = main.preview()
    if baselines and not record.spec.alone:
        spec = record.spec.baselines(record.pool)
        seeds = spec.replicates if spec.finalists else 1
        work += [Work(experts=(family,), epochs=spec.epochs) for family in spec.families] * seeds
    foresee(
        record,
        work * times,
        archive=main.archive,
        inputs=main.inputs,
        engine=main.engine,
        budget=main.budget or Budget(),
        isolation=main.isolation,
        output=output,
    )


def _sections(found: Estimate, place: Path) -> dict[str, list[str]]:
    sections = {"trials": [f"{found.trials:,} of {counted(found.epochs, 'epoch')} in all, {found.workers:,} at a time"]}
    if found.hours is None or found.low is None or found.high is None:
        sections["time"] = [found.basis]
    else:
        expected, low, high = (duration(3600 * hours) for hours in (found.hours, found.low, found.high))
        sections["time"] = [f"{expected} (from {low} to {high})", f"by {found.basis}"]
    if found.money is not None:
        expected, low, high = (f"{amount:,.2f}" for amount in found.money)
        sections["money"] = [f"{expected} (from {low} to {high})"]
    free = shutil.disk_usage(next(folder for folder in place.absolute().parents if folder.is_dir())).free / 2**20
    parts = {
        "in the archive": found.archive_mib,
        "of kept weights": found.weights_mib,
        "of checkpoints while it runs": found.checkpoints_mib,
    }
    sections["disk"] = [f"{mib:,.1f} MiB {words}" for words, mib in parts.items() if mib]
    lacking = "" if sum(parts.values()) < free else ", which does not suffice"
    sections["disk"].append(f"{free:,.0f} MiB are free{lacking}")
    refused = [f"{experts}: {reason}" for experts, reason in found.refused.items()]
    smaller = [f"{experts}: in batches of {batch}" for experts, batch in found.smaller.items()]
    more = len(refused) + len(smaller) - _SHOWN
    sections["memory"] = [*(refused + smaller)[:_SHOWN], *([f"{more:,} more; --json lists all"] if more > 0 else [])]
    sections["memory"] = sections["memory"] or ["suffices for every mixture, as far as their families are measured"]
    return sections


def _stops(limits: Budget, found: Estimate) -> Iterator[str]:
    """Name the limits of the budget that end a campaign earlier."""
    if limits.max_trials is not None and limits.max_trials < found.trials:
        yield f"--max-trials {limits.max_trials:,} ends it before the last of {found.trials:,} trials"
    costs = (
        ("--max-hours", limits.max_hours, found.hours),
        ("--max-cost", limits.max_cost, found.money and found.money[0]),
    )
    for flag, limit, needed in costs:
        if limit is not None and needed is not None and needed > limit:
            yield f"{flag} {limit:g} ends it after about {limit / needed:.0%} of the work"
