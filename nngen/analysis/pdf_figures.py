"""Figures of the report as PDF for papers: the same numbers, drawn by matplotlib in print sizes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from nngen.analysis.effects import PairKind
from nngen.analysis.figure_style import COLOURS, PALETTE, sampled
from nngen.analysis.figures import MARKS, best_curves, gate_colours, gate_shares, pair_reach, pair_table, sign_of
from nngen.analysis.report import Report
from nngen.errors import MissingExtraError
from nngen.files import write_result
from nngen.text import one_line

_WIDTH = 6.3  # text width of a one-column A4 page, in inches

_STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e6ea",
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    # TrueType instead of Type 3: publishers' checks require it.
    "pdf.fonttype": 42,
    # A name of a family may hold a dollar sign.
    "text.parse_math": False,
}
_PALE = frozenset({"#CCBB44", "#66CCEE", "#DDCC77", "#44AA99", "#999933"})
_ROW, _CELL = 0.17, 0.165
_LABEL = 30  # characters of the longest name beside an axis; longer ones would leave no room for the figure


def write_figures(report: Report, folder: Path) -> tuple[Path, ...]:
    """Write a report's figures into a folder, one PDF each; figures without data are left out.

    Equal reports give equal bytes. Returns the files in the order of the report.

    Raises:
        MissingExtraError: If matplotlib is not installed.
        NngenError: If the folder cannot be written.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "report") from error
    written = []
    for name, draw in _DRAWINGS.items():
        if name not in report.drawn:
            continue
        path, content = folder / f"{name}.pdf", BytesIO()
        with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
            # A name in letters that the font has not is drawn with boxes.
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            figure = Figure(layout="constrained")
            draw(report, figure)
            # Without a creation date the bytes depend on the report alone.
            figure.savefig(content, format="pdf", metadata={"CreationDate": None, "Title": report.campaign.name})
        write_result(path, content.getvalue(), "the figure")
        written.append(path)
    return tuple(written)


def _ranking(report: Report, figure: Any) -> None:
    axes, rows = _axes(figure, 2.4), sampled(report.ranked)
    halves = [row.validation_half or 0.0 for row in rows]
    ranks, means = [row.rank for row in rows], [row.validation_accuracy for row in rows]
    axes.errorbar(ranks, means, yerr=halves if any(halves) else None, fmt=".", color=COLOURS[0], elinewidth=0.6)
    axes.set(xlabel="rank", ylabel="validation accuracy")


def _funnel(report: Report, figure: Any) -> None:
    names = {"drawn": "sampled", "done": "finished", "checked": "passed the check"}
    stages = [(names.get(name, name), count) for name, count in report.funnel.stages()]
    axes = _axes(figure, 1.5)
    bars = axes.barh([name for name, _ in stages], [count for _, count in stages], color=COLOURS[0], height=0.65)
    axes.bar_label(bars, labels=[f"{count:,}" for _, count in stages], padding=3)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set(xlabel="trials")


def _coverage(report: Report, figure: Any) -> None:
    names, counts = list(report.coverage.families), report.coverage.pairs
    cells = [[counts[min(a, b), max(a, b)] or None if a != b else None for a in names] for b in names]
    _matrix(figure, names, cells, label="quartets", cmap="Blues", vmin=0, vmax=max(counts.values()))


def _effects(report: Report, figure: Any) -> None:
    shown = [row for row in report.effects.families if row.point is not None]
    axes = _axes(figure, 0.6 + _ROW * len(shown))
    for place, row in enumerate(shown):
        colour = {1: COLOURS[0], -1: COLOURS[1], 0: COLOURS[6]}[sign_of(row)]
        if row.interval:
            axes.plot([100 * row.interval.low, 100 * row.interval.high], [place, place], color=colour, linewidth=1.3)
        filled = colour if row.interval else "white"
        axes.plot([100 * (row.point or 0.0)], [place], "o", markersize=3.5, color=colour, markerfacecolor=filled)
    axes.axvline(0, color="#666666", linewidth=0.6)
    axes.set_yticks(range(len(shown)), [one_line(row.family, _LABEL) for row in shown])
    axes.invert_yaxis()
    axes.set(xlabel=f"effect, points of accuracy ({report.effects.confidence:.0%} intervals)")


def _pairs(report: Report, figure: Any) -> None:
    from matplotlib.patches import Rectangle

    names, cells = pair_table(report.effects)
    reach = pair_reach(report.effects)
    values = [[100 * cell.interval.effect if cell else None for cell in line] for line in cells]
    axes = _matrix(figure, names, values, label="points", cmap="RdBu", vmin=-reach, vmax=reach)
    for y, line in enumerate(cells):
        for x, cell in enumerate(line):
            if cell and cell.kind is PairKind.UNCLEAR:
                axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, color="#999999", alpha=0.6, linewidth=0))
            if cell and MARKS[cell.kind]:
                axes.text(x, y, MARKS[cell.kind], ha="center", va="center")


def _curves(report: Report, figure: Any) -> None:
    best, others = best_curves(report.trials)
    axes = _axes(figure, 2.8)
    for trial in others:
        _curve(axes, trial, color="#bbbbbb", linewidth=0.4)
    for place, trial in reversed(list(enumerate(best))):
        _curve(axes, trial, color=PALETTE[place % len(PALETTE)], linewidth=1.1)
        last = trial.curve[-1]
        axes.annotate(str(place + 1), (last.epoch, last.validation_accuracy), (3, -2), textcoords="offset points")
    axes.set(xlabel="epoch", ylabel="validation accuracy")
    axes.xaxis.get_major_locator().set_params(integer=True)


def _gates(report: Report, figure: Any) -> None:
    shares = gate_shares(report.trials)
    colours = gate_colours([share for _, share in shares])
    axes = _axes(figure, 0.6 + 0.24 * len(shares))
    for place, (_, share) in enumerate(shares):
        left = 0.0
        for name, weight in share.items():
            axes.barh(place, weight, left=left, color=colours[name], edgecolor="white", linewidth=0.8, height=0.75)
            # A name that does not fit into its part is left out: about 100 letters fit into the whole width.
            shown = one_line(name, _LABEL)
            if weight * 100 > len(shown):
                ink = "black" if colours[name] in _PALE else "white"
                axes.text(left + weight / 2, place, shown, ha="center", va="center", fontsize=6, color=ink)
            left += weight
    axes.set_yticks(range(len(shares)), [f"{rank}." for rank in range(1, len(shares) + 1)])
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.set(xlabel="mean gate weight in the last epoch", ylabel="rank", xlim=(0, 1))


def _axes(figure: Any, height: float) -> Any:
    figure.set_size_inches(_WIDTH, height)
    return figure.subplots()


def _curve(axes: Any, trial: Any, **style: Any) -> None:
    points = trial.curve
    axes.plot([point.epoch for point in points], [point.validation_accuracy for point in points], **style)


def _matrix(
    figure: Any, names: Sequence[str], cells: Sequence[Sequence[float | None]], label: str, **style: Any
) -> Any:
    import numpy as np
    from matplotlib.ticker import MaxNLocator

    side = max(2.4, 1.2 + _CELL * len(names))
    figure.set_size_inches(min(_WIDTH + 0.8, side + 0.8), min(_WIDTH, side))
    axes = figure.subplots()
    values = np.array([[np.nan if cell is None else cell for cell in line] for line in cells], dtype=float)
    image = axes.imshow(values, aspect="equal", **style)
    names = [one_line(name, _LABEL) for name in names]
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.grid(visible=False)
    axes.tick_params(length=0, labelsize=6.5)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, label=label)
    bar.locator = MaxNLocator(6, integer=label == "quartets")
    return axes


_DRAWINGS: Mapping[str, Callable[[Report, Any], None]] = {
    "ranking": _ranking,
    "funnel": _funnel,
    "coverage": _coverage,
    "effects": _effects,
    "pairs": _pairs,
    "curves": _curves,
    "gates": _gates,
}
