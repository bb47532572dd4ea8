"""``nngen report``, ``nngen dashboard`` and ``nngen cost``: a campaign's report, a live page, and its cost."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

from nngen.analysis.cost import Cost, Forecast, Share, family_seconds, remaining
from nngen.analysis.cost import cost as add_up
from nngen.analysis.cost import forecast as predict
from nngen.analysis.formatting import duration
from nngen.analysis.pdf_figures import write_figures
from nngen.analysis.report import collect, write_report
from nngen.cli.options import ArchiveOptions, CampaignName, Count, Names, Port, Price
from nngen.cli.output import note, print_json, print_table, say, suggest
from nngen.errors import MissingExtraError, NngenError, UsageError
from nngen.llm.rewriters.factory import REWRITERS
from nngen.space import draw, find_sampler

_NICE = 5
"""Niceness of the dashboard's process."""


def report(
    campaign: CampaignName,
    /,
    *,
    out: Path | None = None,
    figures: Path | None = None,
    price_per_hour: Price | None = None,
    output: ArchiveOptions = ArchiveOptions(),
) -> None:
    """Write a campaign's report: one HTML file that opens without a server or a network.

    It shows the best mixtures, the counts from sampled to trained with the verdicts, the coverage of the space,
    the effects of families and pairs on the accuracy, learning curves, gate usage, the cost and everything needed
    to repeat the campaign; and it states what cannot be concluded.

    Args:
        out: HTML file to write.
        figures: Folder for the same figures as PDF, for a paper.
        price_per_hour: Price of all machines per hour, in any currency.

    Examples:
        nngen report demo --out report.html
        nngen report demo --figures figures
        nngen report demo --out report.html --price-per-hour 0.44 --archive generated/demo.db --json
    """
    if out is None and figures is None:
        raise UsageError("say what to write: --out FILE for the report, --figures FOLDER for its figures as PDF")
    if out is not None and out.is_dir():
        raise UsageError(f"{out} is a folder: name the file to write, such as {out / 'report.html'}")
    if figures is not None and figures.exists() and not figures.is_dir():
        raise UsageError(f"{figures} is a file: --figures names a folder")
    baselines = [entry.argument for entry in REWRITERS if entry.trusted]
    with output.read() as store:
        found = (
            write_report(store, campaign, out, price_per_hour=price_per_hour, baselines=baselines)
            if out is not None
            else collect(store, campaign, price_per_hour=price_per_hour, baselines=baselines)
        )
    drawn = write_figures(found, figures) if figures is not None else ()
    if output.json:
        paths = {"report": str(out) if out else None, "figures": [str(path) for path in drawn]}
        print_json(
            {"campaign": campaign, **paths, **dict(found.funnel.stages()), "gains": found.gains.to_dict()}
            | {"baseline_accuracies": found.baselines.to_dict(), "quality": found.quality and found.quality.to_dict()}
        )
        return
    if out is not None:
        say(f"report of {campaign}: {out} ({found.funnel.trained} of {found.funnel.drawn} quartets trained)")
    if figures is not None:
        names = ", ".join(path.name for path in drawn) or "nothing to draw yet"
        say(f"figures of {campaign}: {figures} ({names})")
    suggest("export", campaign, "--out", "generated/lemur", *output.place)


def dashboard(*, port: Port = 8765, output: ArchiveOptions = ArchiveOptions()) -> None:
    """Serve a page that follows the campaigns of an archive, for a browser on this machine; Ctrl-C ends it.

    It shows running campaigns with their curves, leaderboards with filters, the Pareto front of accuracy, parameters
    and seconds, the numbers of plans, each candidate with its plan, gate, memory and confusion matrix, the lineage of
    proposals, two campaigns side by side, and closed loops. It reads the archive and changes nothing. Each start
    makes a new address; whoever has no token gets no page. From another machine, open it through an SSH tunnel.

    Args:
        port: Port on the loopback interface; 0 for any free one.

    Examples:
        nngen dashboard
        nngen dashboard --archive generated/demo.db --port 0
        nngen dashboard --json
    """
    try:
        from nngen.dashboard.server import serve
    except ImportError as error:
        raise MissingExtraError(error.name or "starlette", "dashboard") from error
    # Refused here, in one line, and not on the first page.
    output.read().close()

    def ready(address: str, number: int) -> None:
        if output.json:
            print_json({"address": address, "port": number, "archive": str(output.path)})
            return
        say(address)
        note(
            "open this address in a browser; from another machine, first run on it: "
            f"ssh -L {number}:127.0.0.1:{number} {socket.gethostname()}"
        )

    # Trainings on the same machine come first.
    os.nice(_NICE)
    with suppress(KeyboardInterrupt):
        serve(output.path, port, output.place, ready)
    suggest("campaign", "ls", *output.place)


def cost(
    campaign: CampaignName,
    /,
    *,
    price_per_hour: Price | None = None,
    forecast: Count | None = None,
    sampler: str = "stratified",
    families: Names = None,
    epochs: Count | None = None,
    seed: int = 0,
    output: ArchiveOptions = ArchiveOptions(),
) -> None:
    """Add up the cost of a campaign, estimate that of its rest, and forecast another one.

    Hours are wall time of the workers. The forecast adds up the seconds measured per family in this campaign,
    so it holds for the same data, shape and device.

    Args:
        price_per_hour: Price of all machines per hour, in any currency.
        forecast: Quartets of a new campaign to forecast.
        sampler: Sampler of the new campaign.
        families: Pool of the new campaign, separated by commas; this campaign's by default.
        epochs: Epochs of the new campaign's trials; this campaign's by default.
        seed: Seed of the new campaign.

    Examples:
        nngen cost first
        nngen cost first --price-per-hour 0.44 --json
        nngen cost first --forecast 203 --sampler stratified --epochs 5
    """
    find_sampler(sampler, learns=False)
    with output.read() as store:
        record = store.campaign(campaign)
        trials = store.trials(campaign)
    own, size = record.spec.epochs, record.spec.size
    spent = add_up(trials, price_per_hour)
    measured = family_seconds(trials)
    left = remaining(trials, measured, epochs=own, size=size, price_per_hour=price_per_hour)
    planned = None
    if forecast is not None:
        pool = families or tuple(record.pool)
        quartets = draw(sampler, pool, forecast, seed)
        if measured is None:
            raise NngenError(f"campaign {campaign} has no trained trial yet: there is nothing to forecast from")
        planned = predict(quartets, measured, epochs=epochs or own, price_per_hour=price_per_hour)
    if output.json:
        print_json(
            {"campaign": campaign, **spent.to_dict()}
            | {"remaining": left and left.to_dict(), "forecast": planned and planned.to_dict()}
        )
    else:
        _print_cost(spent, left, planned)


def _print_cost(spent: Cost, left: Forecast | None, planned: Forecast | None) -> None:
    parts = (
        ("total", spent.total),
        ("of it in failed trials", spent.failed),
        ("per trial", spent.per_trial),
        ("per valid candidate", spent.per_valid),
        ("per point of the best accuracy", spent.per_point),
    )
    say(f"{spent.trials:,} trials, {spent.valid:,} valid candidates, {spent.copied:,} results taken over")
    print_table([_row(name, share) for name, share in parts if share])
    for device, hours in spent.devices.items():
        say(f"{duration(3600 * hours)} on {device}")
    for caveat in spent.notes:
        say(f"- {caveat}")
    if left is not None and left.trials:
        say(f"remaining: {_in_words(left)}")
    if planned is not None:
        say(f"forecast: {_in_words(planned)}")


def _row(name: str, share: Share) -> dict[str, Any]:
    return {"cost": name, "time": duration(3600 * share.hours), "kWh": share.kwh, "money": share.money}


def _in_words(found: Forecast) -> str:
    money = "" if found.money is None else f", money {found.money:.2f}"
    unknown = f"; never measured: {', '.join(found.unmeasured)}" if found.unmeasured else ""
    low, expected, high = (duration(3600 * hours) for hours in (found.low, found.hours, found.high))
    return f"{found.trials:,} trials, {expected} ({low} to {high}){money}{unknown}"
