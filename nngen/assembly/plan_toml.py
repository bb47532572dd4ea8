"""Plans as TOML: in files of their own, in the docstring of assembled files, and the presets of ``templates/plans``."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from nngen.assembly.plan_validation import check_loss_names
from nngen.assembly.registries import KINDS
from nngen.errors import PlanError, UsageError
from nngen.files import package_folder, read_toml
from nngen.plan import Plan
from nngen.text import did_you_mean, listed, parse_python, parse_toml

_MARK = "Plan:"


def to_toml(plan: Plan) -> str:
    """Write a plan as TOML; equal plans give equal text (``1`` and ``1.0`` do too). No line break at the end."""
    # The experts come first; the rest is the same in every plan of a space, and written once.
    return f"experts = {_value(plan.experts)}\n{_without_experts(replace(plan, experts=()))}"


@lru_cache(maxsize=64)
def _without_experts(plan: Plan) -> str:
    data = plan.to_dict()
    del data["experts"]
    if not KINDS[plan.kind].gate:  # what its plans do not choose is left out
        del data["gate"], data["recipe"]["gate_rate"]
        data["losses"] = {"label_smoothing": data["losses"]["label_smoothing"]}
    lines = [f"{key} = {_value(value)}" for key, value in data.items() if not isinstance(value, Mapping)]
    for part, values in data.items():
        if isinstance(values, Mapping):
            # A number is written as the type of its field's default, so that equal plans are written alike.
            own = getattr(plan, part)
            defaults = {item.name: item.default for item in fields(own)} if is_dataclass(own) else {}
            items = {name: _like(value, defaults.get(name, 0.0)) for name, value in values.items()}
            lines += ["", f"[{part}]", *(f"{_key(name)} = {_value(value)}" for name, value in items.items())]
    return "\n".join(lines)


def _like(value: Any, default: object) -> Any:
    return float(value) if isinstance(default, float) and not isinstance(value, str) else value


def _key(name: str) -> str:
    """Write a key of TOML, in quotes where it needs them."""
    return name if name.replace("-", "").replace("_", "").isalnum() and name.isascii() else _value(name)


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            # JSON's escapes are TOML's; DEL alone is allowed in JSON and not in TOML.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case list() | tuple():
            return f"[{', '.join(map(_value, value))}]"
    raise PlanError(f"{value!r} cannot be written in a plan")


def from_toml(text: str) -> Plan:
    """Read what ``to_toml`` wrote; fields that are missing take their defaults.

    Raises:
        PlanError: If it is not TOML, or not a plan.
    """
    try:
        return _plan(parse_toml(text))
    except ValueError as error:
        raise PlanError(f"not a plan: {error}") from None


def _plan(table: Mapping[str, Any]) -> Plan:
    try:
        plan = Plan.from_dict(table)
    except UsageError as error:
        raise PlanError(str(error)) from None
    check_loss_names(plan)
    return plan


def read_plan(file: Path) -> Plan:
    """Read a plan's file; it may leave out the experts, where others name them.

    Raises:
        PlanError: If the file is missing or holds no plan; the message names the file.
    """
    try:
        table, known = read_toml(file), [item.name for item in fields(Plan)]
        for key in sorted(table.keys() - known):
            raise PlanError(f"unknown key {key}: {did_you_mean(key, known, otherwise=f'a plan has {listed(known)}')}")
        return _plan({"experts": ()} | table)
    except ValueError as error:
        raise PlanError(f"cannot read the plan {file}: {error}; nngen plans ls names the presets") from None
    except PlanError as error:
        raise PlanError(f"{file}: {error}") from None


def find_plan(name: str) -> Plan:
    """Read the plan of a file, or of a preset where no such file exists; see ``read_plan``."""
    return preset(name) if name in preset_names() and not Path(name).exists() else read_plan(Path(name))


def plan_of(source: str) -> Plan | None:
    """Read the plan back from an assembled file; None for a source that holds none.

    Raises:
        PlanError: If the docstring announces a plan that cannot be read.
    """
    try:
        text = ast.get_docstring(parse_python(source)) or ""
    except SyntaxError:
        return None
    _, mark, after = text.partition(f"\n{_MARK}\n")
    return from_toml("\n".join(line.strip() for line in after.splitlines())) if mark else None


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
    """Read a preset's plan; see ``preset_file``."""
    return read_plan(preset_file(name))


def preset_purpose(name: str) -> str:
    """Return the first line of a preset's file, which describes it; see ``preset_file``."""
    return preset_file(name).read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def _folder() -> Path:
    return package_folder("templates") / "plans"
