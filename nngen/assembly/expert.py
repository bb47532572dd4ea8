"""A family becomes an expert: its classes and functions under names that no other family has.

Nothing here depends on the mixture: a family is transformed once, kept, and a mixture is a render.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from nngen.assembly.imports import Import
from nngen.assembly.naming import class_prefix
from nngen.families.hyperparameters import best_hyperparameters
from nngen.files import cache_dir, write_atomically
from nngen.types import Family

__all__ = ["Expert", "kept_or_transformed", "transform", "transform_code"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expert:
    """A family's source, ready to stand beside any others in one file.

    Attributes:
        family: The family's name.
        fingerprint: SHA-256 of the family's source.
        network: The class that was ``Net``.
        imports: What the body needs imported, sorted.
        names: Every module-level name the body binds, sorted; all carry the family's prefix.
        body: The source, without imports; ends with a line break.
        hyperparameters: LEMUR's best for the family, defaults where it recorded none; sorted.
        digests: One per statement of the body, in hex, for the canonical hash.
        postponed: Whether the source asks for annotations that are not evaluated.
    """

    family: str
    fingerprint: str
    network: str
    imports: tuple[Import, ...]
    names: tuple[str, ...]
    body: str
    hyperparameters: tuple[tuple[str, float | int | str], ...]
    digests: tuple[str, ...]
    postponed: bool = False

    @property
    def bound(self) -> frozenset[str]:
        """Every name with the family's prefix that stands at the top of a file because of it."""
        return frozenset(self.names) | {item.bound for item in self.imports if not item.shared}


def transform(family: Family, prefix: str | None = None) -> Expert:
    """Turn a family into an expert.

    Left out is whatever ``Net`` does not reach: its training methods, the factories of pretrained
    weights with the private imports they need, unused imports and definitions.

    Args:
        family: Its source and LEMUR's best result.
        prefix: What its names start with, in CapWords; by default the family's name.

    Raises:
        AssemblyError: If the source does not parse, has no ``Net``, imports ``*`` or something a
            mixture does not bring, or needs names that only exist at run time. The message names
            family and line.
    """
    from nngen.assembly.transformation import make_expert  # libcst is slow to import, and seldom needed

    return make_expert(family, prefix or class_prefix(family.name))


def kept_or_transformed(family: Family, prefix: str | None = None) -> Expert:
    """Return what an earlier process made of a family, or transform it and keep that.

    Kept under the family's source and hyperparameters, and under the code that transforms.

    Raises:
        AssemblyError: As ``transform`` does.
    """
    file = _file(family, prefix)
    try:
        return _from_json(json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError, KeyError):
        pass
    expert = transform(family, prefix)
    # A cache that cannot be written only costs the time.
    with suppress(OSError):
        write_atomically(file, json.dumps(asdict(expert)).encode())
    return expert


def _from_json(data: Mapping[str, Any]) -> Expert:
    return Expert(
        **{
            **data,
            "imports": tuple(Import(**item) for item in data["imports"]),
            "names": tuple(data["names"]),
            "hyperparameters": tuple((name, value) for name, value in data["hyperparameters"]),
            "digests": tuple(data["digests"]),
        }
    )


def _file(family: Family, prefix: str | None) -> Path:
    hyperparameters = json.dumps(best_hyperparameters(family))
    key = repr((transform_code(), family.name, family.fingerprint, hyperparameters, prefix))
    return cache_dir() / "experts" / f"{hashlib.sha256(key.encode()).hexdigest()[:40]}.json"


@cache
def transform_code() -> str:
    """Fingerprint of this folder's code, and of the folders in it: what other code made is not read."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
