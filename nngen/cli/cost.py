"""``nngen cost``: what a campaign cost, what is left of it, what another one would cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nngen.cli.output import print_json, print_table

if TYPE_CHECKING:
    from nngen.analysis.cost import Cost, Forecast, Share

__all__ = ["cost"]


def cost(
    campaign: str,
    /,
    *,
    price_per_hour: float | None = None,
    forecast: int | None = None,
    sampler: str = "stratified",
    families: str | None = None,
    epochs: int | None = None,
    seed: int = 0,
    archive: Path | None = None,
    json: bool = False,
) -> None:
    """Say what a campaign cost, what the rest of it will, and what another one would.

    Hours are wall time of the workers. The forecast adds up the seconds that each family was measured to
    take in this campaign, so it holds for the same data, shape and device.

    Args:
        campaign: The campaign's name.
        price_per_hour: Of the machine, in any currency.
        forecast: Forecast a new campaign of so many quartets.
        sampler: Of the new campaign.
        families: Pool of the new campaign, separated by commas; this campaign's by default.
        epochs: Of the new campaign's trials; this campaign's by default.
        seed: Of the new campaign.
        archive: The archive's file; NNGEN_ARCHIVE or ./nngen.db by default.
        json: Print everything as JSON.

    Examples:
        nngen cost first
        nngen cost first --price-per-hour 0.44 --json
        nngen cost first --forecast 203 --sampler stratified --epochs 5
    """
    from nngen.analysis.cost import cost as add_up
    from nngen.analysis.cost import family_seconds, remaining
    from nngen.analysis.cost import forecast as predict
    from nngen.archive import Archive, default_path
    from nngen.cli.family_options import named
    from nngen.errors import NngenError, UsageError
    from nngen.space import draw, find_sampler

    if price_per_hour is not None and not 0 <= price_per_hour < float("inf"):
        raise UsageError(f"--price-per-hour must be a number from 0 up, not {price_per_hour}")
    if forecast is not None and forecast < 1:
        raise UsageError(f"--forecast must be at least 1, not {forecast}")
    find_sampler(sampler, learns=False)
    if epochs is not None and epochs < 1:
        raise UsageError(f"--epochs must be at least 1, not {epochs}")
    with Archive.open(archive or default_path(), readonly=True) as store:
        spec = store.campaign(campaign).spec
        trials = store.trials(campaign)
    own = int(spec.get("epochs") or 1)
    size = int(spec.get("size") or 0)
    spent = add_up(trials, price_per_hour)
    left = remaining(trials, epochs=own, size=size, price_per_hour=price_per_hour)
    planned = None
    if forecast is not None:
        pool = named(families) if families else tuple(spec.get("pool") or spec.get("families") or ())
        quartets = draw(sampler, pool, forecast, seed)
        measured = family_seconds(trials)
        if measured is None:
            raise NngenError(f"campaign {campaign} has no trained trial yet: there is nothing to forecast from")
        planned = predict(quartets, measured, epochs=epochs or own, price_per_hour=price_per_hour)
    if json:
        print_json(
            {"campaign": campaign, **spent.to_dict()}
            | {"remaining": left and left.to_dict(), "forecast": planned and planned.to_dict()}
        )
    else:
        _print(spent, left, planned)


def _print(spent: Cost, left: Forecast | None, planned: Forecast | None) -> None:
    from nngen.analysis.formatting import duration

    parts = (
        ("total", spent.total),
        ("of it in failed trials", spent.failed),
        ("per trial", spent.per_trial),
        ("per valid candidate", spent.per_valid),
        ("per point of the best accuracy", spent.per_point),
    )
    print(f"{spent.trials:,} trials, {spent.valid:,} valid candidates, {spent.copied:,} results taken over")
    print_table([_row(name, share) for name, share in parts if share], ("cost", "time", "kWh", "money"))
    for device, hours in spent.devices.items():
        print(f"{duration(3600 * hours)} on {device}")
    for note in spent.notes:
        print(f"- {note}")
    if left is not None and left.trials:
        print(f"remaining: {_told(left)}")
    if planned is not None:
        print(f"forecast: {_told(planned)}")


def _row(name: str, share: Share) -> dict[str, Any]:
    from nngen.analysis.formatting import duration

    return {"cost": name, "time": duration(3600 * share.hours), "kWh": share.kwh, "money": share.money}


def _told(found: Forecast) -> str:
    from nngen.analysis.formatting import duration

    money = "" if found.money is None else f", money {found.money:.2f}"
    unknown = f"; never measured: {', '.join(found.unmeasured)}" if found.unmeasured else ""
    low, expected, high = (duration(3600 * hours) for hours in (found.low, found.hours, found.high))
    return f"{found.trials:,} trials, {expected} ({low} to {high}){money}{unknown}"
