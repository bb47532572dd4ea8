"""The report's figures, as plotly draws them; each says nothing about colours of text and page.

The page sets those (light or dark) when it draws them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Any

from nngen.analysis.results import FamilyRow
from nngen.archive import StoredTrial
from nngen.errors import MissingExtraError
from nngen.space import Coverage

__all__ = ["curves_figure", "family_figure", "gate_figure", "pair_figure", "plotly_script"]

_COLOURS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#BBBBBB")
"""Paul Tol's "bright" scheme, which colour-blind readers can tell apart."""

_SHOWN = 12
_SHADES = [[0.0, "#d8e6f3"], [0.5, "#4a90c2"], [1.0, "#0b2f5b"]]
_ROW_PX = 26


def plotly_script() -> str:
    """Give plotly's own JavaScript.

    Raises:
        MissingExtraError: If plotly is not installed.
    """
    _graph_objects()
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def family_figure(rows: Sequence[FamilyRow]) -> str:
    """Draw each family's accuracies as dots with their mean, best family on top, as JSON."""
    go = _graph_objects()
    shown = [row for row in reversed(rows) if row.trained]
    names = [f"{row.name} ({row.trained})" for row in shown]
    figure = go.Figure()
    figure.add_scatter(
        x=[accuracy for row in shown for accuracy in row.accuracies],
        y=[name for name, row in zip(names, shown, strict=True) for _ in row.accuracies],
        mode="markers",
        name="one quartet",
        marker={"color": _COLOURS[0], "size": 7, "opacity": 0.45},
        hovertemplate="%{y}: %{x:.4f}<extra></extra>",
    )
    figure.add_scatter(
        x=[row.mean for row in shown],
        y=names,
        mode="markers",
        name="mean",
        marker={"color": _COLOURS[1], "size": 11, "symbol": "diamond"},
        hovertemplate="%{y}: mean %{x:.4f}<extra></extra>",
    )
    figure.update_xaxes(title="validation accuracy")
    return _json(figure, rows=len(shown))


def pair_figure(coverage: Coverage) -> str:
    """Draw how often each pair of families was drawn together; blank where never, as JSON."""
    go = _graph_objects()
    names = list(coverage.families)
    counts = {pair: count for pair, count in coverage.pairs.items() if count}
    cells = [[counts.get((min(a, b), max(a, b))) if a != b else None for a in names] for b in names]
    most = max(counts.values(), default=1)
    figure = go.Figure(
        go.Heatmap(
            x=names,
            y=names,
            z=cells,
            colorscale=_SHADES,
            zmin=0,
            zmax=most,
            xgap=1,
            ygap=1,
            hoverongaps=False,
            hovertemplate="%{x} with %{y}: %{z}<extra></extra>",
            colorbar={"title": {"text": "quartets"}, "thickness": 12, "dtick": _tick(most)},
        )
    )
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(tickangle=-60, showgrid=False)
    return _json(figure, rows=len(names), least=360)


def curves_figure(trials: Sequence[StoredTrial]) -> str:
    """Draw validation accuracy over the epochs: the best trials in colour, the others grey, as JSON."""
    go = _graph_objects()
    trained = sorted((t for t in trials if t.curve and t.trained), key=lambda t: -(t.validation_accuracy or 0.0))
    figure = go.Figure()
    for place, trial in reversed(list(enumerate(trained))):
        best = place < _SHOWN
        figure.add_scatter(
            x=[point.epoch for point in trial.curve],
            y=[point.validation_accuracy for point in trial.curve],
            mode="lines+markers",
            name=", ".join(trial.experts),
            showlegend=False,
            line={"color": _COLOURS[place % 6] if best else "#999999", "width": 2 if best else 1},
            opacity=0.9 if best else 0.35,
            hovertemplate=f"{', '.join(trial.experts)}<br>epoch %{{x}}: %{{y:.4f}}<extra></extra>",
        )
    figure.update_xaxes(title="epoch", dtick=_tick(max((len(t.curve) for t in trained), default=1)))
    figure.update_yaxes(title="validation accuracy")
    return _json(figure, least=380)


def gate_figure(trials: Sequence[StoredTrial]) -> str:
    """Draw how the gates of the best trials share their weight among the experts, as JSON."""
    go = _graph_objects()
    used = [trial for trial in trials if trial.trained and trial.curve and trial.curve[-1].usage]
    best = sorted(used, key=lambda trial: -(trial.validation_accuracy or 0.0))[:_SHOWN]
    labels = {trial.id: f"{rank}. {(trial.candidate_id or '')[5:11]}" for rank, trial in enumerate(best, start=1)}
    figure = go.Figure()
    names = sorted({name for trial in best for name in trial.experts})
    for name, colour in zip(names, cycle(_COLOURS), strict=False):
        held = [trial for trial in best if name in trial.experts and len(trial.curve[-1].usage) == len(trial.experts)]
        shares = [trial.curve[-1].usage[trial.experts.index(name)] for trial in held]
        figure.add_bar(
            x=shares,
            y=[labels[trial.id] for trial in held],
            orientation="h",
            name=name,
            marker={"color": colour, "line": {"width": 1, "color": "#ffffff"}},
            text=[name] * len(held),
            textposition="inside",
            insidetextanchor="middle",
            hovertemplate=f"{name}: %{{x:.1%}}<extra></extra>",
            showlegend=False,
        )
    figure.update_layout(barmode="stack")
    figure.update_yaxes(categoryorder="array", categoryarray=list(labels.values())[::-1])
    figure.update_xaxes(title="mean gate weight in the last epoch", tickformat=".0%", range=[0, 1])
    return _json(figure, rows=len(best))


def _graph_objects() -> Any:
    try:
        import plotly.graph_objects
    except ImportError as error:
        raise MissingExtraError("plotly", "report") from error
    return plotly.graph_objects


def _tick(largest: int) -> int:
    """Choose whole steps of an axis so that there are about eight."""
    return max(1, round(largest / 8))


def _json(figure: Any, *, rows: int = 0, least: int = 160) -> str:
    figure.update_layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        height=max(least, 90 + _ROW_PX * rows),
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
        hovermode="closest",
    )
    figure.update_xaxes(automargin=True, zeroline=False)
    figure.update_yaxes(automargin=True, zeroline=False)
    return str(figure.to_json())
