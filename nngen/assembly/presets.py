"""Plans that ship with nngen, one TOML file each under ``templates/plans``."""

from __future__ import annotations

from pathlib import Path

from nngen.assembly.plan_toml import from_toml
from nngen.errors import PlanError
from nngen.files import package_folder as folder
from nngen.plan import Plan
from nngen.text import did_you_mean

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
        hint = did_you_mean(name, preset_names())
        raise PlanError(f"no preset is called {name!r}: {hint}{hint and ' '}there are {', '.join(preset_names())}")
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
