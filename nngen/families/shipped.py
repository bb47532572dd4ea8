"""Profiles of LEMUR's base families at common shapes, which ship with the package so that no user waits for them.

A profile is found by the hash of the family's source and by the hyperparameters that it was built with, and holds for
one version of the measurement and one minor version of torch; whatever else is asked for is measured.
``eval/families_cold.py`` writes the file, and measures a sample of it anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from nngen.isolation.job import JsonObject
from nngen.types import Shape

FILE = Path(__file__).with_name("shipped_profiles.json")

SHAPES = ("3x32x32", "1x32x32", "1x28x28", "3x64x64", "3x224x224")
"""Shapes at which the families were measured, the default of ``nngen families`` first."""


def profile(
    version: tuple[int, str], fingerprint: str, prm: Mapping[str, Any], classes: int, shape: Shape
) -> JsonObject | None:
    """Return the shipped profile of a family, as the worker sent it; None where none is shipped.

    ``version`` is that of the measurement and of torch (``2.14``), ``fingerprint`` the SHA-256 of the family's source.
    """
    found: JsonObject | None = _shapes(version, fingerprint, prm).get(str(shape))
    return found if classes == _table()["classes"] else None


def same_channels(
    version: tuple[int, str], fingerprint: str, prm: Mapping[str, Any], channels: int
) -> JsonObject | None:
    """Return the shipped interface of a family for images of so many channels; None where none is shipped."""
    shapes = _shapes(version, fingerprint, prm)
    there = (value["interface"] for name, value in shapes.items() if Shape.parse(name).channels == channels)
    return next(filter(None, there), None)


def _shapes(version: tuple[int, str], fingerprint: str, prm: Mapping[str, Any]) -> JsonObject:
    table = _table()
    family = table["families"].get(fingerprint, {"prm": None})
    fits = (table["version"], table["torch"]) == version and family["prm"] == dict(prm)
    shapes: JsonObject = family["shapes"] if fits else {}
    return shapes


@cache
def _table() -> JsonObject:
    table: JsonObject = json.loads(FILE.read_bytes())
    return table
