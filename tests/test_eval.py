"""Evaluation scripts: imports and ``--help``; the shared page module."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from nngen.types import EpochResult, Outcome, Shape, Trial, TrialSpec, Verdict

EVAL = Path(__file__).parent.parent / "eval"
SCRIPTS = sorted(path.stem for path in EVAL.glob("[!_]*.py") if "__main__" in path.read_text())


@pytest.fixture(autouse=True)
def _on_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the folder on ``sys.path``, as for a script in it, and unload its modules afterwards."""
    monkeypatch.syspath_prepend(EVAL)
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        if name in SCRIPTS or name in ("_page", "_trainings"):
            del sys.modules[name]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EVAL / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_describes_itself(name, capsys):
    with pytest.raises(SystemExit) as left:
        load(name).main(["--help"])
    assert left.value.code == 0
    help_text = capsys.readouterr().out
    assert help_text.startswith(f"usage: {name}.py")
    assert "--write" in help_text


def test_every_results_page_belongs_to_a_script():
    assert {path.stem for path in (EVAL / "results").iterdir()} <= set(SCRIPTS)


def test_the_page_states_the_whole_command_and_is_written_on_request(tmp_path, monkeypatch, capsys):
    page = load("_page")
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    evaluation = page.Evaluation("eval/claim.py", "A claim.")
    given = evaluation.arguments(
        ["--sides", "32", "64", "--work", "/home/someone/work", "--write"],
        seed=0,
        sides=([16], "pixels"),
        work=Path,
        base=str,
        fast=False,
    )
    assert (given.seed, given.sides, given.fast, given.base) == (0, [32, 64], False, None)
    table = page.table(("name", "count"), [("a", 1)], right=("count",))
    text = evaluation.page("A claim", "One run.", table, ["- first", "- second"], "")
    assert text == (
        "# A claim\n\n"
        f"`python eval/claim.py --seed 0 --sides 32 64 --work work --write`, {page.today()}. One run.\n\n"
        "| name | count |\n| --- | ---: |\n| a | 1 |\n\n- first\n- second\n"
    )
    assert evaluation.finish(text, good=False) == 1
    assert (tmp_path / "claim.md").read_text() == text == capsys.readouterr().out


@pytest.mark.slow
def test_the_measurements_of_a_card_are_rehearsed_on_the_cpu(monkeypatch, capsys):
    card = load("card")
    monkeypatch.setattr(card, "marked_tests", lambda: {"skipped": 4})
    tiny = ["--train", "64", "--batch", "32", "--epochs", "2", "--seeds", "2", "--sides", "16", "24", "--loaders", "0"]
    assert card.main(["--device", "cpu", "--no-compiled", *tiny]) == 0
    page = capsys.readouterr().out
    assert "no figure here says anything of a card" in page
    assert "Tests marked `gpu`: 4 skipped." in page
    assert re.search(r"\| 24 px \| [\d,]+ \| [\d,]+ \| [\d.]+ \|", page)
    assert re.search(r"bfloat16 0\.\d{4}, float32 0\.\d{4}; difference [+-]0\.\d{4}", page)
    assert "Two trials at once at 16 px" in page


@pytest.mark.parametrize(
    ("tokens", "reason"),
    [
        (["--device", "cuda"], "torch finds no CUDA device here: use --device cpu or auto"),
        (["--device", "cpu", "--write"], "the page is for a card: leave out --write"),
        (["--device", "cpu", "--epochs", "1"], "give two or more of each"),
    ],
)
def test_a_machine_without_a_card_gets_one_line(tokens, reason, monkeypatch, capsys):
    monkeypatch.setattr("nngen.training.environment.has_card", lambda: False)
    with pytest.raises(SystemExit) as left:
        load("card").main(tokens)
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("card.py: error: ")
    assert line.endswith(reason)


def test_a_step_that_was_done_is_read_again(tmp_path):
    page = load("_page")
    calls = []
    for _ in range(2):
        assert page.kept(tmp_path / "step" / "one.json", lambda: calls.append(1) or [1, 2]) == [1, 2]
    assert len(calls) == 1


def test_measures_of_a_small_package(tmp_path):
    package = tmp_path / "small"
    package.mkdir()
    body = "\n".join(f"    value{number} = {number} + 10" for number in range(7))
    (package / "__init__.py").write_text('"""Face."""\n\nfrom small.top import run\n')
    (package / "base.py").write_text(
        f'"""Base."""\n\n\ndef first():\n    """One."""\n{body}\n    # why\n    return 1\n'
    )
    (package / "top.py").write_text(
        "from typing import TYPE_CHECKING\n\nfrom small import middle\n\nif TYPE_CHECKING:\n    import small\n\n\n"
        f"def run():\n    import small.base  # noqa: F401\n{body}\n    return middle\n"
    )
    (package / "middle.py").write_text("from .base import first\n\nWORKERS = first()\n")
    measure = load("measure_code")
    modules = measure.read_package(package)
    assert measure.longest_chain(modules) == ("small", "small.top", "small.middle", "small.base")
    assert measure.duplicates(modules) == (1, 14)
    found = measure.measures(modules)
    assert found["modules"] == 4
    assert found["functions"] == "2"
    assert found["lines of code (no blanks, comments, docstrings)"] == str(1 + 9 + 14 + 2)
    assert found["comments per 100 lines of code"] == f"{100 / 26:.1f}"


def test_import_chains_are_short_and_folders_small() -> None:
    package = Path(__file__).parent.parent / "nngen"
    measure = load("measure_code")
    chain = measure.longest_chain(measure.read_package(package))
    assert len(chain) <= 14, " > ".join(chain)
    sizes = {folder: len(list(folder.glob("*.py"))) for folder in {path.parent for path in package.rglob("*.py")}}
    assert {str(folder) for folder, size in sizes.items() if size > (26 if folder.name == "cli" else 17)} == set()


def test_the_moe4_table_goes_on_from_what_is_stored(tmp_path):
    script = load("moe4_table")
    store = script.Store(tmp_path / "moe4.json", script.SETTINGS)
    cell = script.Cell(("A", "B", "C", "D"), 2000, 4, 1)
    point = EpochResult(epoch=1, validation_accuracy=0.25, usage=(0.5, 0.2, 0.2, 0.1))
    spec = TrialSpec(dataset="x", shape=Shape(3, 32, 32))
    trial = Trial(candidate_id="x", spec=spec, verdict=Verdict(outcome=Outcome.VALID), curve=(point,), parameters=7)
    store.add(cell, trial)
    assert script.Store(tmp_path / "moe4.json", script.SETTINGS).trials == store.trials  # also before it has a head
    store.begin("f1", script.EVALUATION)
    plan = script.plans()[0]
    store.add(drawn := script.Cell(plan.experts, 2000, 4, 0, plan=plan), trial)
    again = script.Store(tmp_path / "moe4.json", script.SETTINGS)
    again.begin("f1", script.EVALUATION)
    assert again.trials == store.trials
    assert again.missing([drawn, cell, replace(drawn, seed=1)]) == [replace(drawn, seed=1)]
    assert again.accuracies(4, (2000, 4)) == {cell.experts: [0.25]}
    assert again.accuracies(1, (2000, 4)) == again.accuracies(4, (2000, 2)) == {}
    with pytest.raises(SystemExit):
        again.begin("f2", script.EVALUATION)


def test_the_moe4_table_has_every_quartet_and_every_family():
    script = load("moe4_table")
    wanted = list(script.cells("table"))
    assert len(set(wanted)) == len(wanted) == 3 * (126 + 9)
    assert {family for cell in wanted for family in cell.experts} == set(script.FAMILIES)
    assert all(cell.images * cell.epochs <= 8000 for stage in script.STAGES for cell in script.cells(stage))
    drawn = list(script.cells("plans"))
    assert len(set(drawn)) == len(drawn) == 375 and len({cell.plan for cell in drawn}) == 300
    pilot = {cell.experts for cell in script.cells("pilot")}
    assert len(pilot) == 12 and pilot <= {cell.experts for cell in wanted}


def test_the_page_of_the_moe4_table_compares_with_families_that_are_trained(tmp_path):
    script = load("moe4_table")
    store = script.Store(tmp_path / "moe4.json", script.SETTINGS)
    store.begin("f1", script.EVALUATION)

    def add(experts, seed, accuracy):
        trial = Trial(
            candidate_id="x",
            spec=TrialSpec(dataset="x", shape=Shape(3, 32, 32)),
            verdict=Verdict(outcome=Outcome.VALID),
            curve=(EpochResult(epoch=1, validation_accuracy=accuracy),),
        )
        store.add(script.Cell(experts, *script.CHOSEN, seed), trial)

    for number, experts in enumerate(script.PILOT[:3]):
        for seed in (0, 1):
            add(experts, seed, 0.3 + number / 10 + seed / 100)
    assert "Best quartet" in (text := script.page(store)) and "best family alone" not in text
    for name in script.FAMILIES:
        add((name,), 0, 0.45)
    assert "alone beats its mixture in 2 of 3" in script.page(store)


def trained_alone(script, store, random, name, fidelity, skill):
    """Add the training of a family alone to a store, with made-up outputs that are right with a probability."""
    labels = np.arange(200) % 10
    guesses = np.where(random.random(200) < skill, labels, random.integers(10, size=200))
    logits = (4.0 * np.eye(10)[guesses] + random.normal(0, 1, (200, 10))).astype("<f2")
    accuracy = float((logits.argmax(1) == labels).mean())
    curve = tuple(EpochResult(epoch=epoch, validation_accuracy=accuracy * epoch / 4) for epoch in (1, 2, 3, 4))
    trial = Trial(
        candidate_id=name,
        spec=TrialSpec(dataset="x", shape=Shape(3, 32, 32)),
        verdict=Verdict(outcome=Outcome.VALID),
        curve=curve,
        parameters=1000,
        validation_logits=logits.tobytes(),
    )
    cell = script.Cell((name,), *fidelity, 0)
    images = random.integers(256, size=(200, 3, 32, 32), dtype=np.uint8)
    data = SimpleNamespace(classes=10, validation_labels=labels, validation_images=images)
    store.add(cell, trial)
    store.keep_outputs(cell, trial, data)
    return accuracy


def test_outputs_of_families_are_kept_beside_their_table(tmp_path):
    script = load("moe4_table")
    store = script.Store(tmp_path / "moe4.json", script.SETTINGS)
    store.begin("f1", script.EVALUATION)
    trained_alone(script, store, np.random.default_rng(0), "A", (2000, 2), 0.5)
    cells = [script.Cell(("A",), 2000, 2, seed) for seed in (0, 1)]
    again = script.Store(tmp_path / "moe4.json", script.SETTINGS)
    assert again.missing(cells, outputs=True) == cells[1:]
    assert again.outputs["A 2000 2 0"].shape == (200, 10) and again.outputs["features"].shape == (200, 48)
    (tmp_path / "moe4.npz").unlink()
    without = script.Store(tmp_path / "moe4.json", script.SETTINGS)
    assert without.missing(cells) == cells[1:] and without.missing(cells, outputs=True) == cells


@pytest.mark.parametrize("outputs", [True, False])
def test_scores_are_compared_with_the_trainings_of_a_table(tmp_path, monkeypatch, capsys, outputs):
    script = load("surrogate_fidelity")
    random, families, fidelity = np.random.default_rng(0), "ABCDEFG", script.KNOWN[0].fidelity
    store = script.Store(tmp_path / "moe4.json", {})
    store.begin("f1", script.EVALUATION)
    alone = {
        name: trained_alone(script, store, random, name, fidelity, 0.1 + number / 10)
        for number, name in enumerate(families)
    }
    for seed in (0, 1):
        for experts in combinations(families, 4):
            accuracy = float(np.mean([alone[name] for name in experts]) + random.normal(0, 0.005))
            point = EpochResult(epoch=1, validation_accuracy=accuracy)
            trial = Trial(
                candidate_id="x",
                spec=TrialSpec(dataset="x", shape=Shape(3, 32, 32)),
                verdict=Verdict(outcome=Outcome.VALID),
                curve=(point,),
            )
            store.add(script.Cell(experts, *fidelity, seed), trial)
    if not outputs:
        (tmp_path / "moe4.npz").unlink()
    monkeypatch.setattr(script, "TABLES", tmp_path)
    assert script.main([]) == 1  # one table is missing
    text = capsys.readouterr().out
    assert "35 of 126 quartets are recorded, 35 with all of 7 families alone" in text
    assert "0 of 49 quartets are recorded; at least 8 with all their families alone are needed." in text
    assert ("| gate |" in text) == outputs and ("| stacking |" in text) == outputs
    read = script.read(script.Store(tmp_path / "moe4.json", {}), fidelity)
    assert read is not None
    rows = {row.score: row for row in script.agreements(*read)[0]}
    assert rows["mean_single"].tau > 0.9 and rows["random"].tau == 0
    assert rows["learned"].tau > 0.7 and rows["mean_single"].regret < 0.01


def test_claims_about_the_learned_ranker():
    script = load("surrogate_fidelity")

    def row(score, tau, regret=0.0):
        return script.Agreement(score=score, mixtures=50, tau=tau, low=tau, high=tau, regret=regret)

    trivial = [row(name, tau) for name, tau in zip(script.TRIVIAL, (0.1, 0.5, 0.3, 0.0), strict=True)]
    held = script.claims([row("learned_unseen", 0.6, 0.004), *trivial], 0.65, 0.01)
    assert [good for _, good in held] == [True, True, True]
    lost = script.claims([row("learned_unseen", 0.45, 0.006), *trivial], 0.65, 0.01)
    assert [good for _, good in lost] == [False, False, False]
    assert [good for _, good in script.claims([row("learned_unseen", 0.6), *trivial], None, 0.0)] == [
        False,
        True,
        False,
    ]


def test_warm_and_cold_trainings_are_paired_by_quartet_and_seed():
    script = load("warm_start")
    warm = {("A", "B"): {0: (0.5, 1.0), 1: (0.6, 1.0)}, ("A", "C"): {0: (0.4, 1.0)}}
    cold = {("A", "B"): {0: (0.4, 2.0), 1: (0.4, 2.0)}, ("A", "C"): {0: (0.5, 2.0), 1: (0.9, 2.0)}, ("B", "C"): {}}
    assert script.compare(warm, cold) == pytest.approx([0.15, -0.1])
    text = script.page({"warm": warm, "scratch, short": cold}, {("A",): {0: (0.3, 4.0)}}, 2)
    assert "| warm | 3 | 0.5000 | 1.0 | - | - |" in text
    assert "| scratch, short | 4 | 0.5500 | 2.0 | +0.0250 | -1.5633 to +1.6133 |" in text


def test_reliability_of_made_up_accuracies():
    script = load("moe4_table")
    random = np.random.default_rng(1)
    values = random.normal(0.4, 0.03, (200, 1)) + random.normal(0, 0.015, (200, 3))
    found = script.separation(values.tolist())
    assert found.icc == pytest.approx(0.8, abs=0.05)
    assert found.low < 0.8 < found.high
    assert (found.between, found.within) == pytest.approx((0.03, 0.015), rel=0.15)
    assert found.reliability(3) == pytest.approx(3 * found.icc / (1 + 2 * found.icc))
    assert found.ceiling(1) == pytest.approx(2 / np.pi * np.arcsin(np.sqrt(found.icc)))
    assert script.separation([[0.4], [0.5], [0.6]]) is None


def test_every_arm_spends_the_same_recorded_seconds():
    script = load("space_cost")
    families = "ABCDEFGHI"

    def cell(names):
        mean = sum(families.index(name) for name in names) / (10 * len(names))
        seeds = (mean, mean + 0.01, mean + 0.02)
        return script.Cell(seeds, tuple((value,) for value in seeds), (25.0 * len(names),) * 3)

    cells = {names: cell(names) for size in (1, 4) for names in combinations(families, size)}
    paths = {arm: script.search(cells, arm, 0, 1000.0) for arm in script.ARMS}
    assert {arm: len(path) for arm, path in paths.items()} == {"families first": 7, "adaptive": 10, "stratified": 10}
    assert all(path[-1][0] <= 1000 for path in paths.values())
    # The nine families are paid for first; their best four are then the first mixture, judged by its other seeds.
    spent, fresh = paths["families first"][0]
    assert spent == 9 * 25 + 100
    assert abs(fresh - cells["F", "G", "H", "I"].accuracies[1]) <= 0.0051
