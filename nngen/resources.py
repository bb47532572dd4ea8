"""Finds the folders that live at the top of the repository and ship inside the wheel."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from nngen.errors import NngenError

__all__ = ["folder"]


def folder(name: str) -> Path:
    """Return the folder ``templates`` or ``prompts``, from the wheel or from a checkout.

    Raises:
        NngenError: If neither holds it.
    """
    package = Path(str(files("nngen")))
    for place in (package / name, package.parent / name):
        if place.is_dir():
            return place
    raise NngenError(f"the folder {name}/ is missing beside the package: reinstall nngen-moe")
