"""The Jinja environment of ``templates/``, strict about names that a template uses and is not given."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from nngen.files import package_folder

__all__ = ["environment", "render_template"]


@cache
def environment(*, html: bool = False) -> Environment:
    """Return the environment; values are escaped where templates write HTML, and not in Python or Markdown."""
    return Environment(
        loader=FileSystemLoader(package_folder("templates")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=html,  # noqa: S701 - the others are not HTML
    )


def render_template(name: str, **values: object) -> str:
    """Render a template that writes Python or Markdown; no line break at the end."""
    return environment().get_template(name).render(values)
