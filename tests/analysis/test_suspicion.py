"""Trials whose accuracy is too good to be compared: found, and marked in every listing."""

import json
from dataclasses import replace

import pytest

from nngen.analysis.effects import effects
from nngen.analysis.leaderboard import leaderboard
from nngen.analysis.loop_report import read_cycle
from nngen.analysis.observations import observe
from nngen.analysis.report import collect, render
from nngen.analysis.suspicion import stored_suspicions, suspicions
from nngen.archive import Archive, TrialLine, TrialState
from nngen.campaign.summary import summarise
from nngen.llm.proposals.parents import at_fidelity, top_parents
from nngen.testing.fakes import FakeEngine
from nngen.testing.fakes import fake_campaign as campaign
from nngen.types import Outcome


def line(number, accuracy, suspect="", candidate=None):
    return TrialLine(
        id=number,
        campaign="one",
        position=number,
        rung=0,
        replicate=0,
        state=TrialState.DONE,
        experts=("A", "B", "C", "D"),
        candidate_id=candidate or f"c{number}",
        outcome=Outcome.VALID,
        validation_accuracy=accuracy,
        seed=0,
        suspect=suspect,
    )


def lines(*accuracies):
    return [line(number, accuracy) for number, accuracy in enumerate(accuracies)]


def test_a_stored_reason_stands_whatever_the_others_reached():
    trials = [line(0, 0.4, suspect="2 passes in epoch 1"), line(1, 0.5)]
    assert suspicions(trials) == {0: "2 passes in epoch 1"}


@pytest.mark.parametrize(
    ("accuracies", "suspect"),
    [
        ((0.98, 0.45, 0.44, 0.40, 0.41, 0.42), {0}),
        ((0.54, 0.45, 0.44, 0.40, 0.41, 0.42), set()),  # not a gap of 0.1
        ((0.98, 0.70, 0.44, 0.40, 0.41, 0.42), set()),  # the others are as far apart
        ((0.98, 0.45, 0.44, 0.40, 0.41), set()),  # too few to compare with
        ((0.98, 0.97, 0.44, 0.40, 0.41, 0.42), set()),  # two of six are not an exception
        ((0.98, 0.97, *[0.40] * 18), {0, 1}),
        ((0.98, 0.97, 0.96, *[0.40] * 18), set()),
        ((None, 0.98, 0.45, 0.44, 0.40, 0.41, 0.42), {1}),
        # Against the distance to the median, which of seven is the fifth with the best: three times, not four.
        ((0.95, 0.6, 0.6, 0.5, 0.5, 0.4, 0.4), {0}),
        ((0.9, 0.6, 0.6, 0.6, 0.45, 0.4, 0.4), set()),
        ((0.9, 0.6, 0.6, 0.45, 0.4, 0.4), set()),
        ((0.1, 0.0, 0.0, 0.0, 0.0, 0.0), set()),  # a gap of 0.1 and no more
        ((0.4,) * 20, set()),
        ((), set()),
    ],
)
def test_what_stands_far_above_all_others_is_suspect(accuracies, suspect):
    found = suspicions(lines(*accuracies))
    assert set(found) == suspect
    below = max((value for place, value in enumerate(accuracies) if place not in suspect and value), default=0.0)
    assert set(found.values()) <= {f"far above every other trial, of which the best has {below:.4f}"}


def test_seeds_of_one_candidate_do_not_vouch_for_each_other():
    trials = lines(0.98, 0.45, 0.44, 0.40, 0.41, 0.42)
    assert set(suspicions([*trials, line(6, 0.97, candidate="c0"), line(7, 0.3, candidate="c1")])) == {0, 6}


def test_a_trial_without_a_candidate_is_compared_and_not_compared_with():
    trials = [line(number, 0.98)._replace(candidate_id=None) for number in range(5)]
    assert set(suspicions([*trials, *lines(0.97, 0.45, 0.44, 0.40, 0.41, 0.42)[1:], line(9, 0.4)])) == set()
    found = suspicions([line(9, 0.98)._replace(candidate_id=None), *lines(0.97, 0.45, 0.44, 0.40, 0.41, 0.42)])
    assert set(found) == {0, 9}


def test_stored_trials_are_compared_with_their_campaign_and_rung():
    asked = []
    rungs = {
        "one": [*lines(0.98, 0.45, 0.44, 0.40, 0.41, 0.42), *(line(20 + n, 0.98)._replace(rung=1) for n in range(5))],
        "two": [one._replace(campaign="two") for one in lines(0.5, 0.45, 0.44, 0.40, 0.41, 0.42)],
    }

    def known(campaign, *, brief):
        asked.append((campaign, brief))
        return rungs[campaign]

    untrained = line(50, None)._replace(campaign="none")
    trials = [rungs["one"][0], rungs["one"][1], rungs["one"][6], rungs["two"][0], untrained]
    assert stored_suspicions(known, trials) == {0: "far above every other trial, of which the best has 0.4500"}
    assert asked == [("one", True), ("one", True), ("two", True)]


class Cheating(FakeEngine):
    """Engine whose first candidate is too good, by its own report or beside the others."""

    def __init__(self, reason):
        super().__init__()
        self.reason = reason

    def train(self, job, on_epoch=None):
        trial = super().train(job, on_epoch)
        best = len(self.trained) == 1
        accuracy = 0.99 if best else 0.3 + trial.validation_accuracy / 100
        return replace(trial, validation_accuracy=accuracy, suspect=self.reason if best else "")


@pytest.fixture(params=["perfect on both splits", ""], ids=["stored", "beside the others"])
def cheated(request, tmp_path):
    with Archive.open(tmp_path / "a.db") as archive:
        campaign(archive, size=8, engine=Cheating(request.param)).run()
        yield archive, request.param or "far above every other trial, of which the best has 0.3"


def test_the_best_is_named_with_the_reason(cheated, monkeypatch):
    archive, reason = cheated
    summary = summarise(archive, "one")
    assert summary.suspect.startswith(reason)
    assert summary.to_dict()["best"]["suspect"] == summary.suspect
    rows = leaderboard(archive.trials("one"))
    assert rows[0].validation_accuracy == 0.99
    assert [bool(row.suspect) for row in rows] == [True] + [False] * 7
    assert set(stored_suspicions(archive.lines, archive.trials("one"))) == {summary.best.id}
    monkeypatch.setattr("nngen.analysis.figure_style.plotly_script", str)
    page = render(collect(archive, "one"))
    assert f"Best mixture, suspect: {reason}" in page
    assert "<th>suspect</th>" in page


def test_commands_name_the_reason(cheated, nngen):
    archive, reason = cheated
    place = ("--archive", str(archive.path))
    best = summarise(archive, "one").best.candidate_id
    for command in (("campaign", "status", "one"), ("campaign", "ls"), ("leaderboard",), ("show", best)):
        shown = " ".join(nngen(*command, *place).out.split())
        assert "suspect" in shown and reason[:8] in shown, command
    assert json.loads(nngen("leaderboard", "--json", *place).out)[0]["suspect"].startswith(reason)


def test_what_is_not_suspect_gets_no_column(archive_of_six, nngen):
    for command in (("campaign", "ls"), ("leaderboard",), ("campaign", "status", "one")):
        assert "suspect" not in nngen(*command, "--archive", str(archive_of_six.path)).out


@pytest.fixture
def archive_of_six(tmp_path):
    with Archive.open(tmp_path / "honest.db") as archive:
        campaign(archive).run()
        yield archive


def test_a_suspect_trial_is_no_parent_and_counts_in_no_cycle(cheated):
    archive, _ = cheated
    trials = archive.trials("one")
    alike = at_fidelity(trials, trials[0].fidelity)
    assert len(alike) == 7
    assert summarise(archive, "one").best.candidate_id not in {row.id for row in top_parents(archive, alike, 8)}
    cycle = read_cycle(archive, "loop", 0, "one", trials, (), None)
    assert (len(cycle.accuracies), cycle.left_out) == (7, 1)
    assert cycle.best < 0.4


def test_effects_leave_suspect_accuracies_out(cheated):
    archive, _ = cheated
    observed = observe(archive.lines("one"))
    found = effects(observed)
    assert [line.accuracy for line in observed if line.suspect] == [0.99]
    assert found.trained == len(observed) == 8  # it was trained, though nobody can compare it
    assert found.mean_accuracy < 0.4
    assert found.notes[0].startswith("1 trial with a suspect accuracy left out")
    honest = effects([line for line in observed if not line.suspect], [row.family for row in found.families])
    assert {row.family: row.point for row in found.families} == {row.family: row.point for row in honest.families}


def test_a_table_of_suspect_accuracies_alone_explains_nothing():
    trials = [trial._replace(suspect="perfect on validation and test") for trial in lines(1.0, 1.0)]
    found = effects(observe(trials))
    assert found.mean_accuracy is None
    assert found.notes == ("2 trials with a suspect accuracy left out: nngen leaderboard gives the reason",)
    assert {row.reason for row in found.families} == {"no quartet has an accuracy that can be compared"}
