"""Figures of the report as plotly JSON, and the page of ``nngen coverage --out``.

Matrices shade from transparent, so that they look the same on white and on black.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nngen.analysis.effects import Effects, FamilyEffect, PairEffect, PairKind
from nngen.analysis.figure_style import (
    COLOURS,
    PALETTE,
    POINTS,
    figure_json,
    graph_objects,
    label,
    sampled,
    whole_step,
)
from nngen.analysis.ranking.rows import Row
from nngen.analysis.results import FamilyRow
from nngen.archive.records import StoredTrial
from nngen.errors import UsageError
from nngen.files import write_result
from nngen.space import Coverage

SHOWN = 12
"""Number of best trials that are drawn individually."""

_BETTER, _WORSE, _UNCLEAR = COLOURS[0], COLOURS[1], COLOURS[6]
_SHADES = [[0.0, "rgba(68,119,170,0.18)"], [1.0, "rgba(68,119,170,1)"]]
_TWO_SIDED = [[0.0, "rgba(238,102,119,1)"], [0.5, "rgba(128,128,128,0.10)"], [1.0, "rgba(68,119,170,1)"]]
_VEIL = "rgba(150,150,150,0.6)"
MARKS = {PairKind.SYNERGY: "+", PairKind.ANTAGONISM: "\N{MINUS SIGN}", PairKind.UNCLEAR: ""}
_SIGNIFICANT = 0.05
_CELL_PX = 19


def ranking_figure(rows: Sequence[Row]) -> str:
    """Draw every candidate's accuracy by rank, with its interval where seeds give one, as JSON."""
    figure, rows = graph_objects().Figure(), sampled(rows)
    # An accuracy lies in [0, 1], and so does its interval.
    rooms = [(row.validation_half, row.validation_accuracy or 0.0) for row in rows]
    above = [half and min(half, 1 - accuracy) for half, accuracy in rooms]
    below = [half and min(half, accuracy) for half, accuracy in rooms]
    figure.add_scatter(
        x=[row.rank for row in rows],
        y=[row.validation_accuracy for row in rows],
        error_y={"type": "data", "array": above, "arrayminus": below, "thickness": 1, "width": 0}
        if any(half for half, _ in rooms)
        else None,
        customdata=[label(", ".join(row.experts)) for row in rows],
        mode="markers",
        marker={"color": _BETTER, "size": 7, "opacity": 0.8},
        hovertemplate="%{x}. %{customdata}: %{y:.4f}<extra></extra>",
        showlegend=False,
    )
    figure.update_xaxes(title="rank", dtick=whole_step(rows[-1].rank))
    figure.update_yaxes(title="validation accuracy")
    return figure_json(figure, least=280)


def effects_figure(effects: Effects) -> str:
    """Draw each family's effect with its interval, best on top, as JSON."""
    shown = [row for row in reversed(effects.families) if row.point is not None]
    figure = graph_objects().Figure()
    for sign, colour, name in ((1, _BETTER, "better"), (-1, _WORSE, "worse"), (0, _UNCLEAR, "unclear")):
        rows = [row for row in shown if sign_of(row) == sign]
        points = [100 * (row.point or 0.0) for row in rows]
        # Without an interval both ends are the point itself: no bar is drawn.
        lows = [100 * row.interval.low if row.interval else point for row, point in zip(rows, points, strict=True)]
        highs = [100 * row.interval.high if row.interval else point for row, point in zip(rows, points, strict=True)]
        figure.add_scatter(
            x=points,
            y=[label(row.family) for row in rows],
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [high - point for high, point in zip(highs, points, strict=True)],
                "arrayminus": [point - low for low, point in zip(lows, points, strict=True)],
                "thickness": 2,
                "width": 0,
            },
            customdata=[_hover_text(row) for row in rows],
            mode="markers",
            name=name,
            marker={
                "color": colour,
                "size": 9,
                "symbol": ["circle" if row.interval else "circle-open" for row in rows],
            },
            hovertemplate="%{customdata}<extra></extra>",
        )
    figure.add_vline(x=0, line={"color": _UNCLEAR, "width": 1})
    figure.update_xaxes(title="effect, points of accuracy")
    figure.update_yaxes(categoryorder="array", categoryarray=[label(row.family) for row in shown])
    return figure_json(figure, rows=len(shown))


def sign_of(row: FamilyEffect) -> int:
    """Return 1 or -1 for a family significantly better or worse than the average one, else 0."""
    if row.interval is None or row.interval.p_adjusted >= _SIGNIFICANT:
        return 0
    return 1 if row.interval.effect > 0 else -1


def family_figure(rows: Sequence[FamilyRow]) -> str:
    """Draw each family's accuracies as dots with their mean, best family on top, as JSON."""
    shown = [row for row in reversed(rows) if row.trained]
    names = [label(f"{row.name} ({row.trained})") for row in shown]
    dots = [sampled(row.accuracies, max(2, POINTS // len(shown))) for row in shown]
    figure = graph_objects().Figure()
    figure.add_scatter(
        x=[accuracy for line in dots for accuracy in line],
        y=[name for name, line in zip(names, dots, strict=True) for _ in line],
        mode="markers",
        name="one quartet",
        marker={"color": COLOURS[0], "size": 7, "opacity": 0.45},
        hovertemplate="%{y}: %{x:.4f}<extra></extra>",
    )
    figure.add_scatter(
        x=[row.mean for row in shown],
        y=names,
        mode="markers",
        name="mean",
        marker={"color": COLOURS[1], "size": 10, "symbol": "diamond"},
        hovertemplate="%{y}: mean %{x:.4f}<extra></extra>",
    )
    figure.update_xaxes(title="validation accuracy")
    return figure_json(figure, rows=len(shown))


def coverage_figure(coverage: Coverage) -> str:
    """Draw how often each pair of families was drawn together, blank for never, as JSON."""
    names = list(coverage.families)
    counts = {pair: count for pair, count in coverage.pairs.items() if count}
    most = max(counts.values(), default=1)
    return _matrix(
        names,
        [[counts.get((min(a, b), max(a, b))) if a != b else None for a in names] for b in names],
        colorscale=_SHADES,
        zmin=0,
        zmax=most,
        hovertemplate="%{x} with %{y}: %{z}<extra></extra>",
        colorbar={"title": {"text": "quartets"}, "thickness": 10, "dtick": whole_step(most), "len": 0.6},
    )


def write_coverage_page(coverage: Coverage, path: Path) -> None:
    """Write the figure of the pairs as one HTML page that opens without a server or a network.

    Raises:
        UsageError: If the file's name does not end in ``.html``.
        NngenError: If the file cannot be written.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--out {path} must end in .html: the picture is a web page")
    import plotly.io

    figure = plotly.io.from_json(coverage_figure(coverage))
    figure.update_layout(title={"text": label(coverage.verdict, 1000), "font": {"size": 14}}, margin={"t": 60})
    write_result(path, str(plotly.io.to_html(figure, include_plotlyjs=True, full_html=True)).encode())


def pair_figure(effects: Effects) -> str:
    """Draw the pair effects, families best first, those that are not clear in grey, as JSON."""
    names, cells = pair_table(effects)
    reach = pair_reach(effects)
    return _matrix(
        names,
        [[100 * cell.interval.effect if cell else None for cell in line] for line in cells],
        grey=[[1 if cell and cell.kind is PairKind.UNCLEAR else None for cell in line] for line in cells],
        text=[[MARKS[cell.kind] if cell else "" for cell in line] for line in cells],
        texttemplate="%{text}",
        customdata=[
            [
                f"{100 * c.interval.low:+.2f} to {100 * c.interval.high:+.2f}, {c.quartets} quartets" if c else ""
                for c in line
            ]
            for line in cells
        ],
        colorscale=_TWO_SIDED,
        zmin=-reach,
        zmax=reach,
        hovertemplate="%{x} with %{y}: %{z:+.2f} points (%{customdata})<extra></extra>",
        colorbar={"title": {"text": "points"}, "thickness": 10, "len": 0.6},
    )


def pair_reach(effects: Effects) -> float:
    """Return the end of the scale of pair effects, in points: no effect inside its interval has a strong colour."""
    spans = (pair.interval for pair in effects.pairs)
    return 100 * max((max(abs(span.effect), (span.high - span.low) / 2) for span in spans), default=0.0) or 1.0


def pair_table(effects: Effects) -> tuple[list[str], list[list[PairEffect | None]]]:
    """Return the families that have pair effects, best first, and the effect of each two of them, line by line."""
    known = {pair.families: pair for pair in effects.pairs}
    names = [row.family for row in effects.families if any(row.family in pair for pair in known)]
    return names, [[known.get((min(a, b), max(a, b))) if a != b else None for a in names] for b in names]


def curves_figure(trials: Sequence[StoredTrial]) -> str:
    """Draw validation accuracy over the epochs: the best trials in colour, the others grey, as JSON."""
    best, others = best_curves(trials)
    figure = graph_objects().Figure()
    # One trace with gaps: drawing a thousand traces would take the page seconds.
    figure.add_scatter(
        x=[value for trial in others for value in (*(point.epoch for point in trial.curve), None)],
        y=[value for trial in others for value in (*(point.validation_accuracy for point in trial.curve), None)],
        mode="lines",
        line={"color": _UNCLEAR, "width": 1},
        opacity=0.35,
        hoverinfo="skip",
        showlegend=False,
    )
    for place, trial in reversed(list(enumerate(best))):
        figure.add_scatter(
            x=[point.epoch for point in trial.curve],
            y=[point.validation_accuracy for point in trial.curve],
            mode="lines+markers+text",
            showlegend=False,
            line={"color": PALETTE[place % len(PALETTE)], "width": 2},
            marker={"size": 5},
            text=[*[""] * (len(trial.curve) - 1), str(place + 1)],
            textposition="middle right",
            hovertext=label(", ".join(trial.experts)),
            hovertemplate=f"{place + 1}. %{{hovertext}}<br>epoch %{{x}}: %{{y:.4f}}<extra></extra>",
        )
    figure.update_xaxes(title="epoch", dtick=whole_step(max((len(t.curve) for t in best), default=1)))
    figure.update_yaxes(title="validation accuracy")
    return figure_json(figure, least=360)


def drawn_curves(trials: Sequence[StoredTrial]) -> Sequence[StoredTrial]:
    """Return the trained trials whose curves are drawn: the best, and an even sample of the others."""
    trained = sorted((trial for trial in trials if trial.trained), key=lambda t: -(t.validation_accuracy or 0.0))
    return [*trained[:SHOWN], *sampled(trained[SHOWN:])]


def best_curves(trials: Sequence[StoredTrial]) -> tuple[Sequence[StoredTrial], Sequence[StoredTrial]]:
    """Split the trained trials into the best ``SHOWN``, best first, and the others, or an even sample of them."""
    trained = sorted((t for t in trials if t.curve and t.trained), key=lambda t: -(t.validation_accuracy or 0.0))
    return trained[:SHOWN], sampled(trained[SHOWN:])


def gate_figure(trials: Sequence[StoredTrial]) -> str:
    """Draw the mean gate weights of the experts in the best trials, as JSON."""
    shares = gate_shares(trials)
    labels = [f"{rank}. {(trial.candidate_id or '')[5:11]}" for rank, (trial, _) in enumerate(shares, start=1)]
    figure = graph_objects().Figure()
    for name, colour in gate_colours([share for _, share in shares]).items():
        parts = [(label, share[name]) for label, (_, share) in zip(labels, shares, strict=True) if name in share]
        figure.add_bar(
            x=[share for _, share in parts],
            y=[label for label, _ in parts],
            orientation="h",
            name=label(name),
            marker={"color": colour, "line": {"width": 1, "color": "#ffffff"}},
            text=[label(name)] * len(parts),
            textposition="inside",
            insidetextanchor="middle",
            textangle=0,
            hovertemplate="%{text}: %{x:.1%}<extra></extra>",
            showlegend=False,
        )
    figure.update_layout(barmode="stack", bargap=0.25, uniformtext={"minsize": 9, "mode": "hide"})
    figure.update_yaxes(categoryorder="array", categoryarray=labels[::-1])
    figure.update_xaxes(title="mean gate weight in the last epoch", tickformat=".0%", dtick=0.25, range=[0, 1])
    return figure_json(figure, rows=len(shares))


def gate_colours(bars: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """Give each expert a colour, in the order of their names, such that no two of one bar have the same."""
    found: dict[str, str] = {}
    for name in sorted({name for bar in bars for name in bar}):
        beside = {found.get(other) for bar in bars if name in bar for other in bar}
        used = Counter(found.values())
        free = [colour for colour in PALETTE if colour not in beside] or list(PALETTE)
        found[name] = min(free, key=lambda colour: (used[colour], PALETTE.index(colour)))
    return found


def gate_shares(trials: Sequence[StoredTrial]) -> list[tuple[StoredTrial, dict[str, float]]]:
    """Return the last gate weights of the best trials, by expert; trials without recorded weights are left out."""
    used = [t for t in trials if t.trained and t.curve and len(t.curve[-1].usage) == len(t.experts)]
    best = sorted(used, key=lambda trial: -(trial.validation_accuracy or 0.0))[:SHOWN]
    shares = []
    for trial in best:
        # Experts of one family are numbered.
        names = [
            name if trial.experts.count(name) == 1 else f"{name} {trial.experts[: place + 1].count(name)}"
            for place, name in enumerate(trial.experts)
        ]
        shares.append((trial, dict(zip(names, trial.curve[-1].usage, strict=True))))
    return shares


def _hover_text(row: FamilyEffect) -> str:
    span = row.interval and f" ({100 * row.interval.low:+.2f} to {100 * row.interval.high:+.2f})"
    partners = f", always with {', '.join(row.together_with)}" if row.together_with else ""
    return label(f"{row.family}: {100 * (row.point or 0.0):+.2f} points{span or ', no interval'}{partners}", 400)


def _matrix(names: Sequence[str], cells: Any, grey: Any = None, **more: Any) -> str:
    go = graph_objects()
    axis = [label(name) for name in names]
    figure = go.Figure(go.Heatmap(x=axis, y=axis, z=cells, xgap=1, ygap=1, hoverongaps=False, **more))
    if grey is not None:
        veil = {"colorscale": [[0.0, _VEIL], [1.0, _VEIL]], "showscale": False, "hoverinfo": "skip"}
        figure.add_heatmap(x=axis, y=axis, z=grey, xgap=1, ygap=1, **veil)
    figure.update_yaxes(autorange="reversed", showgrid=False, dtick=1)
    figure.update_xaxes(tickangle=-60, showgrid=False, dtick=1)
    return figure_json(figure, least=max(320, 140 + _CELL_PX * len(names)))
