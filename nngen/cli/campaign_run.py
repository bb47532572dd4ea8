"""Carries out ``nngen campaign run``: from arguments to a campaign that runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nngen.cli.campaign_text import print_summary
from nngen.cli.output import print_json
from nngen.cli.progress import progress_bar

if TYPE_CHECKING:
    from nngen.campaign import Budget, Summary

__all__ = ["carry_out"]

_BUDGET = ("max_trials", "max_hours", "max_cost", "price_per_hour")
_FIELDS = {"wall": "wall_s", "memory": "memory_mib"}


def carry_out(
    *,
    name: str,
    families_from: tuple[str, ...],
    workers: int | None,
    engine: str,
    address: str | None,
    gpu_share: float | None,
    compiled: bool,
    exclude: str | None,
    without_near_twins: bool,
    data_root: Path | None,
    archive: Path | None,
    json: bool,
    **asked: Any,
) -> None:
    """Run or resume a campaign and print what it came to; ``asked`` holds the rest of the arguments.

    Raises:
        NngenError: For whatever cannot be done; see ``Campaign.run`` and ``prepare``.
    """
    from nngen.archive import Archive, default_path
    from nngen.assembly.assemble import Assembler
    from nngen.campaign import Campaign
    from nngen.campaign.setup import prepare
    from nngen.cli.engine_options import join, open_engine, suggest
    from nngen.cli.family_options import narrowed, pool_of
    from nngen.cli.watcher import watch
    from nngen.errors import UsageError
    from nngen.lemur.source import open_lemur

    if workers is not None and workers < 1:
        raise UsageError(f"--workers must be at least 1, not {workers}")
    limits = {limit: asked.pop(limit) for limit in _BUDGET}
    typed = _parsed(asked, here=engine == "local")
    if exclude is not None or without_near_twins:
        pool = pool_of(asked.get("families"), families_from=families_from)
        left = narrowed(pool, exclude, without_near_twins=without_near_twins, families_from=families_from)
        typed["families"] = tuple(sorted(left))
    place = archive or default_path()
    stored, budget = _stored(place, name, limits)
    with join(engine, address, gpu_share) as cluster:
        with progress_bar("measuring families") as report:
            spec, bench = prepare(
                name,
                stored,
                typed,
                suggest(cluster, workers, gpu_share),
                lemur=open_lemur(),
                families_from=families_from,
                data_root=data_root,
                progress=report,
            )
        with (
            open_engine(cluster, spec, bench, workers, gpu_share, compiled=compiled) as machines,
            Archive.open(place) as store,
            watch() as watcher,
        ):
            for family, reason in bench.left_out.items():
                watcher.note(f"{family} is left out: {reason}")
            campaign = Campaign(
                spec=spec,
                archive=store,
                bench=bench,
                engine=machines,
                assemble=Assembler().assemble,
                watcher=watcher,
                budget=budget,
            )
            summary = campaign.run()
    _report(summary, json=json)


def _stored(place: Path, name: str, limits: Mapping[str, Any]) -> tuple[dict[str, Any] | None, Budget]:
    """What an archive holds of a campaign; a missing archive is not created yet, but could be."""
    from nngen.archive import Archive, check_creatable
    from nngen.campaign import Budget
    from nngen.campaign.budget import last_budget

    if not place.exists():
        check_creatable(place)
        return None, Budget().changed(limits)
    with Archive.open(place) as store:
        found = next((dict(campaign.spec) for campaign in store.campaigns() if campaign.name == name), None)
        return found, last_budget(store.events(name)).changed(limits)


def _parsed(asked: Mapping[str, Any], *, here: bool) -> dict[str, Any]:
    """Read the arguments that are more than a number or a word; the device need not be here."""
    from nngen.errors import UsageError
    from nngen.families.probe import check_shape
    from nngen.training.device import pick_device
    from nngen.types import Shape

    read = {_FIELDS.get(name, name): value for name, value in asked.items() if value is not None}
    if "families" in read:
        read["families"] = tuple(sorted(name.strip() for name in read["families"].split(",") if name.strip()))
        if not read["families"]:
            raise UsageError("--families names no family: write names separated by commas")
    if "rungs" in read:
        parts = [part.strip() for part in read["rungs"].split(",")]
        if not all(part.isascii() and part.isdigit() for part in parts):
            raise UsageError(f"--rungs are epochs that rise, as 1,3,9, not {read['rungs']!r}")
        read["rungs"] = tuple(int(part) for part in parts)
    if "shape" in read:
        read["shape"] = Shape.parse(read["shape"])
        check_shape(read["shape"])
    device = read.pop("device", "auto")
    return read if device == "auto" else read | {"device": pick_device(device, here=here)}


def _report(summary: Summary, *, json: bool) -> None:
    from nngen.errors import SomeFailedError

    if json:
        print_json(summary.to_dict())
    else:
        print_summary(summary)
    if summary.failed:
        raise SomeFailedError(
            f"{summary.failed} of {summary.total} candidates failed: nngen campaign status {summary.name} says why"
        )
