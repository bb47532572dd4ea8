"""Trust follows the bytes of a source: pinned families run in a process, all others in the sandbox."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from nngen.errors import UsageError
from nngen.families import trust
from nngen.families.catalogue import make_family, user_families
from nngen.families.trust import families_level, is_pinned
from nngen.isolation import Isolation
from nngen.types import Family

EXAMPLES = Path(__file__).parents[2] / "examples" / "families"


def test_pinned_hashes_are_those_of_the_wheel_and_the_examples(families: dict[str, Family]) -> None:
    stored = json.loads(Path(trust.__file__).with_name("pinned_families.json").read_text())
    assert stored["lemur"] == {name: hashlib.sha256(f.source.encode()).hexdigest() for name, f in families.items()}
    examples = user_families([str(EXAMPLES)])
    assert stored["examples"] == {name: hashlib.sha256(f.source.encode()).hexdigest() for name, f in examples.items()}


def test_mixture_of_pinned_families_runs_in_a_process(families: dict[str, Family]) -> None:
    choice = families_level(families.values())
    assert choice.level is Isolation.PROCESS


def test_one_changed_byte_asks_for_the_sandbox_and_names_the_family(families: dict[str, Family]) -> None:
    # The stored fingerprint still claims the original source.
    forged = replace(families["ICNet"], source=families["ICNet"].source + "\n")
    choice = families_level([families["AirNet"], forged])
    assert choice.level is Isolation.SANDBOX
    assert "ICNet is not from the pinned LEMUR wheel" in choice.reason


def test_source_with_lone_surrogates_is_foreign() -> None:
    assert not is_pinned("x = '\ud800'")


def test_level_asked_for_is_taken_and_said() -> None:
    choice = families_level([make_family("Mine", "class Net: ...")], "process")
    assert str(choice) == "isolation process: as asked with --isolation"
    with pytest.raises(UsageError, match="choose auto, process, sandbox, none"):
        families_level([], "prison")
