"""Answers of the probe without a worker: what is read, stored, reported and refused."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from probe_cases import ANSWER, COST, FAMILY, MESSAGE, PROBE, SHAPE, ended

from nngen.errors import UsageError
from nngen.families import probe, shipped
from nngen.families.profile import Answer, Profile, TrainingCost, check_shape
from nngen.isolation import ExitReason, Isolation
from nngen.types import Adapter, Interface, Record, Shape


def profile(reason: str = "", **interface: Any) -> Profile:
    return Profile(name="Toy", fingerprint="0", interface=Interface(**interface) if interface else None, reason=reason)


@pytest.mark.parametrize(
    ("one", "usable", "adapter", "why"),
    [
        (profile(low=1), True, Adapter(), ""),
        (profile(low=12, high=16), True, Adapter(), ""),
        (profile(low=1, high=14), True, Adapter(size=(12, 14)), "takes images of 1 to 14 px"),
        (profile(low=20), True, Adapter(size=(20, 20)), "takes images of 20 px and more"),
        (profile(low=1, square=True), True, Adapter(size=(16, 16)), "takes square images of 1 px and more"),
        (profile(low=1, complex=True), True, Adapter(complex=True), "takes complex images of 1 px and more"),
        (
            profile(low=1, high=14, square=True, complex=True),
            True,
            Adapter(size=(14, 14), complex=True),
            "takes square complex images of 1 to 14 px",
        ),
        (profile("it is slow", low=1), False, None, "it is slow"),
        (profile("it is broken"), False, None, "it is broken"),
        (profile(), False, None, ""),
    ],
)
def test_a_profile_tells_whether_and_how_a_family_is_used(
    one: Profile, usable: bool, adapter: Adapter | None, why: str
) -> None:
    assert (one.usable, one.adapter(SHAPE), one.why(SHAPE)) == (usable, adapter, why)
    assert one.native(SHAPE) is (adapter == Adapter())


def test_the_largest_shapes_are_accepted_and_one_pixel_more_is_not() -> None:
    for shape in (Shape(16, 1024, 1024), Shape(1, 1, 1024), Shape(1, 1024, 1), Shape(2**24, 1, 1)):
        check_shape(shape)
    for shape in (Shape(1, 1, 1025), Shape(1, 1025, 1)):
        with pytest.raises(UsageError, match=f"^no family takes {shape}: sides go up to 1024 px$"):
            check_shape(shape)
    for shape in (Shape(2**24 + 1, 1, 1), Shape(17, 1024, 1024)):
        with pytest.raises(UsageError, match=f"^no family takes {shape}: an image may hold up to 16,777,216 numbers$"):
            check_shape(shape)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, {}),
        ({"interface": None}, {"interface": None}),
        ({"interface": {"low": 1}}, {"interface": Interface(low=1)}),
        ({"interface": {"low": 1024, "high": 1024}}, {"interface": Interface(low=1024, high=1024)}),
        (
            {"interface": {"low": 5, "high": 5, "square": True, "hyperparameters": ["a", "b.c-d_1"]}},
            {"interface": Interface(low=5, high=5, square=True, hyperparameters=("a", "b.c-d_1"))},
        ),
        (
            {"interface": {"low": 1, "hyperparameters": ["a" * 100], "channels_last": False, "own_settings": True}},
            {"interface": Interface(low=1, hyperparameters=("a" * 100,), channels_last=False, own_settings=True)},
        ),
        ({"interface": {"low": 1, "hyperparameters": []}}, {"interface": Interface(low=1, hyperparameters=())}),
        ({"parameters": None}, {"parameters": None}),
        ({"parameters": 0}, {"parameters": 0}),
        ({"parameters": 2**53 - 1}, {"parameters": 2**53 - 1}),
        ({"cost": COST}, {"cost": TrainingCost(**COST)}),
        ({"cost": COST | {"image_s": 999999999.5}}, {"cost": TrainingCost(**COST | {"image_s": 999999999.5})}),
        ({"reason": "two\nlines"}, {"reason": "two lines"}),
        ({"notes": ["draws", "unknown", "seeds"]}, {"notes": ("seeds", "draws")}),
    ],
)
def test_a_message_within_the_ranges_is_read(changed: dict[str, Any], expected: dict[str, Any]) -> None:
    assert Answer.read(MESSAGE | changed) == replace(ANSWER, **expected)
    assert PROBE.answer([{}, MESSAGE | changed], ended()) == replace(ANSWER, **expected)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"interface": {"low": 0}}, "sides or names out of range"),
        ({"interface": {"low": 1025}}, "sides or names out of range"),
        ({"interface": {"low": 1.0}}, "sides or names out of range"),
        ({"interface": {"low": 5, "high": 4}}, "sides or names out of range"),
        ({"interface": {"low": 5, "high": 1025}}, "sides or names out of range"),
        ({"interface": {"low": 5, "complex": 0}}, "sides or names out of range"),
        ({"interface": {"low": 5, "hyperparameters": ["a" * 101]}}, "sides or names out of range"),
        ({"interface": {"low": 5, "hyperparameters": [""]}}, "sides or names out of range"),
        ({"interface": {"low": 5, "hyperparameters": [3]}}, "sides or names out of range"),
        ({"parameters": 2**53}, "a number of parameters out of range"),
        ({"parameters": -1}, "a number of parameters out of range"),
        ({"parameters": True}, "a number of parameters out of range"),
        ({"cost": COST | {"step_s": 1e9}}, "a cost out of range"),
        ({"cost": COST | {"step_s": -1e-9}}, "a cost out of range"),
        ({"cost": COST | {"step_s": True}}, "a cost out of range"),
        ({"cost": COST | {"step_s": float("nan")}}, "a cost out of range"),
    ],
)
def test_a_message_beyond_a_range_is_refused_with_what_is(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        Answer.read(MESSAGE | changed)
    expected = Answer(reason=f"the worker sent no measurement: {message}", lasting=False)
    assert PROBE.answer([MESSAGE | changed], ended()) == expected


def test_an_end_without_a_measurement_is_a_reason_that_does_not_last() -> None:
    memory = "needs more than 6,144 MiB at 1x12x16: choose a smaller shape"
    time = "took longer than 120 s at 1x12x16: choose a smaller shape"
    ends = (
        (ExitReason.MEMORY, [MESSAGE], memory),
        (ExitReason.TIME, [MESSAGE], time),
        (ExitReason.EXIT, [MESSAGE | {"memory": True}], memory),
        (ExitReason.EXIT, [], "the worker left with exit code 3 before it had finished"),
    )
    for reason, messages, expected in ends:
        assert PROBE.answer(messages, ended(reason, 3 << 8)) == Answer(reason=expected, lasting=False)
    assert PROBE.answer([MESSAGE | {"memory": False}], ended(status=3 << 8)) == ANSWER


def test_a_job_carries_what_the_worker_needs(cache: Path) -> None:
    best = Record(
        model="Toy", dataset="cifar-10", epoch=1, accuracy=0.5, duration_s=1.0, hyperparameters={"lr": 0.5, "batch": 0}
    )
    family = replace(FAMILY, best=best)
    job = replace(PROBE, family=family, classes=7).job()
    assert job.arguments == {
        "recorded": {"lr": 0.5},
        "classes": 7,
        "shape": "1x12x16",
        "interface": None,
        "cost": False,
    }
    assert (job.entry_point, job.source) == ("nngen.families.measure:measure", FAMILY.source)
    assert (job.limits.time_limit_s, job.limits.memory_mib) == (120.0, 6144)
    assert (job.isolation, replace(PROBE, wanted="none").job().isolation) == (Isolation.SANDBOX, Isolation.NONE)
    behind = replace(PROBE, cost_behind=Interface(low=9)).job().arguments
    assert (behind["cost"], behind["interface"]) == (True, asdict(Interface(low=9)))
    PROBE.store(ANSWER)
    assert PROBE.job().arguments["interface"] == asdict(Interface(low=2, high=64))


def stored_files(cache: Path, folder: str = "probes") -> int:
    return len(list((cache / folder).glob("*.json")))


def test_an_answer_is_found_where_all_is_as_it_was(cache: Path) -> None:
    answer = replace(ANSWER, reason="why not", notes=("seeds", "draws"))
    assert PROBE.stored() is None
    assert PROBE.store(answer) == answer
    assert stored_files(cache) == 2
    assert PROBE.stored() == answer
    tuned = replace(FAMILY, asked={"lr": 0.5})
    others = (
        replace(PROBE, shape=Shape(1, 12, 17)),
        replace(PROBE, classes=9),
        replace(PROBE, family=replace(FAMILY, fingerprint="1")),
        replace(PROBE, family=tuned),
        replace(PROBE, cost_behind=Interface(low=2)),
    )
    assert [other.stored() for other in others] == [None] * 5
    # The interface is known for other sides, not for other channels.
    assert others[0].job().arguments["interface"] == asdict(answer.interface)
    assert replace(PROBE, shape=Shape(3, 12, 16)).job().arguments["interface"] is None
    (cache / "probes").joinpath(PROBE._file().name).write_text('{"interface": 3}')
    assert PROBE.stored() is None
    (cache / "probes").joinpath(PROBE._interface_file().name).write_text('{"low": -1}')
    assert PROBE._known_interface() is None


def test_an_answer_without_an_interface_keeps_the_one_that_is_known(cache: Path) -> None:
    failed = Answer(reason="took long", lasting=False)
    assert PROBE.store(failed) == failed
    assert stored_files(cache) == 0
    other = replace(PROBE, shape=Shape(1, 40, 40))
    other.store(ANSWER)
    assert PROBE.store(failed) == replace(failed, interface=ANSWER.interface)
    assert stored_files(cache) == 2  # of the other shape
    refused = Answer(reason="never")
    assert PROBE.store(refused) == PROBE.stored() == replace(refused, interface=ANSWER.interface)
    kept = json.loads(PROBE._file().read_text())
    assert kept == {"interface": asdict(ANSWER.interface), "reason": "never", "parameters": None, "notes": []}


def test_costs_are_stored_apart(cache: Path) -> None:
    measured = replace(PROBE, cost_behind=Interface(low=2))
    nothing = Answer(reason="took long", lasting=False)
    assert measured.store(nothing) is nothing
    assert measured.stored() is None and not (cache / "weights").exists()
    cost = Answer(interface=Interface(low=2), cost=TrainingCost(**COST))
    assert measured.store(cost) is cost
    assert measured.stored() == Answer(cost=TrainingCost(**COST))
    assert (stored_files(cache, "weights"), (cache / "probes").exists()) == (1, False)
    assert json.loads(measured._file().read_text()) == COST
    assert replace(measured, classes=9).stored() is None and PROBE.stored() is None
    measured._file().write_text('{"weights_mib": 3}')
    assert measured.stored() is None


def test_a_shipped_profile_is_used_for_a_whole_probe_and_not_for_a_cost(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def found(*arguments: object) -> dict[str, object]:
        asked.append(arguments)
        return {"interface": {"low": 3}, "parameters": 5, "reason": "", "notes": ["input"]}

    monkeypatch.setattr(shipped, "profile", found)
    assert PROBE.stored() == Answer(interface=Interface(low=3), parameters=5, notes=("input",))
    key = (probe.versions(), FAMILY.fingerprint, {"lr": 0.01, "momentum": 0.9})
    assert asked == [(*key, 10, SHAPE)]
    assert replace(PROBE, cost_behind=Interface(low=3)).stored() is None
    assert len(asked) == 1
    monkeypatch.setattr(shipped, "same_channels", lambda *arguments: {"low": 4} if arguments == (*key, 1) else None)
    assert PROBE._known_interface() == Interface(low=4)


def test_versions_leave_the_patch_release_of_torch_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "version", lambda name: {"torch": "2.14.3+cpu"}[name])
    assert probe.versions() == (7, "2.14")
