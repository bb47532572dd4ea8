"""Commands ``sample``, ``coverage``, ``effects`` and ``cost``."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import pytest

from nngen.archive import Archive
from nngen.assembly.plan_toml import to_toml
from nngen.plan import Plan
from nngen.testing.fakes import fake_record
from nngen.types import Candidate, Outcome, Shape, Trial, TrialSpec, Verdict

POOL = [f"F{number}" for number in range(7)]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Archive with a campaign of 30 quartets of seven families; F6 never trains, two trials are not finished."""
    path = tmp_path / "a.db"
    plans = [Plan(experts=quartet) for quartet in combinations(POOL, 4)][:32]
    with Archive.open(path) as store:
        store.add_campaign(fake_record("first", pool=dict.fromkeys(POOL, "")), plans)
        store.add_campaign(fake_record("empty", pool=dict.fromkeys(POOL, "")), [])
        for place, trial in enumerate(store.trials("first")[:30]):
            candidate = Candidate(id=f"MoE4-{place:032x}", source=str(place), canonical=str(place), plan=trial.plan)
            store.add_candidate(candidate)
            store.start_trial(trial.id)
            bad = "F6" in trial.experts
            result = Trial(
                candidate_id=candidate.id,
                spec=TrialSpec(dataset="digits", shape=Shape(1, 8, 8), seed=place),
                verdict=Verdict(outcome=Outcome.MEMORY if bad else Outcome.VALID),
                validation_accuracy=None if bad else 0.5 + 0.1 * ("F0" in trial.experts) + 0.001 * (place % 3),
                seconds=36.0,
            )
            store.finish_trial(trial.id, result)
    return path


def test_sample_prints_a_list_of_lists(nngen):
    result = nngen("sample", "--sampler", "random", "--size", "5", "--pool", "29", "--seed", "3", "--json")
    quartets = json.loads(result.out)
    assert (result.code, len(quartets)) == (0, 5)
    assert all(len(set(q)) == 4 and all(isinstance(n, int) and 0 <= n < 29 for n in q) for q in quartets)
    longer = nngen("sample", "--sampler", "random", "--size", "9", "--pool", "29", "--seed", "3", "--json")
    assert json.loads(longer.out)[:5] == quartets


def test_sample_by_name_and_as_text(nngen):
    result = nngen("sample", "--sampler", "lexicographic", "--size", "2", "--families", "E,D,C,B,A")
    assert result.out == "A, B, C, D\nA, B, C, E\n"


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        (("--size", "3", "--pool", "3"), "must be a whole number from 4"),
        (("--size", "3", "--pool", "9", "--families", "A,B,C,D"), "one of them"),
        (("--size", "0", "--pool", "9"), "must be a whole number from 1"),
        (("--size", "999", "--pool", "9"), "only 126"),
        (("--size", "3", "--pool", "9", "--sampler", "randm"), "random"),
        (("--size", "3", "--families", ","), "names nothing"),
        (("--size", "3", "--families", "A,A,B,C"), "more than once: A"),
        (("--size", "3", "--pool", "9", "--skip-known"), "abstract"),
        (("--size", "3", "--pool", "9", "--exclude", "1"), "abstract"),
        (("--size", "3", "--families", "A,B,C,D,E", "--exclude", "F"), "--exclude F: not in the pool"),
        (
            ("--size", "3", "--families", "A,B,C,D,E", "--include", "F"),
            "F: to be in every quartet, but not in the pool",
        ),
        ((), "size"),
    ],
)
@pytest.mark.network
def test_sample_refuses_in_one_line(nngen, tokens, says):
    result = nngen("sample", *tokens)
    assert (result.code, result.out) == (2, "")
    assert says in result.err
    assert len(result.err.splitlines()) == 1


def test_sample_takes_out_and_puts_in(nngen):
    tokens = ("--sampler", "exhaustive", "--families", "A,B,C,D,E,F", "--exclude", "F", "--include", "A,B", "--json")
    found = json.loads(nngen("sample", *tokens).out)
    assert found == [["A", "B", *rest] for rest in combinations("CDE", 2)]


def test_sample_without_near_twins_names_what_is_left_out(nngen, wheel):
    names = "ICNet,InceptionV3-1,InceptionV3-2,AirNet,DPN68"
    result = nngen("sample", "--sampler", "exhaustive", "--families", names, "--without-near-twins", "--json")
    assert len(json.loads(result.out)) == 1
    assert "a near-twin of InceptionV3-" in result.err


def test_sample_knows_what_the_archive_holds_and_what_never_trains(nngen, archive):
    left = nngen("sample", "--size", "5", "--families", ",".join(POOL), "--skip-known", "--archive", archive, "--json")
    assert {tuple(q) for q in json.loads(left.out)} == set(list(combinations(POOL, 4))[30:])
    good = nngen(
        "sample", "--size", "15", "--families", ",".join(POOL), "--exclude-low-yield", "--archive", archive, "--json"
    )
    assert all("F6" not in q for q in json.loads(good.out))
    assert "left out F6: 0 of" in good.err


def test_sample_adaptive_asks_with_what_the_archive_tells(nngen, archive):
    names = ",".join([*POOL, "New"])
    result = nngen(
        "sample", "--sampler", "adaptive", "--size", "8", "--families", names, "--archive", archive, "--json"
    )
    quartets = [tuple(quartet) for quartet in json.loads(result.out)]
    assert len(set(quartets)) == 8
    assert not set(quartets) & set(list(combinations(POOL, 4))[:30])
    assert "2 of 8 quartets are explored" in result.err


def test_campaigns_of_different_kinds_are_not_thrown_together(nngen, archive):
    with Archive.open(archive) as store:
        plan = Plan(experts=tuple(POOL[:4]))
        store.add_campaign(fake_record("longer", epochs=9, pool=dict.fromkeys(POOL, "")), [plan])
        trial = store.trials("longer")[0]
        store.start_trial(trial.id)
        spec = TrialSpec(dataset="digits", shape=Shape(1, 8, 8), epochs=9)
        store.finish_trial(
            trial.id, Trial(candidate_id="MoE4-" + "0" * 32, spec=spec, verdict=Verdict(outcome=Outcome.TIMEOUT))
        )
    result = nngen("effects", "--archive", archive)
    assert result.code == 2
    assert "first, longer" in result.err


def test_coverage_of_a_sampler_as_json(nngen):
    result = nngen("coverage", "--sampler", "lexicographic", "--size", "1140", "--pool", "29", "--json")
    audit = json.loads(result.out)
    wanted = {"space", "share", "family_range", "pair_range", "triple_range", "unseen_pairs", "anchors", "verdict"}
    assert wanted | {"family_entropy", "family_gini", "chi_square", "p"} <= audit.keys()
    assert (audit["space"], audit["anchors"]) == (23751, ["00"])


def test_coverage_of_a_campaign_and_its_picture(nngen, archive, tmp_path):
    picture = tmp_path / "pairs.html"
    result = nngen("coverage", "first", "--archive", archive, "--out", picture)
    assert result.code == 0
    assert "32 of 35 quartets" in result.out
    assert "Plotly.newPlot" in picture.read_text()
    refused = nngen("coverage", "first", "--archive", archive, "--out", tmp_path / "pairs.txt")
    assert (refused.code, "must end in .html" in refused.err) == (2, True)
    assert "no quartet was sampled" in nngen("coverage", "empty", "--archive", archive).out


def test_coverage_of_a_folder_of_plans(nngen, tmp_path):
    for place, experts in enumerate((("A", "B", "C", "D"), ("A", "B", "C", "E"))):
        (tmp_path / f"{place}.toml").write_text(to_toml(Plan(experts=experts)))
    (tmp_path / "notes.txt").write_text("not a plan")
    audit = json.loads(nngen("coverage", tmp_path, "--json").out)
    assert (audit["quartets"], audit["anchors"]) == (2, ["A", "B", "C"])
    wider = json.loads(nngen("coverage", tmp_path, "--families", "A,B,C,D,E,F", "--json").out)
    assert wider["absent"] == ["F"]
    narrower = nngen("coverage", tmp_path, "--families", "A,B,C,D", "--json")
    assert (json.loads(narrower.out)["quartets"], narrower.code) == (1, 0)
    assert "nngen: 1 quartet with other families left out\n" in narrower.err


def test_coverage_refuses_in_one_line(nngen, archive, tmp_path):
    (tmp_path / "none").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.toml").write_text("experts = [")
    for tokens, says in (
        ((), "say what to measure"),
        (("--sampler", "random"), "--size"),
        (("nope", "--archive", archive), "no campaign 'nope'"),
        ((tmp_path / "none",), "holds no plan"),
        ((tmp_path / "broken",), "x.toml cannot be read"),
        (("first", "--pool", "9", "--archive", archive), "--pool goes with --sampler"),
        (("first", "--size", "-1", "--archive", archive), "--size must be a whole number from 1"),
        ((archive,), "is a file: name a campaign"),
        (("--sampler", "adaptive", "--size", "4", "--pool", "9"), "no fixed order"),
        (("--sampler", "lexicografic", "--size", "4", "--pool", "9"), "did you mean lexicographic?"),
    ):
        result = nngen("coverage", *tokens)
        assert (result.code, result.out) == (2, ""), says
        assert says in result.err
        assert len(result.err.splitlines()) == 1


def test_effects_of_a_campaign(nngen, archive):
    found = json.loads(nngen("effects", "first", "--archive", archive, "--json").out)
    best = found["families"][0]
    assert best["family"] == "F0"
    assert best["interval"]["low"] > 0
    assert any("F6" in note for note in found["notes"])
    assert found["low_yield"][0]["family"] == "F6"
    text = nngen("effects", "--archive", archive)
    assert text.code == 0
    assert "low-yield: F6: 0 of" in text.out


def test_effects_of_nothing_and_refusals(nngen, archive):
    empty = nngen("effects", "empty", "--archive", archive)
    assert empty.code == 0
    assert "no trial is finished" in empty.out
    assert "no campaign 'frist'" in nngen("effects", "frist", "--archive", archive).err
    for tokens, says in (
        (("--confidence", "95"), "must be a number above 0 and below 1"),
        (("--pairs", "-1"), "--pairs must be a whole number from 0"),
        (("--rung", "-1"), "--rung must be a whole number from 0"),
        (("--rung", "2"), "the rungs of these trials are 0"),
    ):
        result = nngen("effects", "first", *tokens, "--archive", archive)
        assert (result.code, result.out) == (2, ""), says
        assert says in result.err


def test_cost_of_a_campaign_with_what_is_left_and_what_comes_next(nngen, archive):
    found = json.loads(
        nngen("cost", "first", "--price-per-hour", "2", "--forecast", "10", "--archive", archive, "--json").out
    )
    assert found["total"]["hours"] == pytest.approx(0.3)
    assert found["total"]["money"] == pytest.approx(0.6)
    assert found["remaining"]["trials"] == 2
    assert found["forecast"]["hours"] == pytest.approx(0.1, rel=0.05)
    assert found["forecast"]["unmeasured"] == ["F6"]
    text = nngen("cost", "first", "--archive", archive)
    assert "remaining: 2 trials" in text.out


def test_cost_refuses_in_one_line(nngen, archive):
    assert (
        "must be a number of at least 0" in nngen("cost", "first", "--price-per-hour", "-1", "--archive", archive).err
    )
    assert (
        "--forecast must be a whole number from 1"
        in nngen("cost", "first", "--forecast", "0", "--archive", archive).err
    )
    adaptive = nngen("cost", "first", "--forecast", "9", "--sampler", "adaptive", "--archive", archive)
    assert (adaptive.code, "no fixed order" in adaptive.err) == (2, True)
    assert "nothing to forecast from" in nngen("cost", "empty", "--forecast", "9", "--archive", archive).err
    assert "no cost can be computed yet" in nngen("cost", "empty", "--archive", archive).out


@pytest.mark.parametrize("command", ["sample", "coverage", "effects", "cost"])
def test_help_ends_with_examples(nngen, command):
    result = nngen(command, "--help")
    assert result.code == 0
    assert result.out.startswith(f"Usage: nngen {command}")
