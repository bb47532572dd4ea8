"""Isolation level that a source may run at, decided by the SHA-256 of its bytes at the time of the decision.

A family of the pinned LEMUR wheel or of ``examples/families``, byte for byte, may run in a plain worker process; so may
a mixture made of such families only. Everything else runs in the sandbox, or with the user's rights where the user
asked for that. Names, archives, caches and files say nothing about trust.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from nngen.errors import UsageError
from nngen.isolation import Isolation
from nngen.types import Family

AUTO = "auto"
"""The value of ``--isolation`` that leaves the level to the source."""

LEVELS = (AUTO, *(level.value for level in Isolation))

_PINNED = Path(__file__).with_name("pinned_families.json")


@dataclass(frozen=True, slots=True)
class LevelChoice:
    """An isolation level with its reason, as a user reads it."""

    level: Isolation  # the level
    reason: str  # reason for the level, as a phrase for one line of text

    def __str__(self) -> str:
        return f"isolation {self.level}: {self.reason}"


def check_level(wanted: str) -> None:
    """Refuse a name that is neither a level nor ``auto``.

    Raises:
        UsageError: The message lists the levels.
    """
    if wanted not in LEVELS:
        raise UsageError(f"unknown isolation {wanted!r}: choose {', '.join(LEVELS)}")


def is_pinned(source: str) -> bool:
    """Return whether a source is a base family of the pinned wheel or an example shipped here, byte for byte."""
    return hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest() in _pinned_hashes()


def families_level(families: Iterable[Family], wanted: str = AUTO) -> LevelChoice:
    """Return the level for a family, or a mixture of some, by their sources as they are now; see ``source_level``.

    Raises:
        UsageError: If ``wanted`` is not a level.
    """
    check_level(wanted)
    if wanted != AUTO:
        return LevelChoice(Isolation(wanted), "as asked with --isolation")
    foreign = [family.name for family in families if not is_pinned(family.source)]
    if foreign:
        more = f" and {len(foreign) - 1} more are" if len(foreign) > 1 else " is"
        return LevelChoice(Isolation.SANDBOX, f"family {foreign[0]}{more} not from the pinned LEMUR wheel")
    return LevelChoice(Isolation.PROCESS, "every family is from the pinned LEMUR wheel")


def check_sandbox(choice: LevelChoice) -> None:
    """Refuse a choice of the sandbox where there is none.

    Raises:
        UsageError: If bubblewrap is not installed; the message says what to install and which flag takes the risk.
    """
    if choice.level is Isolation.SANDBOX and shutil.which("bwrap") is None:
        raise UsageError(
            f"{choice.reason}: it runs in a sandbox only, which needs bubblewrap: apt-get install bubblewrap,"
            " or take the risk with --isolation process"
        )


@cache
def _pinned_hashes() -> frozenset[str]:
    return frozenset(value for group in json.loads(_PINNED.read_bytes()).values() for value in group.values())
