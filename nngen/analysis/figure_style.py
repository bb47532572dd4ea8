"""Style of the figures of pages, and how plotly's figures get there as JSON.

Colours of text and background are left to the page, which sets them (light or dark) when it draws.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any, TypeVar

from nngen.text import one_line

COLOURS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#999999")
"""Paul Tol's "bright" colour scheme, which is safe for colour-blind readers."""

PALETTE = (*COLOURS[:6], "#332288", "#117733", "#999933", "#882255", "#44AA99", "#DDCC77")
"""The scheme's colours but grey, then some of his scheme "muted", for figures of many lines or families."""

POINTS = 2000
"""Most candidates that a figure draws; more take a page megabytes and a browser seconds, and hide each other."""

_ROW_PX = 24
Item = TypeVar("Item")


def sampled(items: Sequence[Item], most: int = POINTS) -> Sequence[Item]:
    """Return at most so many items, in their order and evenly spaced, the first and the last among them."""
    last = len(items) - 1
    return items if last < most else [items[place * last // (most - 1)] for place in range(most)]


def plotly_script() -> str:
    """Return plotly's JavaScript."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def label(text: str, limit: int = 200) -> str:
    """Make a foreign name safe for plotly, which reads some HTML in its texts."""
    return html.escape(one_line(text, limit), quote=False)


def graph_objects() -> Any:
    """Return ``plotly.graph_objects``."""
    # Takes half a second to import.
    import plotly.graph_objects

    return plotly.graph_objects


def whole_step(largest: int) -> int:
    """Return a whole step that divides an axis into about eight."""
    return max(1, round(largest / 8))


def figure_json(figure: Any, *, rows: int = 0, least: int = 160) -> str:
    """Write a plotly figure for a page as JSON, with room for so many rows of text, and a least height in pixels."""
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
