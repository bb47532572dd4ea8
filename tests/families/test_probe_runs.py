"""Probe of several families: what is looked up, what is measured by the runner of jobs, and what is reported."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from probe_cases import ANSWER, COST, FAMILY, MESSAGE, PROBE, SHAPE, ended

from nngen.errors import UsageError
from nngen.families import probe
from nngen.families.catalogue import make_family
from nngen.families.probe import profiles, usable_families
from nngen.families.profile import Answer, Profile, TrainingCost
from nngen.isolation import ExitReason
from nngen.types import Family, Interface, Shape


def known(cache: Path) -> tuple[Family, ...]:
    """Store the answers of three families, so that none is measured."""
    families = tuple(make_family(name, f"# {name}\n") for name in ("Zeta", "Alpha", "Mu"))
    answers = (
        replace(ANSWER, notes=("seeds", "draws")),
        replace(ANSWER, reason="it is slow"),
        replace(ANSWER, parameters=None, notes=("draws",)),
    )
    for one, answer in zip(families, answers, strict=True):
        replace(PROBE, family=one).store(answer)
    return families


def test_profiles_of_known_families_are_looked_up(cache: Path) -> None:
    families = known(cache)
    reports: list[tuple[int, int]] = []
    found = profiles(families, SHAPE, progress=lambda *report: reports.append(report), jobs=1)
    assert list(found) == ["Zeta", "Alpha", "Mu"] and reports == []
    zeta = families[0]
    assert found["Zeta"] == Profile(
        name="Zeta",
        fingerprint=zeta.fingerprint,
        interface=ANSWER.interface,
        parameters={"1x12x16": 20},
        notes=("seeds", "draws"),
    )
    assert (found["Alpha"].reason, found["Mu"].parameters) == ("it is slow", {})
    with pytest.raises(UsageError, match=r"^-1 families cannot be measured at a time: give 1 or more jobs$"):
        profiles(families, SHAPE, jobs=-1)
    with pytest.raises(UsageError, match="sides go up to"):
        profiles(families, Shape(1, 1025, 1))


def test_usable_families_are_told_from_the_others(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    zeta, alpha, mu = known(cache)
    with caplog.at_level(logging.WARNING):
        usable, refused = usable_families([zeta, alpha, mu], SHAPE)
    assert usable == {"Zeta": (zeta, ANSWER.interface), "Mu": (mu, ANSWER.interface)}
    assert refused == {"Alpha": "it is slow"}
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["Zeta: it seeds the generators itself, which nngen seeds again afterwards"]


def test_known_costs_are_looked_up(cache: Path) -> None:
    inputs = Interface(low=2)
    cost = TrainingCost(**COST)
    replace(PROBE, cost_behind=inputs).store(Answer(cost=cost))
    assert probe.training_costs([(FAMILY, inputs)], SHAPE) == {"Toy": cost}


class Runner:
    """Stands in for the runner of jobs: answers each with what the test put there."""

    answers: ClassVar[dict[str, Any]] = {}
    seen: ClassVar[list[Any]] = []

    def __init__(self, *, preload: tuple[str, ...]) -> None:
        self.seen.append(preload)

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self.seen.append("closed")

    def collect(self, job: Any) -> Any:
        self.seen.append(job.source)
        return self.answers[job.source]


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> type[Runner]:
    monkeypatch.setattr(probe, "JobRunner", Runner)
    Runner.answers, Runner.seen = {}, []
    return Runner


def test_what_is_missing_is_measured_and_stored(cache: Path, runner: type[Runner]) -> None:
    old, new = known(cache)[0], make_family("New", "# new\n")
    runner.answers["# new\n"] = ([MESSAGE | {"reason": "it is new"}], ended())
    reports: list[tuple[int, int]] = []
    for _ in range(2):
        found = profiles([new, old], SHAPE, progress=lambda *report: reports.append(report), wanted="process")
        assert {name: one.reason for name, one in found.items()} == {"New": "it is new", "Zeta": ""}
    assert reports == [(0, 1), (1, 1)]
    assert runner.seen == [("torch", "torchvision", "nngen.families.measure"), "# new\n", "closed"]


@pytest.mark.parametrize(
    ("cpus", "jobs", "expected"), [(32, None, 8), (8, None, 8), (3, None, 3), (3, 5, 5), (None, None, 4), (None, 1, 1)]
)
def test_as_many_are_measured_as_there_are_cpus_at_most_eight(
    cpus: int | None,
    jobs: int | None,
    expected: int,
    cache: Path,
    runner: type[Runner],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if cpus is None:
        monkeypatch.delattr(probe.os, "sched_getaffinity")
        monkeypatch.setattr(probe.os, "cpu_count", lambda: 4)
    else:
        monkeypatch.setattr(probe.os, "sched_getaffinity", lambda process: set(range(cpus)))
    workers: list[int] = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, number: int) -> None:
            workers.append(number)
            super().__init__(1)

    monkeypatch.setattr(probe, "ThreadPoolExecutor", Pool)
    runner.answers[FAMILY.source] = ([MESSAGE], ended())
    profiles([FAMILY], SHAPE, jobs=jobs, wanted="process")
    assert workers == [expected]


def test_costs_that_cannot_be_measured_are_left_out(cache: Path, runner: type[Runner]) -> None:
    one, other = make_family("One", "# 1\n"), make_family("Other", "# 2\n")
    runner.answers = {"# 1\n": ([MESSAGE | {"cost": COST}], ended()), "# 2\n": ([], ended(ExitReason.TIME))}
    inputs = Interface(low=2)
    found = probe.training_costs([(one, inputs), (other, inputs)], SHAPE, jobs=1, wanted="process")
    assert found == {"One": TrainingCost(**COST)}


def test_the_sandbox_is_asked_for_before_the_first_family_runs(
    cache: Path, runner: type[Runner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(UsageError, match="family Toy is not from the pinned"):
        profiles([FAMILY], SHAPE)
    assert runner.seen == []
