"""Recorded tables in place of trainings: the file, answers and predictions, campaigns and loops on a table."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from random import Random
from statistics import fmean, stdev

import numpy as np
import pytest

from nngen.analysis.leaderboard import leaderboard
from nngen.analysis.ranking.limits import limits
from nngen.analysis.results import replay_note
from nngen.archive import Archive
from nngen.errors import DataError, UsageError
from nngen.export.selection import select
from nngen.isolation import Isolation
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.plan import Gate, Plan
from nngen.surrogate.recorded_table import by_name, read_table
from nngen.surrogate.table_engine import PREDICTED, TableEngine, forecast
from nngen.testing.fakes import fake_campaign, fake_inputs
from nngen.training.engine import CheckJob, TrainJob
from nngen.types import Candidate, Outcome, Shape, TrialSpec

ROOT = Path(__file__).parents[2]
FAMILIES = "ABCDEFG"
WORTH = dict(zip(FAMILIES, (0.02, 0.05, 0.03, 0.08, 0.06, 0.04, 0.1), strict=True))
NOISE = 0.01
SETTINGS = {"shape": "1x8x8", "batch": 32, "lr": 0.003}


def accuracy(plan: Plan) -> float:
    return 0.2 + sum(map(WORTH.__getitem__, plan.experts)) + plan.gate.width / 640


def row(plan: Plan, seed: int, /, **changes: object) -> dict[str, object]:
    last = accuracy(plan) + Random(f"{plan.experts} {plan.gate.width} {seed}").gauss(0, NOISE)
    found = {"plan": plan.to_dict(), "images": 100, "epochs": 2, "seed": seed, "accuracy": [last / 2, last]}
    return found | {"usage": [0.4, 0.3, 0.2, 0.1], "parameters": 7, "seconds": 8.0} | changes


def write(path: Path, trials: list[dict[str, object]], **settings: object) -> Path:
    path.write_text(json.dumps({"settings": SETTINGS | settings, "trials": trials}))
    return path


QUARTETS = [Plan(experts=quartet) for quartet in combinations(FAMILIES, 4)]
WIDE = [Plan(experts=quartet, gate=Gate(width=64)) for quartet in combinations(FAMILIES, 4)]


@pytest.fixture
def file(tmp_path):
    """All 35 quartets with the default gate and three seeds, half of them with a wide gate and one seed."""
    trials = [row(plan, seed) for seed in range(3) for plan in QUARTETS] + [row(plan, 0) for plan in WIDE[::2]]
    return write(tmp_path / "t.json", trials)


@pytest.fixture
def table(file):
    return read_table(file)


def job(plan: Plan | None, seed: int = 0, **changes: object) -> TrainJob:
    spec = TrialSpec(dataset="table:t", shape=Shape(1, 8, 8), seed=seed, **{"epochs": 2, **changes})
    candidate = Candidate(id=f"MoE4-{seed}", source="", canonical="", plan=plan)
    return TrainJob(candidate=candidate, spec=spec, dataset=fake_inputs().dataset, isolation=Isolation.PROCESS)


def test_one_of_the_recorded_seeds_answers(table):
    engine, plan = TableEngine(table), Plan(experts=("D", "A", "C", "B"))
    found = [engine.train(job(plan, seed)) for seed in range(40)]
    recorded = {trial.curve[-1].validation_accuracy for trial in found}
    assert recorded == {one.curve[-1] for one in table.trainings[by_name(plan)]} and len(recorded) == 3
    assert found[0] == engine.train(job(plan, 0))
    first = found[0]
    assert first.validation_accuracy == first.curve[-1].validation_accuracy
    assert first.verdict.rule == "table.recorded" and first.verdict.message.endswith("one of 3")
    # Weights were recorded in the order A, B, C, D.
    assert first.curve[-1].usage == (0.1, 0.4, 0.2, 0.3)
    assert (first.parameters, first.seconds, first.batch) == (7, 8.0, 64)
    assert engine.answers == {"table.recorded": 41}


def test_the_first_epochs_of_a_long_schedule(table):
    seen = []
    short = TableEngine(table).train(job(QUARTETS[0], 5, epochs=1, horizon=2), seen.append)
    whole = TableEngine(table).train(job(QUARTETS[0], 5))
    assert short.curve == tuple(seen) == whole.curve[:1] and short.seconds == 4.0


@pytest.mark.long
def test_a_forest_answers_for_other_plans_with_the_noise_of_seeds(table):
    engine, known = TableEngine(table), forecast(table)
    assert known.error < 0.03 and known.noise == pytest.approx(NOISE, rel=0.25)
    assert f"error {known.error:.4f}" in engine.describe() and f"deviation of {known.noise:.4f}" in engine.describe()
    plan = WIDE[1]
    assert by_name(plan) not in table.trainings
    found = [engine.train(job(plan, seed)) for seed in range(200)]
    values = [trial.validation_accuracy for trial in found]
    assert fmean(values) == pytest.approx(accuracy(plan), abs=3 * known.error)
    assert stdev(values) == pytest.approx(known.noise, rel=0.3)
    assert {trial.verdict.rule for trial in found} == {PREDICTED} and found[0].verdict.valid
    # The default gate of the same families is recorded, and lower.
    assert fmean(values) > accuracy(QUARTETS[1]) + 0.02


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        (Plan(experts=("A", "B", "C", "D"), gate=Gate(width=16)), "gate.width 16 is outside"),
        (Plan(experts=("A", "B", "C", "D"), gate=Gate(routing="top-k")), "gate.routing top-k is outside"),
        (Plan(experts=("A", "B", "C", "X")), "no training with X"),
        (None, "a file without a plan"),
    ],
)
def test_plans_of_another_grammar_are_refused(table, plan, reason):
    engine = TableEngine(table)
    trial = engine.train(job(plan))
    assert trial.verdict.outcome is Outcome.CONTRACT and reason in trial.verdict.message
    assert trial.validation_accuracy is None and trial.curve == ()
    check = CheckJob(candidate=job(plan).candidate, shape=Shape(1, 8, 8), isolation=Isolation.PROCESS)
    assert engine.check(check) == trial.verdict


def test_a_recorded_failure_is_the_verdict(tmp_path):
    failed = row(QUARTETS[0], 0, accuracy=[], outcome="timeout: 3600 s were not enough")
    table = read_table(write(tmp_path / "f.json", [failed]))
    trial = TableEngine(table).train(job(QUARTETS[0]))
    assert (trial.verdict.outcome, trial.verdict.message) == (Outcome.TIMEOUT, "3600 s were not enough")
    assert trial.validation_accuracy is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "is not a table of recorded trainings"),
        ("[1]", "it needs settings and trials"),
        ({"trials": []}, "it needs settings and trials"),
        ({"trials": [3]}, "it needs settings and trials"),
        ({"trials": [], "settings": SETTINGS}, "it holds nothing"),
        ({"trials": [row(QUARTETS[0], 0)], "settings": {"batch": 3}}, "by its settings"),
        ({"trials": [row(QUARTETS[0], 0)], "settings": SETTINGS | {"lr": "x"}}, "--lr must be"),
        ({"trials": [row(QUARTETS[0], 0)], "settings": SETTINGS | {"classes": 1}}, "classes is 1"),
        ({"trials": [{"epochs": 2, "seed": 0, "accuracy": [0.1, 0.2]}], "settings": SETTINGS}, "it has no experts"),
        ({"trials": [row(QUARTETS[0], 0, accuracy=[0.1])], "settings": SETTINGS}, "not a list of 2 shares"),
        ({"trials": [row(QUARTETS[0], 0, accuracy=[0.1, 91.0])], "settings": SETTINGS}, "not a list of 2 shares"),
        ({"trials": [row(QUARTETS[0], 0, parameters="many")], "settings": SETTINGS}, "parameters is 'many'"),
        ({"trials": [row(QUARTETS[0], 0, usage=[0.5])], "settings": SETTINGS}, "training 1 of 2 epochs"),
        ({"trials": [row(QUARTETS[0], 0)] * 2, "settings": SETTINGS}, "a seed of A, B, C, D twice"),
        # A cell of NAS-Bench-201 is not a plan.
        ({"trials": [row(QUARTETS[0], 0, plan={"cell": "|nor~0|"})], "settings": SETTINGS}, "not a plan"),
    ],
)
def test_bad_tables_are_refused_in_one_line(tmp_path, content, reason):
    path = tmp_path / "bad.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UsageError, match=re.escape(reason)) as caught:
        read_table(path)
    assert "\n" not in str(caught.value) and "bad.json" in str(caught.value)


def test_a_missing_table(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_table(tmp_path / "none.json")


def test_of_several_fidelities_one_is_chosen(tmp_path):
    short = [row(plan, 0, epochs=1, accuracy=[0.3]) for plan in QUARTETS[:3]]
    path = write(tmp_path / "two.json", short + [row(plan, 0) for plan in QUARTETS])
    assert (read_table(path).spec.epochs, read_table(path, epochs=1).spec.epochs) == (2, 1)
    assert read_table(path, epochs=1).fingerprint != read_table(path).fingerprint
    with pytest.raises(UsageError, match="2 epochs of 100 images"):
        read_table(path, epochs=3)


def campaign(archive, table, **changes):
    names = ("shape", "train_size", "epochs", "batch", "lr", "momentum", "augment")
    spec = {name: getattr(table.spec, name) for name in names} | {"dataset": table.spec.dataset}
    inputs = fake_inputs(FAMILIES, dataset=table.dataset())
    return fake_campaign(archive, engine=TableEngine(table), inputs=inputs, **spec | {"size": 9} | changes)


def test_a_campaign_of_replays_is_marked(table):
    with Archive.in_memory() as archive:
        summary = campaign(archive, table).run()
        assert summary.replayed == {"table.recorded": 9} and summary.to_dict()["replayed"] == {"table.recorded": 9}
        assert replay_note(summary.replayed).endswith("not trained: 9 recorded (100%)")
        assert summary.best.test_accuracy is None
        trials = archive.trials("one")
        assert {trial.data_fingerprint for trial in trials} == {table.fingerprint}
        assert all(trial.verdict.replayed and trial.environment["table"].startswith("t.json") for trial in trials)
        assert any("replayed from a recorded table" in line for line in limits(leaderboard(trials)))
        with pytest.raises(UsageError, match="only trainings are exported"):
            select(archive, campaign="one")
        # No check took place, so a campaign of trainings checks the candidate itself.
        assert archive.checked(trials[0].candidate_id, Shape(1, 8, 8), 10) is None


def test_rungs_on_a_table_go_on(table):
    with Archive.in_memory() as archive:
        spec = {"rungs": (1, 2), "rungs_continue": True, "reduction_factor": 3}
        summary = campaign(archive, table, **spec).run()
        assert [rung.trials for rung in summary.rungs] == [9, 3]
        first, second = (next(t for t in archive.trials("one") if t.rung == rung) for rung in (0, 1))
        first = next(t for t in archive.trials("one") if t.position == second.position and not t.rung)
        assert first.curve[0].validation_accuracy == second.curve[0].validation_accuracy


def test_a_table_that_changed_is_refused(table, file):
    content = json.loads(file.read_text())
    content["trials"][0]["accuracy"][-1] = 0.5
    file.write_text(json.dumps(content))
    with Archive.in_memory() as archive:
        campaign(archive, table).run()
        with pytest.raises(DataError, match="has changed since campaign one began"):
            campaign(archive, read_table(file)).run()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"epochs": 3}, "--epochs 3 is not the fidelity of t.json, which was recorded with 2: leave it out"),
        ({"lr": 0.1}, "--lr 0.1"),
        ({"train_size": None}, "--train-size (all)"),
        ({"rungs": (1, 2)}, "--rungs-continue"),
        ({"families": ("A", "Z")}, "no training with Z: choose among A, B"),
        ({"hyperparameters": {"dropout": 0.1}}, "without further values of prm"),
    ],
)
def test_another_fidelity_is_refused(table, changes, reason):
    with Archive.in_memory() as archive:
        spec = campaign(archive, table).spec
    table.check(spec)
    with pytest.raises(UsageError, match=re.escape(reason)):
        table.check(replace(spec, **changes))


def test_the_example_of_the_page_writes_a_table(tmp_path):
    with Archive.in_memory() as archive:
        fake_campaign(archive, size=9).run()
        page = (ROOT / "docs" / "tables.md").read_text()
        scope: dict[str, object] = {}
        exec(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1], scope)
        scope["write_table"](tmp_path / "own.json", archive, "one")
        table = read_table(tmp_path / "own.json")
        trial = archive.trials("one")[0]
        (recorded,) = table.trainings[by_name(trial.plan)]
        assert recorded.curve[-1] == trial.validation_accuracy and len(table.trainings) == 9


def test_the_table_of_the_repository_is_readable():
    table = read_table(ROOT / "eval" / "tables" / "moe4.json", train_size=2000, epochs=4)
    assert len(table.families) >= 9 and table.spec.shape == Shape(3, 32, 32)
    assert all(0 < one.curve[-1] < 1 for trainings in table.trainings.values() for one in trainings if one.curve)


REAL = ("ICNet", "MobileNetV3", "ShuffleNet", "SqueezeNet-1", "SqueezeNet-2")


@pytest.fixture
def real(tmp_path):
    """A table of real families: all quartets, and twenty plans with other fields."""
    random = np.random.default_rng(0)
    plans = [Plan(experts=quartet) for quartet in combinations(REAL, 4)]
    rows = [{"experts": list(plan.experts)} for plan in plans for _ in range(2)]
    space = PlanSpace(families=REAL)
    rows += [{"plan": space.draw(Random(number)).to_dict()} for number in range(60)]
    for number, one in enumerate(rows):
        one |= {"epochs": 1, "seed": number, "accuracy": [float(random.uniform(0.2, 0.4))]}
    return write(tmp_path / "real.json", rows, shape="3x32x32")


@pytest.mark.slow
def test_commands_on_a_table(nngen, real, tmp_path):
    place = ("--archive", str(tmp_path / "a.db"))
    ran = nngen("campaign", "run", "small", "--size", "3", "--table", str(real), *place)
    assert ran.code == 0, ran.err
    assert "3 trials answered from a recorded table" in ran.out and "trials are replayed from real.json" in ran.err
    again = nngen("campaign", "run", "small", "--size", "5", *place, "--json")
    assert again.code == 0 and json.loads(again.out)["replayed"] == {"table.recorded": 5}
    page = nngen("report", "small", "--out", str(tmp_path / "r.html"), *place)
    assert page.code == 0 and "answered from a recorded table, not trained" in (tmp_path / "r.html").read_text()
    loop = ("evolve", "loop", "--rewriter", "mutate", "--start", "3", "--number", "3", "--cycles", "1")
    ran = nngen(*loop, "--table", str(real), *place)
    assert ran.code == 0, ran.err
    assert "predicted" in ran.err


@pytest.mark.slow
def test_a_loop_on_a_table_of_default_plans_drafts_such_plans_alone(nngen, tmp_path):
    rows = [
        {"experts": list(quartet), "epochs": 1, "seed": seed, "accuracy": [0.3 + seed / 100]}
        for quartet in combinations(REAL, 4)
        for seed in range(2)
    ]
    table = write(tmp_path / "plain.json", rows, shape="3x32x32")
    loop = ("evolve", "loop", "--rewriter", "mutate", "--start", "2", "--number", "3", "--cycles", "1", "--json")
    ran = nngen(*loop, "--table", str(table), "--archive", str(tmp_path / "a.db"))
    assert ran.code == 0, ran.err
    cycles = json.loads(ran.out)
    assert [(cycle["valid"]["successes"], cycle["valid"]["tries"]) for cycle in cycles] == [(2, 2), (3, 3)]


@pytest.mark.long
def test_commands_refuse_what_does_not_go_with_a_table(nngen, real, tmp_path):
    for words, reason in (
        (("--table", str(real), "--dataset", "digits"), "--table takes the place of --dataset digits"),
        (("--table", str(real), "--epochs", "7"), "has no training at this fidelity"),
        (("--table", str(real), "--lr", "0.5"), "--lr 0.5 is not the fidelity"),
        (("--table", str(tmp_path / "no.json")), "No such file"),
        (("--table", str(real), "--folds", "3"), "give --table or --folds"),
        (("--table", str(real), "--dry-run"), "leave out --dry-run"),
    ):
        bad = nngen("campaign", "run", "other", "--size", "2", *words, "--archive", str(tmp_path / "a.db"))
        assert bad.code in (1, 2) and reason in bad.err, bad.err


def test_rates_of_experts_are_recorded_and_predicted_within_their_range(tmp_path):
    rated = [replace(plan, rates=((plan.experts[0], 0.1),)) for plan in QUARTETS[:12]]  # the others have 1
    engine = TableEngine(read_table(write(tmp_path / "t.json", [row(plan, 0) for plan in (*QUARTETS, *rated)])))
    assert engine.train(job(rated[0])).verdict.rule == "table.recorded"
    between = replace(rated[0], rates=((rated[0].experts[0], 0.3),))
    assert engine.train(job(between)).verdict.rule == "table.predicted"
    beyond = engine.train(job(replace(rated[0], rates=((rated[0].experts[0], 3.0),)))).verdict
    assert not beyond.valid and beyond.message.startswith(f"rates.{rated[0].experts[0]} 3.0 is outside of t.json")
