"""The Jinja environment of ``templates/``, strict about names that a template uses and is not given."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from markupsafe import Markup

from nngen.files import package_folder
from nngen.text import clean

if TYPE_CHECKING:
    from jinja2 import Environment

_LONGEST = 4000


@cache
def environment(*, html: bool = False) -> Environment:
    """Return the environment; values are cleaned and escaped where templates write HTML, not in Python or Markdown."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(package_folder("templates")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=html,  # noqa: S701 - the others are not HTML
        finalize=_shown if html else None,
    )


def _shown(value: object) -> object:
    # Markup is a template's own, or JSON that was made for the page.
    return clean(value, _LONGEST, lines=True) if isinstance(value, str) and not isinstance(value, Markup) else value


def script_data(text: str) -> Markup:
    """Escape JSON for a script element of a page."""
    return Markup(text.replace("<", "\\u003c"))  # noqa: S704 - escaped here


def render_template(name: str, **values: object) -> str:
    """Render a template that writes Python or Markdown; no line break at the end."""
    return environment().get_template(name).render(values)
