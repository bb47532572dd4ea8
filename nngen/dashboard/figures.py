"""Figures of the dashboard as plotly JSON: curves, Pareto fronts, parallel coordinates, lineages, comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate
from typing import Any, TypeAlias

import plotly.graph_objects as go

from nngen.analysis.figure_style import COLOURS, PALETTE, figure_json, label, sampled, whole_step
from nngen.analysis.loop_report import LoopCycle
from nngen.analysis.ranking.rows import Row
from nngen.archive import TrialLine
from nngen.plan import Plan, changes
from nngen.types import EpochResult

Curve: TypeAlias = tuple[str, Sequence[EpochResult]]
"""Name of a trial, and its epochs."""

Step: TypeAlias = tuple[str, str, float | None, float | None]
"""Candidate and parent of a proposal, with their accuracies where they were trained."""

_BINS = ("#bbbbbb", "#a6bddb", "#74a9cf", "#2b8cbe", "#045a8d")
"""Colours of the candidates of parallel coordinates, by fifths of their accuracies, the lowest first."""


def accuracy_curves(curves: Sequence[Curve]) -> str:
    """Draw validation accuracy (solid) and training accuracy (dotted) over the epochs, as JSON."""
    figure = go.Figure()
    for place, (name, points) in enumerate(curves):
        for split, dash in (("validation", "solid"), ("train", "dot")):
            values = ((point.epoch, getattr(point, f"{split}_accuracy")) for point in points)
            found = [(epoch, value) for epoch, value in values if value is not None]
            _add_line(figure, name, found, place=place, dash=dash, split=split, shown=split == "validation")
    figure.update_yaxes(title="accuracy")
    return _over_epochs(figure, curves)


def loss_curves(curves: Sequence[Curve]) -> str:
    """Draw the loss on the training split over the epochs, as JSON."""
    figure = go.Figure()
    for place, (name, points) in enumerate(curves):
        found = [(point.epoch, point.train_loss) for point in points if point.train_loss is not None]
        _add_line(figure, name, found, place=place, dash="solid", split="training loss", shown=True)
    figure.update_yaxes(title="training loss")
    return _over_epochs(figure, curves)


def curve_figures(curves: Sequence[Curve], *, prefix: str = "", least: int = 2) -> dict[str, str]:
    """Draw curves of so many points at least, and the losses that were reported, by the names of the figures."""
    found = {}
    if any(len(points) >= least for _, points in curves):
        found[f"{prefix}accuracy"] = accuracy_curves(curves)
        if any(point.train_loss is not None for _, points in curves for point in points):
            found[f"{prefix}loss"] = loss_curves(curves)
    return found


def _add_line(
    figure: Any, name: str, points: Sequence[tuple[int, float]], *, place: int, dash: str, split: str, shown: bool
) -> None:
    if points:
        figure.add_scatter(
            x=[epoch for epoch, _ in points],
            y=[value for _, value in points],
            mode="lines+markers",
            name=label(name, 60),
            legendgroup=str(place),
            showlegend=shown,
            line={"color": PALETTE[place % len(PALETTE)], "width": 2, "dash": dash},
            marker={"size": 5},
            hovertemplate=f"{label(name)}, {split}<br>epoch %{{x}}: %{{y:.4f}}<extra></extra>",
        )


def _over_epochs(figure: Any, curves: Sequence[Curve]) -> str:
    last = max((point.epoch for _, points in curves for point in points), default=1)
    figure.update_xaxes(title="epoch", dtick=whole_step(last))
    # The legend stands above the figure, a line of it for each curve on a phone.
    return figure_json(figure, least=300 + 20 * len(curves))


def progress_figure(lines: Sequence[TrialLine]) -> str:
    """Draw the accuracies of a campaign's trials in their order, and the best so far, as JSON."""
    trained = [(line.position + 1, line.validation_accuracy or 0.0) for line in lines if line.trained]
    best = list(accumulate((accuracy for _, accuracy in trained), max))
    dots, steps = sampled(trained), sampled([(place, top) for (place, _), top in zip(trained, best, strict=True)])
    figure = go.Figure()
    figure.add_scatter(
        x=[place for place, _ in dots],
        y=[accuracy for _, accuracy in dots],
        mode="markers",
        name="one trial",
        marker={"color": COLOURS[0], "size": 6, "opacity": 0.5},
        hovertemplate="candidate %{x}: %{y:.4f}<extra></extra>",
    )
    figure.add_scatter(
        x=[place for place, _ in steps],
        y=[top for _, top in steps],
        mode="lines",
        name="best so far",
        line={"color": COLOURS[1], "width": 2, "shape": "hv"},
        hoverinfo="skip",
    )
    last = max((line.position for line in lines), default=0) + 1
    figure.update_xaxes(title="candidate, in the order drawn", dtick=whole_step(last))
    figure.update_yaxes(title="validation accuracy")
    return figure_json(figure, least=300)


def pareto_figure(rows: Sequence[Row], best: Sequence[Row], cost: str, title: str) -> str:
    """Draw accuracy over a cost (``parameters`` or ``seconds``), the Pareto front marked, as JSON."""
    figure = go.Figure()
    ids = {row.id for row in best}
    others = sampled([row for row in rows if row.id not in ids])
    for name, some, colour, size in (("others", others, COLOURS[6], 6), ("Pareto front", best, COLOURS[0], 10)):
        shown = [row for row in some if getattr(row, cost)]
        figure.add_scatter(
            x=[getattr(row, cost) for row in shown],
            y=[row.validation_accuracy for row in shown],
            customdata=[label(f"{', '.join(row.experts)} ({row.id[:13]})") for row in shown],
            mode="markers",
            name=name,
            marker={"color": colour, "size": size, "opacity": 0.8},
            hovertemplate=f"%{{customdata}}<br>%{{x:,.4g}} {cost}: %{{y:.4f}}<extra></extra>",
        )
    figure.update_xaxes(title=title, type="log", nticks=6)
    figure.update_yaxes(title="validation accuracy")
    return figure_json(figure, least=360)


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """An axis of parallel coordinates."""

    name: str  # field of the plan, or ``accuracy``
    places: tuple[float, ...]  # place of each candidate on the axis, in [0, 1]
    values: tuple[str, ...]  # value of each candidate, in words
    low: str  # value at the lower end
    high: str  # value at the upper end


def plan_axes(plans: Sequence[Plan]) -> tuple[Axis, ...]:
    """Return an axis for each field, the experts apart, in which some plans differ."""
    default = Plan(experts=())
    # A hundred thousand plans of a campaign are few, once their experts are left out.
    fields = cache(lambda plan: changes(default, plan))
    found = [fields(replace(plan, experts=())) for plan in plans]
    standard = {name: old for values in found for name, (old, _) in values.items()}
    axes = (
        _axis(name, [values[name][1] if name in values else old for values in found]) for name, old in standard.items()
    )
    return tuple(axis for axis in axes if axis is not None)


def _axis(name: str, values: Sequence[Any]) -> Axis | None:
    """Make an axis of numbers, or of words in their order; None where all values are the same."""
    numeric = all(isinstance(value, int | float) for value in values)
    words = [f"{value:g}" if numeric and not isinstance(value, bool) else str(value) for value in values]
    if len(set(words)) < 2:
        return None
    if numeric:
        numbers = [float(value) for value in values]
        ends = (words[numbers.index(min(numbers))], words[numbers.index(max(numbers))])
    else:
        ranks = {word: place for place, word in enumerate(sorted(set(words)))}
        numbers = [float(ranks[word]) for word in words]
        ends = (min(ranks), max(ranks))
    low, width = min(numbers), max(numbers) - min(numbers)
    places = tuple((number - low) / width for number in numbers)
    return Axis(name=name, places=places, values=tuple(words), low=ends[0], high=ends[1])


def parallel_figure(rows: Sequence[Row], axes: Sequence[Axis]) -> str:
    """Draw each candidate as a line over the fields of its plan to its accuracy, the best in dark blue, as JSON."""
    accuracies = [row.validation_accuracy for row in rows]
    last = _axis("accuracy", [round(accuracy, 4) for accuracy in accuracies])
    axes = [*axes, last] if last is not None else list(axes)
    # Lines, not plotly's own diagram, which needs WebGL and has no names of candidates.
    order = sorted(range(len(rows)), key=lambda place: accuracies[place])
    figure = go.Figure()
    for number, colour in enumerate(_BINS):
        some = order[number * len(order) // len(_BINS) : (number + 1) * len(order) // len(_BINS)]
        figure.add_scatter(
            x=[x for _ in some for x in (*range(len(axes)), None)],
            y=[y for place in some for y in (*(axis.places[place] for axis in axes), None)],
            text=[text for place in some for text in (*(_words(rows[place], axis, place) for axis in axes), "")],
            mode="lines+markers",
            showlegend=False,
            line={"color": colour, "width": 1 + number / 4},
            marker={"size": 4},
            opacity=0.35 + number / 8,
            hovertemplate="%{text}<extra></extra>",
        )
    for x, axis in enumerate(axes):
        figure.add_vline(x=x, line={"color": COLOURS[6], "width": 1})
        for y, text, anchor in ((0, axis.low, "top"), (1, axis.high, "bottom")):
            figure.add_annotation(x=x, y=y, text=label(text, 20), showarrow=False, yanchor=anchor)
    figure.update_xaxes(
        tickvals=list(range(len(axes))),
        ticktext=[label(axis.name.replace(".", "<br>"), 60).replace("&lt;br&gt;", "<br>") for axis in axes],
        showgrid=False,
        range=[-0.4, len(axes) - 0.6],
    )
    figure.update_yaxes(visible=False, range=[-0.08, 1.08])
    return figure_json(figure, least=460)


def _words(row: Row, axis: Axis, place: int) -> str:
    return label(f"{axis.name} {axis.values[place]}; {row.id[:13]}, accuracy {row.validation_accuracy:.4f}")


def lineage_figure(steps: Sequence[Step]) -> str:
    """Draw proposals in their order over their accuracies, each with a line from its parent, as JSON."""
    order = {child: place for place, (child, *_) in enumerate(steps, start=1)}
    known = [step for step in steps if step[2] is not None]
    shown = sampled(known)
    figure = go.Figure()
    # Parents that are not proposals stand at the beginning.
    figure.add_scatter(
        x=[x for child, parent, _, old in shown if old is not None for x in (order.get(parent, 0), order[child], None)],
        y=[y for _, _, new, old in shown if old is not None for y in (old, new, None)],
        mode="lines",
        line={"color": COLOURS[6], "width": 1},
        hoverinfo="skip",
        showlegend=False,
    )
    for name, colour, better in (("better than its parent", COLOURS[0], True), ("not better", COLOURS[1], False)):
        some = [step for step in shown if (step[3] is None or (step[2] or 0.0) > step[3]) == better]
        figure.add_scatter(
            x=[order[child] for child, *_ in some],
            y=[new for _, _, new, _ in some],
            customdata=[label(f"{child[:13]} from {parent[:13]}") for child, parent, *_ in some],
            mode="markers",
            name=name,
            marker={"color": colour, "size": 8},
            hovertemplate="%{customdata}: %{y:.4f}<extra></extra>",
        )
    figure.update_xaxes(title="proposal", dtick=whole_step(len(steps)))
    figure.update_yaxes(title="validation accuracy")
    return figure_json(figure, least=360)


def comparison_figure(sides: Mapping[str, Sequence[float]]) -> str:
    """Draw the distribution of the accuracies of campaigns side by side, as JSON."""
    figure = go.Figure()
    for place, (name, accuracies) in enumerate(sides.items()):
        figure.add_box(
            x=sampled(sorted(accuracies)),
            name=label(name, 40),
            boxpoints="all" if len(accuracies) <= 200 else False,
            marker={"color": COLOURS[place], "size": 5, "opacity": 0.6},
            showlegend=False,
        )
    figure.update_xaxes(title="validation accuracy")
    figure.update_yaxes(autorange="reversed")
    return figure_json(figure, least=130 + 90 * len(sides))


def loop_figure(cycles: Sequence[LoopCycle]) -> str:
    """Draw the mean accuracy of the proposals of each cycle, and the judged best, for each loop, as JSON."""
    figure = go.Figure()
    for place, name in enumerate(dict.fromkeys(cycle.loop for cycle in cycles)):
        colour = PALETTE[place % len(PALETTE)]
        for what, dash in (("mean", "solid"), ("judged", "dot")):
            own = [(c.number, getattr(c, what)) for c in cycles if c.loop == name and getattr(c, what) is not None]
            figure.add_scatter(
                x=[number for number, _ in own],
                y=[value for _, value in own],
                mode="lines+markers",
                name=label(f"{name}, {'judged best' if what == 'judged' else 'mean'}", 60),
                line={"color": colour, "width": 2, "dash": dash},
                hovertemplate="cycle %{x}: %{y:.4f}<extra></extra>",
            )
    figure.update_xaxes(title="cycle", dtick=whole_step(max((cycle.number for cycle in cycles), default=1)))
    figure.update_yaxes(title="validation accuracy")
    return figure_json(figure, least=360)
