"""``eval/closed_loop.py`` and ``eval/source_rewriter.py``: small runs, resumed runs, and what their pages conclude."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pytest

from nngen.archive import StoredTrial, TrialState
from nngen.llm.proposals.log import Proposal, Stage
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.llm.rewriters.base import Kind
from nngen.plan import Plan

EVAL = Path(__file__).parent.parent / "eval"
FAMILIES = ("ComplexNet", "ICNet", "MobileNetV3", "ShuffleNet", "SqueezeNet-1", "SqueezeNet-2")


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ModuleType, ModuleType]]:
    monkeypatch.syspath_prepend(EVAL)
    import closed_loop
    import source_rewriter

    monkeypatch.setattr(closed_loop, "PILOT", 2)
    monkeypatch.setattr(closed_loop, "LEAST", 1)
    yield closed_loop, source_rewriter
    for name in ("_page", "closed_loop", "source_rewriter"):
        sys.modules.pop(name, None)


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A table of all quartets of six families with two seeds, and of forty other plans."""
    space, rng = PlanSpace(families=FAMILIES), Random(0)
    worth = {name: place / 100 for place, name in enumerate(FAMILIES)}
    rows: list[dict[str, Any]] = [{"experts": list(one)} for one in combinations(FAMILIES, 4) for _ in range(2)]
    rows += [{"plan": space.draw(Random(number)).to_dict()} for number in range(40)]
    for number, row in enumerate(rows):
        experts = row.get("experts") or row["plan"]["experts"]
        accuracy = 0.5 + sum(worth[name] for name in experts) + rng.gauss(0, 0.003)
        row |= {"epochs": 1, "seed": number, "accuracy": [accuracy]}
    path = tmp_path / "table.json"
    path.write_text(json.dumps({"settings": {"shape": "3x32x32", "batch": 32, "lr": 0.003}, "trials": rows}))
    return path


@pytest.mark.slow
def test_closed_loops_are_resumed_and_compared(
    scripts: tuple[ModuleType, ModuleType], recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script, store = scripts[0], tmp_path / "loops.json"
    sizes = ("--start", "5", "--cycles", "1", "--number", "2", "--pool", "4", "--most", "1")
    words = ("--arms", "random", "mutate", "mutate-unranked", "--store", str(store), *sizes)
    assert script.main([*words, "--table", str(recorded), "--work", str(tmp_path / "work")]) == 1  # arms are missing
    page = capsys.readouterr().out
    assert "The pilot of 2 seeds is not complete" in page and "| random | 1 |" in page
    assert str(tmp_path) not in page
    content = json.loads(store.read_text())
    rows = [row for loops in content["loops"].values() for row in loops.values()]
    assert len(rows) == 3 * (2 + 1)
    assert {row["trials"] for row in rows} == {5 + 2}
    assert all(0.5 < row["chosen"] <= row["found"] < 0.7 and row["new"] == 2 for row in rows)
    assert all(content["loops"]["mutate"][seed]["drafted"] >= 4 for seed in ("0", "1000000"))
    # Loops that are lost are run again, alone, and to the same results.
    lost = content["loops"]["mutate"].pop("0")
    store.write_text(json.dumps(content))
    assert script.main([*words, "--table", str(recorded)]) == 1
    again = json.loads(store.read_text())["loops"]
    assert again["mutate"]["0"] | {"seconds": 0} == lost | {"seconds": 0}
    assert sum(map(len, again.values())) == len(rows)
    with pytest.raises(SystemExit):
        script.main([*words, "--table", str(recorded), "--start", "6"])
    assert "loops on another table or of other sizes" in capsys.readouterr().err


def test_the_number_of_seeds_of_closed_loops_follows_from_the_pilot(
    scripts: tuple[ModuleType, ModuleType], tmp_path: Path
) -> None:
    script = scripts[0]
    store = script.Store(tmp_path / "loops.json")
    for arm in script.ARMS:
        for place, chosen in enumerate((0.5, 0.5)):
            gap = 0.02 * place if arm == "tuned" else 0.0
            store.loops[arm][script.FIRST_OF_PILOT + place] = {"chosen": chosen + gap}
    found = store.deviation(script.ARMS)
    assert found == pytest.approx(0.02 / 2**0.5)
    assert script.seeds_needed(found, 1000) == 63  # 7.85 * 0.0002 / 0.000025, rounded up
    assert script.seeds_needed(found, 50) == 50
    assert script.seeds_needed(None, 50) == 0
    assert len([*script.missing(store, script.ARMS, 50)]) == 50 * len(script.ARMS)


def test_changes_count_as_better_beyond_two_standard_errors(scripts: tuple[ModuleType, ModuleType]) -> None:
    """Parents have two seeds with a deviation of 0.02, so that a child of one seed is clear from 0.049 on."""

    def trial(name: str, accuracy: float) -> StoredTrial:
        return StoredTrial(
            id=0,
            campaign="c",
            position=0,
            rung=0,
            replicate=0,
            plan=Plan(experts=FAMILIES[:4]),
            state=TrialState.DONE,
            candidate_id=name,
            validation_accuracy=accuracy,
        )

    def row(name: str) -> Proposal:
        return Proposal(
            batch="b",
            index=0,
            rewriter="r",
            kind=Kind.REGION,
            parent="p",
            candidate=name,
            stage=Stage.CHECKED,
            seconds=1.0,
        )

    unchanged = [trial(name, 0.5 + gap) for name in ("p", "q", "r") for gap in (-0.02 / 2**0.5, 0.02 / 2**0.5)]
    children = [trial("up", 0.56), trial("same", 0.54), trial("down", 0.44)]
    found = scripts[1].summary([row("up"), row("same"), row("down"), row("lost")], children, unchanged)
    assert found["noise"] == pytest.approx(0.02)
    assert (found["asked"], found["trained"], found["better"], found["worse"]) == (4, 3, 1, 1)
    assert found["gains"] == [0.06, 0.04, -0.06]
