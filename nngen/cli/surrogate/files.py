"""Files of a ranking: every mixture with all its scores as Parquet, and a web page with the ranked space."""

from __future__ import annotations

import io
import math
from collections import Counter
from pathlib import Path
from statistics import fmean

import numpy as np
from markupsafe import Markup

from nngen.analysis import figure_style, formatting
from nngen.errors import MissingExtraError, UsageError
from nngen.files import write_result
from nngen.jinja import environment, script_data
from nngen.space.pool import EXPERTS
from nngen.surrogate.ranking import Ranking

_TOP = 0.01  # share of the ranking that counts as its top, at least ``_LEAST`` mixtures

_LEAST = 20
_NORMAL = 1.96


def check_path(path: Path, flag: str, suffixes: tuple[str, ...]) -> None:
    """Refuse a file's name before anything is computed.

    Raises:
        UsageError: If its ending is none of the suffixes, or a folder has the name.
    """
    if path.suffix.lower() not in suffixes:
        raise UsageError(f"{flag} {path} must end in {suffixes[0]}")
    if path.is_dir():
        raise UsageError(f"{flag} {path} is a folder: name the file to write")


def write_parquet(found: Ranking, by: str, path: Path) -> None:
    """Write every mixture with all its scores, best first; a score that is not known is null.

    Raises:
        MissingExtraError: If pyarrow is not installed.
        NngenError: If the file cannot be written.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "parquet") from error
    order, names = found.order(by), found.experts.families
    members = found.mixtures[order].tolist()
    joint = [found.joint.get(tuple(row), ()) for row in members]
    columns = {
        "rank": np.arange(1, len(order) + 1),
        "experts": [[names[member] for member in row] for row in members],
        **{name: pyarrow.array(values[order], from_pandas=True) for name, values in found.scores.items()},
        **({} if found.deviation is None else {"deviation": found.deviation[order]}),
        "trained": pyarrow.array([fmean(seeds) if seeds else None for seeds in joint], pyarrow.float64()),
        "seeds": [len(seeds) for seeds in joint],
    }
    about = {"campaign": found.experts.campaign, "by": by, "belief": found.belief(by)}
    file = io.BytesIO()
    parquet.write_table(pyarrow.table(columns, metadata=about), file)
    write_result(path, file.getvalue())


def write_page(found: Ranking, by: str, path: Path, *, trained_s: float) -> None:
    """Write the ranked space as one web page that opens without a server or a network.

    Args:
        found: The ranking.
        by: Score that ranks.
        path: The file.
        trained_s: Seconds that one training of a family alone took, on average.

    Raises:
        NngenError: If the file cannot be written.
    """
    order, names = found.order(by), found.experts.families
    top = order[: max(_LEAST, math.ceil(_TOP * len(order)))]
    carried = Counter(names[member] for place in top for member in found.mixtures[place])
    free = [place for place in order.tolist() if tuple(found.mixtures[place].tolist()) not in found.joint]
    rank = {place: number for number, place in enumerate(order.tolist(), 1)}
    templates = environment(html=True)
    templates.filters |= {name: getattr(formatting, name) for name in formatting.__all__}
    page = templates.get_template("ranking.html.j2").render(
        found=found,
        by=by,
        top=len(top),
        best=[(rank[place], _names(found, place), found.scores[by][place]) for place in free[:_LEAST]],
        families_s=trained_s * len(names) * max(1, len(found.experts.logits)),
        every_s=trained_s * EXPERTS * found.space,
        figures={
            "space": script_data(_space_figure(found, by, rank)),
            "carried": script_data(_carried_figure(carried, len(top))),
        },
        plotly=Markup(figure_style.plotly_script()),  # noqa: S704 - plotly's own script
    )
    write_result(path, page.encode())


def _space_figure(found: Ranking, by: str, rank: dict[int, int]) -> str:
    """Draw the score of each mixture by its place, with the accuracies of those that were trained, as JSON."""
    go = figure_style.graph_objects()
    shown = figure_style.sampled(list(rank))
    values = found.scores[by]
    figure = go.Figure()
    if found.deviation is not None and by == found.default:
        reach = _NORMAL * found.deviation
        band = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "x": [rank[place] for place in shown]}
        figure.add_scatter(y=[values[place] - reach[place] for place in shown], showlegend=False, **band)
        figure.add_scatter(
            y=[values[place] + reach[place] for place in shown],
            fill="tonexty",
            fillcolor="rgba(68,119,170,0.18)",
            name="95 %",
            **band,
        )
    members = {place: tuple(found.mixtures[place].tolist()) for place in rank}
    truth = {place: fmean(found.joint[members[place]]) for place in rank if members[place] in found.joint}
    every = {place: float(values[place]) for place in shown}
    parts: list[tuple[str, dict[int, float], dict[str, object]]] = [
        ("every mixture", every, {"color": figure_style.COLOURS[0], "size": 4}),
        ("trained jointly", truth, {"color": figure_style.COLOURS[1], "size": 9, "symbol": "diamond"}),
    ]
    for name, heights, marker in parts:
        if not heights:
            continue
        figure.add_scatter(
            x=[rank[place] for place in heights],
            y=list(heights.values()),
            customdata=[figure_style.label(", ".join(_names(found, place))) for place in heights],
            mode="markers",
            marker=marker,
            name=name,
            hovertemplate="%{x}. %{customdata}: %{y:.4f}<extra></extra>",
        )
    figure.update_xaxes(title="place in the ranking")
    figure.update_yaxes(title=figure_style.label(by.replace("_", " ")))
    return figure_style.figure_json(figure, least=380)


def _carried_figure(carried: Counter[str], top: int) -> str:
    """Draw the share of the top mixtures that hold each family, as JSON."""
    rows = carried.most_common()
    figure = figure_style.graph_objects().Figure()
    figure.add_bar(
        x=[count / top for _, count in rows],
        y=[figure_style.label(name) for name, _ in rows],
        orientation="h",
        marker={"color": figure_style.COLOURS[0]},
        hovertemplate="%{y}: %{x:.0%}<extra></extra>",
    )
    figure.update_xaxes(title="share of the top mixtures", tickformat=".0%", range=[0, 1])
    figure.update_yaxes(autorange="reversed", dtick=1)
    return figure_style.figure_json(figure, rows=len(rows))


def _names(found: Ranking, place: int) -> list[str]:
    return [found.experts.families[member] for member in found.mixtures[place]]
