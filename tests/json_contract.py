"""The contract of --json: what each command prints has the keys and types of docs/schemas.json.

Every command that a test runs with --json through the fixture ``nngen`` is checked. Keys may be added; a key that
disappears or changes its type fails. ``WRITE_SCHEMAS=1 python -m pytest tests`` adds what is new to the file.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from nngen.cli import app

FILE = Path(__file__).parent.parent / "docs" / "schemas.json"
VARIANTS = ("--dry-run", "--folds", "--family", "--presets", "--early", "--images", "--from")
"""Options with which a command prints something else."""

_LINES = ("campaign events",)
"""Commands that print one value per line."""

_KINDS = {bool: "boolean", int: "number", float: "number", str: "string", dict: "object", list: "array"}
_FIELD = re.compile(r"[a-z][a-z0-9_]*")
_MAPS = ("outcomes", "prm", "hyperparameters", "environment", "tasks", "answers", "pool", "left_out", "detail", "rates")
"""Keys of objects whose own keys are data, although they look like names of fields."""

_WRITE = "WRITE_SCHEMAS" in os.environ


@cache
def schemas() -> dict[str, Any]:
    """Return the schema of each command, by its name."""
    return json.loads(FILE.read_text(encoding="utf-8"))["$defs"] if FILE.exists() else {}


def name_of(tokens: Sequence[str]) -> str:
    """Return the name of the command that was called, with the option that changes what it prints."""
    words = tokens[: 2 if tokens[1] in app[tokens[0]] else 1]
    return " ".join([*words, *(option for option in VARIANTS if option in tokens)])


def check(name: str, printed: str) -> None:
    """Check what a command printed, or add it to the file where that is asked for."""
    value = [json.loads(line) for line in printed.splitlines()] if name in _LINES else json.loads(printed)
    if _WRITE:
        known = schemas()
        known[name] = merged(known[name], schema_of(value)) if name in known else schema_of(value)
        whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": dict(sorted(known.items()))}
        # Lists of words in one line each.
        text = re.sub(r"\[[^\[\]{}]*\]", lambda found: " ".join(found[0].split()), json.dumps(whole, indent=1))
        FILE.write_text(f"{text}\n", encoding="utf-8")
    if name not in schemas():
        return  # tests/cli/test_json.py names the commands that have none
    errors = [f"{error.json_path}: {error.message:.200}" for error in validator(name).iter_errors(value)]
    assert not errors, f"nngen {name} --json: {errors[:3]}"


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(schemas()[name])


def schema_of(value: Any, *, is_map: bool = False) -> dict[str, Any]:
    """Describe a value: objects whose keys cannot be names of fields (families, ids, classes) are maps.

    Every value may be null, since a sample does not show which of them are; of null alone nothing is known.
    """
    if value is None:
        return {}
    found: dict[str, Any] = {"type": [_KINDS[type(value)], "null"]}
    if isinstance(value, list) and value:
        found["items"] = _any_of([schema_of(item) for item in value])
    elif isinstance(value, dict) and value and (is_map or not all(map(_FIELD.fullmatch, value))):
        found["additionalProperties"] = _any_of([schema_of(item) for item in value.values()])
    elif isinstance(value, dict) and value:
        found["properties"] = {key: schema_of(item, is_map=key in _MAPS) for key, item in value.items()}
        found["required"] = sorted(value)
    return found


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Describe the values of two schemas; a key is required where both require it."""
    if not old or not new:
        return old or new
    found: dict[str, Any] = {"type": [*sorted({*old["type"], *new["type"]} - {"null"}), "null"]}
    objects = [one for one in (old, new) if "object" in one["type"]]
    records = [one.get("properties", {}) for one in objects]
    maps = [one["additionalProperties"] for one in objects if "additionalProperties" in one]
    if maps:  # another sample of it may have had keys that look like names of fields
        found["additionalProperties"] = _any_of([*maps, *(part for record in records for part in record.values())])
    elif any(records):
        keys = dict.fromkeys(key for record in records for key in record)
        found["properties"] = {key: _any_of([record[key] for record in records if key in record]) for key in keys}
        found["required"] = sorted(set.intersection(*(set(one.get("required", ())) for one in objects)))
    if "items" in old or "items" in new:
        found["items"] = merged(old.get("items", {}), new.get("items", {}))
    return found


def _any_of(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in parts:
        found = merged(found, part)
    return found
