"""A plan as TOML, and back: in a file of its own, or in the docstring of what was assembled from it."""

from __future__ import annotations

import ast
import json
import tomllib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from nngen.errors import PlanError, UsageError
from nngen.plan import Plan

__all__ = ["from_toml", "plan_of", "read_plan", "to_toml"]

_MARK = "Plan:"


def to_toml(plan: Plan) -> str:
    """Write a plan as TOML; equal plans give equal text (``1`` and ``1.0`` do too). No line break at the end."""
    # The experts come first, and what follows them is the same in every plan of a space.
    first = f"experts = {_value(plan.experts)}"
    return f"{first}\n{_without_experts(replace(plan, experts=()))}"


@lru_cache(maxsize=64)
def _without_experts(plan: Plan) -> str:
    data = _normal(plan)
    del data["experts"]
    return "\n".join(_table(data))


def from_toml(text: str) -> Plan:
    """Read what ``to_toml`` wrote; what is missing takes its default.

    Raises:
        PlanError: If it is not TOML, or not a plan.
    """
    try:
        return Plan.from_dict(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise PlanError(f"not a plan: {error}") from None
    except PlanError:
        raise
    except UsageError as error:
        raise PlanError(str(error)) from None


def read_plan(file: Path) -> Plan:
    """Read a plan's file.

    Raises:
        PlanError: If there is none, or it holds no plan; the message names the file.
    """
    try:
        return from_toml(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise PlanError(f"cannot read the plan {file}: {reason}; nngen plans ls names the presets") from None
    except PlanError as error:
        raise PlanError(f"{file}: {error}") from None


def plan_of(source: str) -> Plan | None:
    """Read the plan back from an assembled file; None for a source that holds none.

    Raises:
        PlanError: If the docstring announces a plan that cannot be read.
    """
    try:
        text = ast.get_docstring(ast.parse(source)) or ""
    except SyntaxError:
        return None
    _, mark, after = text.partition(f"\n{_MARK}\n")
    return from_toml("\n".join(line.strip() for line in after.splitlines())) if mark else None


def _normal(plan: Plan) -> dict[str, Any]:
    """Give every number the type of its field, so that equal plans are written alike."""
    data = plan.to_dict()
    for part in fields(plan):
        inner = getattr(plan, part.name)
        if is_dataclass(inner) and not isinstance(inner, type):
            data[part.name] = {name: _like(inner, name) for name in data[part.name]}
    return data


def _like(part: Any, name: str) -> Any:
    """Read a field as the type of its default: every field of a plan's parts has one."""
    default = next(item.default for item in fields(part) if item.name == name)
    value = getattr(part, name)
    return float(value) if isinstance(default, float) else value


def _table(data: Mapping[str, Any], path: str = "") -> list[str]:
    lines = [f"[{path}]"] if path else []
    lines += [f"{key} = {_value(value)}" for key, value in data.items() if not isinstance(value, Mapping)]
    for key, value in data.items():
        if isinstance(value, Mapping):
            lines += ["", *_table(value, f"{path}.{key}" if path else key)]
    return lines


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            # JSON's escapes are TOML's; only DEL is allowed in the one and not in the other.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case list() | tuple():
            return f"[{', '.join(map(_value, value))}]"
    raise PlanError(f"{value!r} cannot be written in a plan")
