"""Pages of the dashboard by address, and those of candidates: leaderboard, Pareto front, plans, lineage."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nngen.analysis.figure_style import POINTS, sampled
from nngen.dashboard import figures
from nngen.dashboard.campaign_pages import campaign, compare, home, loop
from nngen.dashboard.selection import SORTABLE, front, select
from nngen.dashboard.snapshot import Snapshot
from nngen.dashboard.view import LISTED, Query, View, paged, table_columns
from nngen.plan import changes


def leaderboard(snapshot: Snapshot, query: Query) -> View:
    """Gather a page of a leaderboard."""
    chosen = select(snapshot, query)
    return View(
        template="leaderboard",
        title=f"Leaderboard of {chosen.campaign or 'all campaigns'}",
        values={
            "chosen": chosen,
            "pages": paged(chosen.rows, query, chosen.query),
            "columns": table_columns(chosen.rows),
            "sortable": SORTABLE,
        },
        campaign=chosen.campaign,
    )


def pareto(snapshot: Snapshot, query: Query) -> View:
    """Gather the Pareto front of accuracy, parameters and seconds."""
    chosen = select(snapshot, query)
    best = front(chosen.rows)
    costs = {"parameters": "parameters of the network", "seconds": "seconds of the training"}
    return View(
        template="pareto",
        title=f"Pareto front of {chosen.campaign or 'all campaigns'}",
        values={"chosen": chosen, "front": best, "columns": table_columns(best[:LISTED])},
        figures={cost: figures.pareto_figure(chosen.rows, best, cost, title) for cost, title in costs.items() if best},
        campaign=chosen.campaign,
    )


def parallel(snapshot: Snapshot, query: Query) -> View:
    """Gather the numbers of the plans of candidates beside their accuracies."""
    chosen = select(snapshot, query)
    rows = sampled(sorted(chosen.rows, key=lambda row: row.rank), POINTS // 2)
    plans = snapshot.archive.plans(row.id for row in rows)
    known = [row for row in rows if row.id in plans]
    axes = figures.plan_axes([plans[row.id] for row in known])
    return View(
        template="parallel",
        title=f"Plans of {chosen.campaign or 'all campaigns'}",
        values={"chosen": chosen, "axes": axes, "drawn": len(known)},
        figures={"parallel": figures.parallel_figure(known, axes)} if axes else {},
        campaign=chosen.campaign,
    )


def lineage(snapshot: Snapshot, query: Query) -> View:
    """Gather proposals with their parents and what they gained."""
    name = query.get("campaign", "")
    if name:
        snapshot.archive.campaign(name)
    parents = snapshot.parents()
    own = {row.id for row in snapshot.rows(name)} if name and parents else set(parents)
    # The first row of a candidate is that of its longest training.
    known = {row.id: row.validation_accuracy for row in reversed(snapshot.rows(None))} if parents else {}
    steps = [(child, parent, known.get(child), known.get(parent)) for child, parent in parents.items() if child in own]
    pages = paged(sorted(steps, key=lambda step: -(step[2] or -1.0)), query, {"campaign": name} if name else {})
    plans = snapshot.archive.plans({one for child, parent, *_ in pages.items for one in (child, parent)})
    differences = {
        child: changes(plans[parent], plans[child])
        for child, parent, *_ in pages.items
        if child in plans and parent in plans
    }
    return View(
        template="lineage",
        title=f"Lineage of {name or 'all campaigns'}",
        values={"name": name, "pages": pages, "fields": differences, "count": len(steps)},
        figures={"lineage": figures.lineage_figure(steps)} if any(step[2] is not None for step in steps) else {},
        campaign=name,
    )


PAGES: Mapping[str, Callable[[Snapshot, Query], View]] = {
    "": home,
    "campaign": campaign,
    "leaderboard": leaderboard,
    "pareto": pareto,
    "parallel": parallel,
    "lineage": lineage,
    "compare": compare,
    "loop": loop,
}
"""Pages by the last part of their address; that of a candidate is in a module of its own."""
