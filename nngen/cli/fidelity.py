"""``nngen fidelity``: how rankings after few epochs agree with those after many."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from nngen.analysis.ranking.fidelity import (
    GOOD,
    LAST,
    Agreement,
    agreements,
    by_family,
    curves_of,
    ranks,
    rung_agreements,
)
from nngen.cli.options import ArchiveOptions, DataName
from nngen.cli.output import note, print_json, print_table, say, suggest
from nngen.lemur.source import open_lemur

_CLIMBERS = 3


def fidelity(*, dataset: DataName = "cifar-10", output: ArchiveOptions = ArchiveOptions()) -> None:
    """Compare rankings after few epochs with rankings after many, by Kendall's tau, the best five, and regret.

    Of LEMUR's trainings, families (each by the best of them at every epoch) and all runs of 50 epochs are ranked after
    1, 2, 5, 10 and 20 epochs and after 50; the accuracies are those in the archive where it has some (``nngen
    lemur import``), else those of LEMUR itself. Of the archive's own campaigns with rungs, the candidates that were on
    two rungs are ranked on both. Intervals are from a bootstrap over models. Regret is the accuracy that the first of
    the short ranking lacks to the best, in the long one.

    Args:
        dataset: LEMUR's name of the data set: cifar-10, cifar-100, mnist, svhn, imagenette, celeba-gender, ...

    Examples:
        nngen fidelity
        nngen fidelity --dataset mnist --json
    """
    records, own = [], list[Agreement]()
    if output.path.exists():
        with output.read() as store:
            records = list(store.external.records(dataset=dataset))
            own = rung_agreements(store.campaigns(), store.lines())
    if not records:
        records = list(open_lemur().long_trainings(LAST, dataset))
    curves = curves_of(records)
    found = agreements(curves)
    families = by_family(curves, (1, LAST))
    first, last = ranks(families, 1), ranks(families, LAST)
    rising = sorted(first, key=lambda name: (last[name] - first[name], name))[:_CLIMBERS]
    climbers = [{"family": name, "rank_after_1": first[name], f"rank_after_{LAST}": last[name]} for name in rising]
    if output.json:
        print_json({"dataset": dataset, "agreements": [asdict(row) for row in found + own], "climbers": climbers})
    elif not found + own:
        say(f"too few trainings of {LAST} epochs on {dataset} to compare rankings")
    else:
        print_table([_row(row) for row in found + own])
        for row in climbers:
            early, late = row["rank_after_1"], row[f"rank_after_{LAST}"]
            say(f"{row['family']}: {early} of {len(families)} after 1 epoch, {late} after {LAST}")
        enough = [row.epochs for row in found if row.what == "families" and row.tau >= GOOD]
        if enough:
            say(f"{min(enough)} epochs are the fewest after which families rank with a tau of {GOOD:g} or more")
    if own:
        note("on later rungs are the best of earlier ones alone, whose order is harder to tell than that of all")
    suggest("leaderboard", *output.place)


def _row(row: Agreement) -> dict[str, Any]:
    return {
        "ranked": row.what,
        "models": row.models,
        "runs": row.runs,
        "after": row.epochs,
        "like": row.last,
        "tau": row.tau,
        "low_95%": row.low,
        "high_95%": row.high,
        "top_5": row.top,
        "regret": row.regret,
    }
