"""Plans that ship with nngen, one TOML file each under ``templates/plans``."""

from __future__ import annotations

from pathlib import Path

from nngen.assembly.plan_toml import read_plan
from nngen.errors import PlanError
from nngen.files import package_folder
from nngen.plan import Plan
from nngen.text import did_you_mean

__all__ = ["preset", "preset_file", "preset_names", "preset_purpose"]


def preset_names() -> tuple[str, ...]:
    """Return the presets' names, sorted."""
    return tuple(sorted(file.stem for file in _folder().glob("*.toml")))


def preset_file(name: str) -> Path:
    """Return the path of a preset's file.

    Raises:
        PlanError: If no preset has that name; the message names the nearest.
    """
    if name not in preset_names():
        hint = did_you_mean(name, preset_names())
        raise PlanError(f"no preset is called {name!r}: {hint}{hint and ' '}there are {', '.join(preset_names())}")
    return _folder() / f"{name}.toml"


def preset(name: str) -> Plan:
    """Read a preset's plan.

    Raises:
        PlanError: If no preset has that name.
    """
    return read_plan(preset_file(name))


def preset_purpose(name: str) -> str:
    """Return the first line of a preset's file, which describes it.

    Raises:
        PlanError: If no preset has that name.
    """
    return preset_file(name).read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def _folder() -> Path:
    return package_folder("templates") / "plans"
