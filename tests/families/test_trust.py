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
from nngen.families.trust import LEVELS, LevelChoice, check_level, check_sandbox, families_level, is_pinned
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


def test_reason_names_the_first_foreign_family_and_counts_the_others() -> None:
    pinned = user_families([str(EXAMPLES)]).values()
    foreign = [make_family(name, f"# {name}\n") for name in ("Mine", "Yours", "Theirs")]
    for families, level, reason in (
        (pinned, Isolation.PROCESS, "every family is from the pinned LEMUR wheel"),
        ([], Isolation.PROCESS, "every family is from the pinned LEMUR wheel"),
        ([*pinned, foreign[0]], Isolation.SANDBOX, "family Mine is not from the pinned LEMUR wheel"),
        (foreign[:2], Isolation.SANDBOX, "family Mine and 1 more are not from the pinned LEMUR wheel"),
        (foreign, Isolation.SANDBOX, "family Mine and 2 more are not from the pinned LEMUR wheel"),
    ):
        assert families_level(families) == LevelChoice(level, reason)
    assert families_level(pinned, "sandbox") == LevelChoice(Isolation.SANDBOX, "as asked with --isolation")


def test_names_of_levels() -> None:
    assert LEVELS == ("auto", "process", "sandbox", "none")
    for level in LEVELS:
        check_level(level)
    with pytest.raises(UsageError, match=r"^unknown isolation 'prison': choose auto, process, sandbox, none$"):
        check_level("prison")


def test_a_sandbox_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    there: dict[str, str] = {}
    monkeypatch.setattr(trust.shutil, "which", there.get)
    for level in (Isolation.PROCESS, Isolation.NONE):
        check_sandbox(LevelChoice(level, "why"))
    with pytest.raises(UsageError) as refused:
        check_sandbox(LevelChoice(Isolation.SANDBOX, "why"))
    assert str(refused.value) == (
        "why: it runs in a sandbox only, which needs bubblewrap: apt-get install bubblewrap, or take the risk with"
        " --isolation process"
    )
    there["bwrap"] = "/usr/bin/bwrap"
    check_sandbox(LevelChoice(Isolation.SANDBOX, "why"))


def test_level_asked_for_is_taken_and_said() -> None:
    choice = families_level([make_family("Mine", "class Net: ...")], "process")
    assert str(choice) == "isolation process: as asked with --isolation"
    with pytest.raises(UsageError, match="choose auto, process, sandbox, none"):
        families_level([], "prison")
