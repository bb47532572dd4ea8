"""Plans that ship with nngen, one TOML file each under ``templates/plans``."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from nngen.assembly.plan_toml import from_toml
from nngen.errors import PlanError
from nngen.resources import folder
from nngen.types import Plan

__all__ = ["preset", "preset_file", "preset_names", "preset_purpose"]


def preset_names() -> tuple[str, ...]:
    """List the presets by name, sorted."""
    return tuple(sorted(file.stem for file in _folder().glob("*.toml")))


def preset_file(name: str) -> Path:
    """Return where a preset's file is.

    Raises:
        PlanError: If none has that name; the message names the nearest.
    """
    if name not in preset_names():
        near = get_close_matches(name, preset_names(), n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise PlanError(f"no preset is called {name!r}: {hint}there are {', '.join(preset_names())}")
    return _folder() / f"{name}.toml"


def preset(name: str) -> Plan:
    """Read a preset's plan.

    Raises:
        PlanError: If none has that name.
    """
    return from_toml(preset_file(name).read_text(encoding="utf-8"))


def preset_purpose(name: str) -> str:
    """Return the first line of a preset's file, which says what it is.

    Raises:
        PlanError: If none has that name.
    """
    return preset_file(name).read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def _folder() -> Path:
    return folder("templates") / "plans"
