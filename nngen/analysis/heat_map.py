"""How often each pair of families was drawn together, as a picture: text anywhere, HTML with plotly."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path

from nngen.analysis.figures import coverage_figure
from nngen.errors import MissingExtraError, NngenError
from nngen.space import Coverage

__all__ = ["heat_map_html", "heat_map_text", "write_heat_map"]

_SHADES = " .:-=+*#%@"


def heat_map_text(audit: Coverage) -> str:
    """Draw the pairs as a triangle of characters: blank for never, then darker with the count."""
    names = list(audit.families)
    most = max(audit.pairs.values(), default=0)
    wide = max(len(name) for name in names)
    number = len(str(len(names)))
    lines = []
    for row, name in enumerate(names):
        cells = "".join(f"{_shade(audit.pairs[names[column], name], most)} " for column in range(row))
        lines.append(f"{row + 1:>{number}} {name:<{wide}} |{cells}\\")
    feet = [
        f"{'':{number}} {'':<{wide}}  " + " ".join(str(place + 1).rjust(number)[digit] for place in range(len(names)))
        for digit in range(number)
    ]
    steps = [_least(step, most) for step in range(1, len(_SHADES))]
    scale = ", ".join(f"'{mark}' from {least}" for mark, least in _first_marks(steps))
    legend = f"quartets per pair: blank for none{', ' + scale if scale else ''}"
    return "\n".join([*lines, *feet, legend])


def heat_map_html(audit: Coverage) -> str:
    """Draw the pairs as one HTML page that opens with no server and no network.

    Raises:
        MissingExtraError: If plotly is not installed.
    """
    try:
        import plotly.io
    except ImportError as error:
        raise MissingExtraError("plotly", "report") from error
    figure = plotly.io.from_json(coverage_figure(audit))
    figure.update_layout(title={"text": audit.verdict, "font": {"size": 14}}, margin={"t": 60})
    return str(plotly.io.to_html(figure, include_plotlyjs=True, full_html=True))


def write_heat_map(audit: Coverage, path: Path) -> None:
    """Write the picture, all or nothing: HTML where the name ends in ``.html``, text otherwise.

    Raises:
        MissingExtraError: If HTML is wanted and plotly is not installed.
        NngenError: If the file cannot be written.
    """
    text = heat_map_html(audit) if path.suffix.lower() in (".html", ".htm") else heat_map_text(audit) + "\n"
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise NngenError(f"cannot write {path}: {error.strerror}") from error


def _shade(count: int, most: int) -> str:
    return _SHADES[math.ceil(count * (len(_SHADES) - 1) / max(most, 1))]


def _least(step: int, most: int) -> int:
    """Smallest count that gets a shade of at least ``step``."""
    return next((count for count in range(1, most + 1) if _SHADES.index(_shade(count, most)) >= step), most + 1)


def _first_marks(steps: list[int]) -> list[tuple[str, int]]:
    """The shades that occur, with the count they begin at."""
    top = max(steps)
    begins = [*steps[1:], top + 1]
    return [
        (_SHADES[place + 1], least)
        for place, (least, after) in enumerate(zip(steps, begins, strict=True))
        if least < after
    ]
