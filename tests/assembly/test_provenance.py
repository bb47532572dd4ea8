"""Isolation level of a source: the bytes decide, and nothing that the source or an archive says."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from nngen.assembly import provenance
from nngen.assembly.assemble import assemble
from nngen.assembly.provenance import source_level, stated_plan
from nngen.errors import PlanError, UsageError
from nngen.families.catalogue import make_family
from nngen.families.probe import profiles
from nngen.families.profile import Profile
from nngen.isolation import Isolation
from nngen.plan import Plan
from nngen.types import Candidate, Family, Interface, Shape

FOUR = ("ShuffleNet", "MobileNetV3", "SqueezeNet-1", "ICNet")


@pytest.fixture(scope="module")
def mixture(families: dict[str, Family]) -> Candidate:
    return mix(families)


def mix(families: dict[str, Family]) -> Candidate:
    measured = profiles([families[name] for name in FOUR], Shape(3, 32, 32))
    experts = [(families[name], interface) for name in FOUR if (interface := measured[name].interface)]
    return assemble(Plan(experts=FOUR), experts)


def test_what_is_assembled_from_pinned_families_runs_in_a_process(mixture: Candidate) -> None:
    choice = source_level(mixture.source)
    assert str(choice) == "isolation process: assembled by nngen from families of the pinned LEMUR wheel"


def test_families_are_transformed_once_for_all_sources(mixture: Candidate, monkeypatch: pytest.MonkeyPatch) -> None:
    source_level(mixture.source)

    def again(*_: object) -> None:
        raise AssertionError("a family is transformed again")

    monkeypatch.setattr("nngen.assembly.assemble.family_function", again)
    assert source_level(mixture.source).level is Isolation.PROCESS


def test_kind_with_experts_of_its_own_needs_no_family() -> None:
    made = assemble(Plan(experts=("Dense", "Dense"), kind="homogeneous", repeats=True), [])
    assert source_level(made.source).level is Isolation.PROCESS


@pytest.mark.parametrize(
    ("old", "new"),
    [("CLIP = 1.0", "CLIP = 2.0"), ("return Net\n", "return  Net\n"), ("Plan:", "Plan :"), ("\n", "\n\n")],
    ids=["a constant", "a space", "no plan", "a line"],
)
def test_one_changed_byte_asks_for_the_sandbox(mixture: Candidate, old: str, new: str) -> None:
    changed = mixture.source.replace(old, new, 1)
    assert changed != mixture.source
    assert source_level(changed).level is Isolation.SANDBOX


def test_foreign_family_under_a_known_name_asks_for_the_sandbox(families: dict[str, Family]) -> None:
    evil = make_family("ICNet", families["ICNet"].source + "\nTAKEN = open\n", families["ICNet"].best)
    made = mix({**families, "ICNet": evil})
    assert source_level(made.source).reason == "not what its plan assembles to here (edited, or of an older template)"


def test_families_that_are_not_pinned_are_named(mixture: Candidate) -> None:
    choice = source_level(mixture.source.replace('"ICNet"', '"Mine"'))
    assert choice.reason == "family Mine is not from the pinned LEMUR wheel"


@pytest.mark.parametrize(
    "plan",
    [
        "experts = " + "[" * 20_000 + "]" * 20_000,
        "experts = [1, 2]",
        'experts = [["a"], ["b"]]',
        'experts = ["A", "B"]\nkind = []',
        'experts = ["A", "B"]\ngate = 3',
        'experts = ["A", "B"]\nlosses = "x"',
        'experts = ["A", "B"]\n[gate]\nnetwork = ["a"]',
        'experts = ["A", "B"]\n[gate]\nwidth = ' + "9" * 5_000,
        'experts = ["A", "B"]\n[gate]\nwidth = ' + "9" * 400,
        'experts = ["A", "B"]\n[gate]\nwidth = nan',
    ],
)
def test_plan_of_any_shape_in_a_docstring_is_only_a_reason(plan: str) -> None:
    begin = time.monotonic()
    choice = source_level(f'"""A mixture.\n\nPlan:\n{plan}\n"""\n')
    assert choice.level is Isolation.SANDBOX
    assert time.monotonic() - begin < 20


@pytest.mark.parametrize("source", ["", "x = 1\n", '"""No plan."""\n', '"""' + "x" * 100_000, "\0", "'\ud800'"])
def test_what_has_no_plan_is_not_assembled_by_nngen(source: str) -> None:
    assert str(source_level(source)) == "isolation sandbox: not assembled by nngen"


def test_level_asked_for_needs_no_look_at_the_source() -> None:
    assert source_level("x = 1", "process").level is Isolation.PROCESS
    with pytest.raises(UsageError, match="choose auto, process, sandbox, none"):
        source_level("x = 1", "jail")


def test_stored_level_and_plan_do_not_count(mixture: Candidate) -> None:
    # A candidate that claims a plan which its text does not hold.
    forged = replace(mixture, source="import os\n")
    assert source_level(forged.source).level is Isolation.SANDBOX


PLAN = '"""A mixture.\n\nPlan:\nexperts = ["A", "B"]\n'


@pytest.mark.parametrize(
    ("source", "plan"),
    [
        (f'{PLAN}"""\n', Plan(experts=("A", "B"))),
        (f'{PLAN}"""', Plan(experts=("A", "B"))),
        (f'{PLAN}"""\nthis is not Python and has """ quotes', Plan(experts=("A", "B"))),
        (PLAN, None),
        (f'r{PLAN}"""\n', None),
        (f'\n{PLAN}"""\n', None),
        ('""""""', None),
        ('"""', None),
    ],
)
def test_a_plan_is_read_from_a_docstring_at_the_very_begin(source: str, plan: Plan | None) -> None:
    assert stated_plan(source) == plan


@pytest.mark.parametrize(("length", "read"), [(65_536, True), (65_537, False)])
def test_a_docstring_is_read_up_to_64_kib(length: int, read: bool) -> None:
    source = f"{PLAN}#".ljust(length - 3, "x") + '"""'
    assert stated_plan(source + "\n") == (Plan(experts=("A", "B")) if read else None)


def test_what_a_docstring_says_and_is_no_plan_is_an_error() -> None:
    source = PLAN.replace("experts", "expert") + '"""\n'
    with pytest.raises(PlanError, match="not a plan"):
        stated_plan(source)
    assert source_level(source).reason.startswith("its plan cannot be assembled here (not a plan: ")


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        ('experts = ["A"]', "a mixture takes 2 to 64 experts, not 1: A"),
        (
            'experts = ["A", "B"]\nkind = "other"',
            "no kind of mixture is called 'other': there are hetero, homogeneous, single",
        ),
    ],
)
def test_a_plan_that_cannot_be_assembled_is_the_reason(plan: str, reason: str) -> None:
    choice = source_level(f'"""A mixture.\n\nPlan:\n{plan}\n"""\n')
    assert (choice.level, choice.reason) == (Isolation.SANDBOX, f"its plan cannot be assembled here ({reason})")


def test_families_are_looked_up_once_each_at_the_shape_that_is_measured_already(
    monkeypatch: pytest.MonkeyPatch, families: dict[str, Family]
) -> None:
    asked = []

    def unmeasured(given: list[Family], shape: Shape) -> dict[str, Profile]:
        asked.append(([family.name for family in given], shape))
        return {
            family.name: Profile(
                name=family.name,
                fingerprint=family.fingerprint,
                interface=None if family.name == "ICNet" else Interface(low=1),
            )
            for family in given
        }

    monkeypatch.setattr(provenance, "profiles", unmeasured)
    names = '["ShuffleNet", "ICNet", "ShuffleNet"]\nrepeats = true'
    choice = source_level(f'"""A mixture.\n\nPlan:\nexperts = {names}\n"""\n')
    assert (choice.level, choice.reason) == (Isolation.SANDBOX, "family ICNet cannot be measured here")
    assert asked == [(["ShuffleNet", "ICNet"], Shape(3, 32, 32))]
