"""Summaries and the status of campaigns, whole, and the trial that is called the best."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from statistics import fmean

import pytest

from nngen.archive import TrialLine, TrialState
from nngen.assembly.identity import TEMPLATE_VERSION
from nngen.campaign.budget import Budget, Usage
from nngen.campaign.protocols import GivenCandidates, Suggestion
from nngen.campaign.summary import Status, _best, _suspicion, read_status, reveal_test, summarise
from nngen.errors import UsageError
from nngen.plan import Plan
from nngen.testing.fakes import FakeEngine, fake_assemble, fake_campaign, fake_dataset, fake_inputs, fake_record
from nngen.types import Outcome, Verdict


def line(number: int, accuracy: float | None = None, **changes: object) -> TrialLine:
    """Make a trial that is done, with an accuracy or without one."""
    plain: dict[str, object] = {"campaign": "one", "position": number, "rung": 0, "replicate": 0}
    plain |= {"state": TrialState.DONE, "experts": (), "candidate_id": str(number), "outcome": Outcome.VALID}
    plain |= {"seed": 0, "suspect": ""}
    return TrialLine(id=number, validation_accuracy=accuracy, **plain | changes)


def test_a_quartet_is_covered_when_its_trial_is_done(archive):
    fake_campaign(archive, size=9, budget=Budget(max_trials=4)).run()
    done = {trial.experts for trial in archive.trials("one", state=TrialState.DONE)}
    found = summarise(archive, "one").coverage
    assert (found.quartets, len(done), len(archive.trials("one"))) == (4, 4, 9)
    assert found.families == {name: sum(name in quartet for quartet in done) for name in "ABCDEFG"}


def test_a_whole_summary_as_json(archive):
    run = fake_campaign(
        archive,
        size=12,
        epochs=3,
        rungs=(1, 3),
        finalists=2,
        replicates=3,
        engine=FakeEngine(trials={"G": Outcome.MEMORY}),
        inputs=fake_inputs(left_out={"H": "too deep"}),
        budget=Budget(max_trials=14),
    )
    run.run()
    found = summarise(archive, "one")
    trials = archive.trials("one")
    on = [[trial for trial in trials if trial.rung == rung] for rung in (0, 1)]
    best = max(on[1], key=lambda trial: trial.validation_accuracy or 0)
    outcomes = Counter(trial.outcome.value for trial in trials if trial.outcome)
    memory = outcomes["memory"]
    assert outcomes == {"valid": 14 - memory, "memory": memory} and memory > 2
    assert json.loads(json.dumps(found.to_dict())) == {
        "campaign": "one",
        "trials": 12 + 4 + 2 * 2,
        "ready": 2,
        "running": 0,
        "done": 14,
        "failed": memory,
        "outcomes": outcomes,
        "share": 12 / 35,
        "verdict": found.coverage.verdict,
        "best": {
            "id": best.candidate_id,
            "experts": list(best.experts),
            "validation_accuracy": best.validation_accuracy,
            "test_accuracy": None,
            "suspect": "",
        },
        "baseline_accuracies": found.baselines.to_dict(),
        "over": False,
        "rungs": [
            {
                "epochs": 1,
                "trials": 12,
                "done": 12,
                "promoted": 4,
                "best": max(t.validation_accuracy or 0 for t in on[0]),
            },
            {"epochs": 3, "trials": 4, "done": 2, "promoted": 0, "best": best.validation_accuracy},
        ],
        "finalists": [],
        "left_out": {"H": "too deep"},
        "template_versions": {"1": 12},
        "replayed": {},
    }
    assert found.baselines.majority == pytest.approx(0.1)
    assert (found.best, found.suspect, found.templates) == (best, "", "")

    brief = summarise(archive, "one", brief=True)
    assert (brief.coverage, brief.template_versions, brief.baselines.majority) == (None, {}, None)
    assert replace(
        brief, coverage=found.coverage, template_versions=found.template_versions, baselines=found.baselines
    ) == replace(found, best=brief.best)

    replace(run, budget=Budget()).run()
    over = summarise(archive, "one")
    assert (over.over, over.total, over.done, over.planned) == (True, 20, 20, 20)
    seeds = {
        p: [t for t in archive.trials("one") if (t.position, t.rung) == (p, 1)] for p in {t.position for t in on[1]}
    }
    means = {p: fmean(t.validation_accuracy for t in same) for p, same in seeds.items() if len(same) == 3}
    assert [(row.seeds, row.validation_accuracy) for row in over.finalists] == [
        (3, pytest.approx(mean)) for mean in sorted(means.values(), reverse=True)
    ]


def test_before_its_first_trial_a_campaign_has_no_best_one(archive):
    archive.add_campaign(fake_record("one", size=3, pool=dict.fromkeys("ABCDE", "x")), [])
    found = summarise(archive, "one")
    assert (found.best, found.total, found.done, found.failed, found.over) == (None, 3, 0, 0, False)
    assert found.coverage.quartets == 0
    archive.add_campaign(fake_record("two", size=3), [])
    assert summarise(archive, "two").coverage is None
    assert summarise(archive, "two").to_dict()["share"] is summarise(archive, "two").to_dict()["verdict"] is None


def test_the_best_candidate_has_the_most_seeds_then_the_highest_mean_then_the_lowest_number():
    one, two, three = [line(1, 0.5), line(11, 0.7)], [line(2, 0.6), line(12, 0.6)], [line(3, 0.9), line(13)]
    assert _best([three, two, one]) is one
    assert _best([one, three, [line(4, 0.9)]]) is one
    assert _best([three, [line(4, 0.95)]])[0].id == 4
    assert _best([two[:1], [line(1, 0.6)]])[0].id == 1
    assert _best([]) == ()


def test_the_best_is_suspect_by_its_own_reason_or_far_above_the_trials_of_its_rung():
    others = [line(number, 0.3 + number / 1000) for number in range(1, 21)]
    far = line(21, 0.99)
    assert _suspicion([far], [*others, far]) == "far above every other trial, of which the best has 0.3200"
    assert _suspicion([others[0]], [*others, far]) == ""
    assert _suspicion([far._replace(rung=1)], [*others, far._replace(rung=1)]) == ""
    told = others[3]._replace(suspect="2 passes in epoch 1")
    assert _suspicion([others[0], told], [*others[:3], told]) == "2 passes in epoch 1"
    assert _suspicion([], others) == ""


def test_a_test_accuracy_is_computed_from_predictions_of_all_images_and_once(archive):
    fake_campaign(archive, reveal=False, size=7, engine=FakeEngine(trials={"G": Outcome.MEMORY})).run()
    labels = fake_dataset().test_labels.astype("<u2")
    trained = [trial for trial in archive.trials("one") if trial.trained]
    failed = next(trial for trial in archive.trials("one") if not trial.trained)
    assert reveal_test(archive, failed, labels.tobytes()) is None
    assert reveal_test(archive, trained[0], labels[:-1].tobytes()) is None
    found = reveal_test(archive, trained[0], labels.tobytes())
    right = archive.predictions(trained[0].id, "test")
    assert found == pytest.approx(sum(right[2 * i] == label for i, label in enumerate(labels)) / len(labels))
    again = archive.trial(trained[0].id)
    assert again.test_accuracy == found == reveal_test(archive, again, (labels + 1).tobytes())
    assert reveal_test(archive, replace(again, test_accuracy=0.125), labels.tobytes()) == 0.125


@pytest.mark.parametrize(
    ("driver", "paused", "word"), [(None, False, "not being run"), (None, True, "not being run"), (7, True, "paused")]
)
def test_the_status_in_a_word_and_as_json(driver, paused, word):
    spent = Usage(trials=6, hours=1.5, cost=3.0)
    status = Status(
        driver=driver,
        paused=paused,
        budget=Budget(max_trials=9, price_per_hour=2.0),
        spent=spent,
        per_hour=4.0,
        promotions=1,
        lost=2,
    )
    assert status.word == word
    assert status.to_dict() == {
        "driver": driver,
        "paused": paused,
        "per_hour": 4.0,
        "promotions": 1,
        "lost": 2,
        "budget": {"max_trials": 9, "price_per_hour": 2.0},
        "spent": {"trials": 6, "hours": 1.5, "cost": 3.0},
    }


def test_the_status_of_a_campaign_that_a_driver_paused(archive):
    archive.add_campaign(fake_record("one"), [])
    assert read_status(archive, "one").per_hour is None
    with archive.lock("one"):
        assert (read_status(archive, "one").paused, read_status(archive, "one").word) == (False, "running")
        for kind, paused in (("paused", True), ("continued", False), ("paused", True), ("resumed", False)):
            archive.log(f"campaign.{kind}", campaign="one")
            assert read_status(archive, "one").paused is paused
        archive.log("campaign.paused", campaign="one")
    assert (read_status(archive, "one").paused, read_status(archive, "one").word) == (False, "not being run")
    archive.log("budget.set", campaign="one", max_trials=5)
    archive.log("trial.requeued", campaign="one")  # at the end of a driver
    for reason in ("lost", "killed"):
        archive.log("trial.requeued", campaign="one", reason=reason)
    status = read_status(archive, "one")
    assert (status.budget, status.lost, status.promotions) == (Budget(max_trials=5), 2, 0)


def test_trials_that_a_table_answered_are_counted_by_rule(archive):
    class Table(FakeEngine):
        def train(self, job, on_epoch=None):
            return replace(super().train(job, on_epoch), verdict=Verdict(outcome=Outcome.VALID, rule="table.recorded"))

    assert fake_campaign(archive, engine=Table()).run().to_dict()["replayed"] == {"table.recorded": 6}


def test_no_rate_without_a_trial_however_long_it_ran(archive):
    archive.add_campaign(fake_record("one"), [])
    archive.log("budget.clock", campaign="one", seconds=7200.0)
    status = read_status(archive, "one")
    assert (status.spent, status.per_hour) == (Usage(trials=0, hours=2.0, cost=None), None)


OLDER = f"candidates assembled with older templates: 2 with version {TEMPLATE_VERSION + 1}"
OPEN = f"; open quartets are assembled with version {TEMPLATE_VERSION}"


@pytest.mark.parametrize(("given", "budget", "note"), [(False, 2, OLDER + OPEN), (True, 2, ""), (False, 9, "")])
def test_older_templates_are_noted_while_quartets_are_to_be_assembled(archive, given, budget, note):
    def older(plan, experts):
        return replace(fake_assemble(plan, experts), template_version=TEMPLATE_VERSION + 1)

    run = fake_campaign(archive, size=3 if budget == 2 else 2, assemble=older, budget=Budget(max_trials=budget))
    if given:
        made = [older(Plan(experts=tuple(f"{name}BCD")), ()) for name in "EFG"]
        made = [replace(one, id=one.plan.experts[0], canonical=one.plan.experts[0]) for one in made]
        suggestions = tuple(Suggestion(plan=one.plan, candidate=one) for one in made)
        run = replace(run, source=GivenCandidates(suggestions=suggestions))
    run.run()
    assert summarise(archive, "one").templates == note


def test_finalists_are_listed_once_one_of_them_has_a_second_seed(archive):
    run = fake_campaign(archive, finalists=2, replicates=2, budget=Budget(max_trials=6))
    assert run.run().finalists == ()
    assert sorted(row.seeds for row in replace(run, budget=Budget(max_trials=7)).run().finalists) == [1, 2]
    assert [row.seeds for row in replace(run, budget=Budget()).run().finalists] == [2, 2]


def test_a_campaign_that_does_not_exist_has_no_status(archive):
    archive.add_campaign(fake_record("one"), [])
    with pytest.raises(UsageError, match="did you mean one"):
        read_status(archive, "onne")
