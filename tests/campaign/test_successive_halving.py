"""Promotions of successive halving."""

import os
from dataclasses import replace
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nngen.analysis.report import collect
from nngen.archive import Archive, TrialLine, TrialState
from nngen.archive.records import Promotion
from nngen.campaign.budget import Budget
from nngen.campaign.selection import source_of
from nngen.campaign.successive_halving import Ladder, Workload, is_over, planned, promotions, workload
from nngen.campaign.summary import read_status, summarise
from nngen.campaign_spec import CampaignSpec
from nngen.errors import UsageError
from nngen.seeds import derive
from nngen.testing.fakes import FakeEngine
from nngen.testing.fakes import fake_campaign as campaign
from nngen.types import Outcome, Shape

RUNGS = {"size": 12, "epochs": 9, "rungs": (1, 3, 9)}


def essence(archive):
    return [replace(trial, started_at=None, finished_at=None) for trial in archive.trials("one")]


def on_rung(archive, rung):
    return [trial for trial in archive.trials("one") if trial.rung == rung and trial.replicate == 0]


def test_the_best_of_each_rung_go_on(archive):
    summary = campaign(archive, **RUNGS).run()
    assert [(rung.epochs, rung.trials, rung.promoted) for rung in summary.rungs] == [(1, 12, 4), (3, 4, 1), (9, 1, 0)]
    assert summary.total == sum(planned(campaign(archive, **RUNGS).spec)) == 17
    best = sorted(on_rung(archive, 0), key=lambda trial: -trial.validation_accuracy)
    assert {trial.position for trial in on_rung(archive, 1)} == {trial.position for trial in best[:4]}
    for trial in archive.trials("one"):
        assert len(trial.curve) == trial.spec.epochs == (1, 3, 9)[trial.rung]
        assert trial.spec.seed == derive(0, "trial", trial.candidate_id)
    assert summary.best == replace(on_rung(archive, 2)[0], test_accuracy=summary.best.test_accuracy)
    assert summary.best.test_accuracy is not None
    assert sum(trial.test_accuracy is not None for trial in archive.trials("one")) == 1


def test_promotions_are_recorded_with_their_reason(archive):
    campaign(archive, **RUNGS).run()
    first = next(event for event in archive.events("one") if event.kind == "trial.promoted")
    trial = archive.trial(first.trial_id)
    told = {"by": "halving", "rank": 1, "of": 12, "epochs": 3, "rung": 1, "replicate": 0}
    assert first.detail == told | {"validation_accuracy": trial.validation_accuracy}
    assert sum(event.kind == "trial.promoted" for event in archive.events("one")) == 5
    status = read_status(archive, "one")
    assert (status.promotions, status.lost, status.paused, status.driver) == (5, 0, False, None)
    assert status.per_hour == pytest.approx(17 / status.spent.hours)
    assert status.to_dict()["spent"] == {"trials": 17, "hours": status.spent.hours, "cost": None}


def test_each_candidate_is_checked_once(archive):
    class Checking(FakeEngine):
        checked = 0

        def check(self, *args, **kwargs):
            Checking.checked += 1
            return super().check(*args, **kwargs)

    campaign(archive, engine=Checking(), **RUNGS).run()
    assert Checking.checked == 12


def test_failed_candidates_are_not_promoted(archive):
    summary = campaign(archive, engine=FakeEngine(trials={"A": Outcome.MEMORY}), **RUNGS).run()
    assert on_rung(archive, 1)
    assert all(trial.trained for trial in on_rung(archive, 1))
    assert summary.total == len(archive.trials("one"))
    with Archive.in_memory() as other:
        engine = FakeEngine(checks=dict.fromkeys("ABCDEFG", Outcome.SHAPE))
        assert campaign(other, engine=engine, **RUNGS).run().total == 12


def test_a_small_rung_still_sends_one_on(archive):
    campaign(archive, size=2, rungs=(1, 2), epochs=2).run()
    assert len(on_rung(archive, 1)) == 1


def test_asha_goes_on_before_a_rung_is_complete(archive):
    campaign(archive, scheduler="asha", **RUNGS).run()
    kinds = [event.kind for event in archive.events("one")]
    early = [
        archive.trial(event.trial_id)
        for event in archive.events("one")[: len(kinds) - 1 - kinds[::-1].index("trial.started")]
        if event.kind == "trial.promoted"
    ]
    assert early
    for rung in (0, 1):
        assert len(on_rung(archive, rung + 1)) >= len(on_rung(archive, rung)) // 3
    assert len(on_rung(archive, 2)) >= 1
    assert is_over(archive.campaign("one").spec, archive.trials("one"))


@pytest.mark.parametrize("more", [{}, {"finalists": 2, "replicates": 3}])
@pytest.mark.long
def test_killed_between_rungs_it_decides_the_same(tmp_path, more):
    with Archive.open(tmp_path / "whole.db") as whole:
        campaign(whole, **RUNGS, **more).run()
        wanted = essence(whole)
    for boundary in range(130, 420, 29):
        path = tmp_path / f"{boundary}.db"
        child = os.fork()
        if child == 0:
            left = boundary

            def trace(statement):
                nonlocal left
                left -= statement.startswith(("BEGIN", "INSERT", "UPDATE", "COMMIT"))
                if left < 0:
                    os._exit(9)

            with Archive.open(path) as archive:
                archive._db.set_trace_callback(trace)
                campaign(archive, **RUNGS, **more).run()
            os._exit(0)
        os.waitpid(child, 0)
        with Archive.open(path) as archive:
            campaign(archive, **RUNGS, **more).run()
            assert essence(archive) == wanted, boundary


def test_finalists_are_trained_with_other_seeds_and_chosen_by_their_mean(archive):
    summary = campaign(archive, finalists=3, replicates=4).run()
    seeds = {}
    for trial in archive.trials("one"):
        seeds.setdefault(trial.position, []).append(trial)
    again = {position: trials for position, trials in seeds.items() if len(trials) > 1}
    assert {len(trials) for trials in again.values()} == {4}
    assert len(again) == 3
    first = sorted((t for t in archive.trials("one") if not t.replicate), key=lambda t: -t.validation_accuracy)
    assert {trial.position for trial in first[:3]} == set(again)
    assert all(len({trial.spec.seed for trial in trials}) == 4 for trials in again.values())
    means = {position: fmean(t.validation_accuracy for t in trials) for position, trials in again.items()}
    assert summary.best.position == max(means, key=means.get)
    rows = summary.finalists
    assert [row.seeds for row in rows] == [4, 4, 4]
    assert rows[0].validation_accuracy == pytest.approx(max(means.values()))
    assert rows[0].validation_std > 0
    revealed = [trial for trial in archive.trials("one") if trial.test_accuracy is not None]
    assert {trial.position for trial in revealed} == {summary.best.position}
    assert len(revealed) == 4
    assert rows[0].test_accuracy == pytest.approx(fmean(trial.test_accuracy for trial in revealed))


def test_coverage_counts_a_quartet_once(archive):
    assert campaign(archive, **RUNGS).run().coverage.quartets == 12


def ranked(trials):
    return sorted(trials, key=lambda trial: (-(trial.validation_accuracy or 0.0), trial.position))


def decided_from_scratch(spec, trials):
    """Decide as the page of the algorithm says, from all trials at once: (trial id, rung, rank, trials compared)."""
    first = [trial for trial in trials if not trial.replicate]
    resting = len(first) >= spec.size and all(trial.state is TrialState.DONE for trial in trials)
    for rung in reversed(range(len(spec.fidelities) - 1)):
        here = [trial for trial in first if trial.rung == rung]
        done = [trial for trial in here if trial.state is TrialState.DONE]
        above = {trial.position for trial in first if trial.rung == rung + 1}
        if spec.scheduler == "halving" and (len(done) < len(here) or above):
            continue
        places = len(done) // spec.reduction_factor or int(resting and not above)
        best = ranked(trial for trial in done if trial.trained)[:places]
        if chosen := [trial for trial in best if trial.position not in above]:
            return [(trial.id, rung + 1, ranked(done).index(trial) + 1, len(done)) for trial in chosen]
    return []


@pytest.mark.long
@given(st.data())
@settings(max_examples=30, deadline=None)
def test_kept_up_to_date_the_ladder_decides_as_from_scratch(data):
    scheduler = data.draw(st.sampled_from(["asha", "halving"]))
    spec = CampaignSpec(name="one", shape=Shape(1, 8, 8), scheduler=scheduler, reduction_factor=2, **RUNGS)
    ladder, trials = Ladder(spec), []

    def add(position, rung):
        blank = dict.fromkeys(("candidate_id", "outcome", "validation_accuracy"))
        blank |= {"campaign": "one", "experts": (), "replicate": 0, "seed": 0, "suspect": ""}
        trial = TrialLine(id=len(trials), position=position, rung=rung, state=TrialState.READY, **blank)
        trials.append(trial)
        ladder.add(position, rung)

    for position in range(spec.size):
        add(position, 0)
    while open_ := [trial for trial in trials if trial.state is TrialState.READY]:
        trial = data.draw(st.sampled_from(open_))
        accuracy = data.draw(st.sampled_from([None, 0.0, 0.3, 0.5, 0.9]))
        trials[trial.id] = trial._replace(state=TrialState.DONE, validation_accuracy=accuracy)
        ladder.finish(trials[trial.id])
        for found in (ladder.promotions(), promotions(spec, trials)):
            made = [(p.trial_id, p.rung, p.reason["rank"], p.reason["of"]) for p in found]
            assert made == decided_from_scratch(spec, trials)
        for promotion in ladder.promotions():
            add(trials[promotion.trial_id].position, promotion.rung)
    assert ladder.over


def test_nothing_is_decided_while_a_rung_is_open():
    spec = CampaignSpec(name="one", shape=Shape(1, 8, 8), **RUNGS)
    with Archive.in_memory() as archive:
        campaign(archive, **RUNGS).run()
        trials = [trial for trial in archive.trials("one") if trial.rung == 0]
        assert len(promotions(spec, trials)) == 4
        assert promotions(spec, [*trials[:-1], replace(trials[-1], state=TrialState.RUNNING)]) == ()
        assert not is_over(spec, trials)
        assert summarise(archive, "one").over


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rungs": (3, 1), "epochs": 1}, "--rungs are epochs that rise, as 5,15,45, not 3,1"),
        ({"rungs": (0, 1), "epochs": 1}, "--rungs must be a whole number from 1"),
        ({"rungs": (1, 3), "epochs": 2}, "--epochs 2 and --rungs 1,3 disagree"),
        ({"reduction_factor": 0}, "--reduction-factor"),
        ({"scheduler": "hyperband"}, "no scheduler is called 'hyperband': there are asha, halving"),
        ({"finalists": 2}, "--replicates R"),
        ({"replicates": 2}, "--finalists K"),
        ({"finalists": -1, "replicates": 2}, "--finalists must be a whole number from 0"),
    ],
)
def test_bad_rungs(arguments, words):
    with pytest.raises(UsageError, match=words):
        CampaignSpec(**{"name": "x", "size": 4, "shape": Shape(1, 8, 8)} | arguments)


def test_a_sampler_that_learns_refuses_rungs():
    spec = CampaignSpec(name="x", size=4, shape=Shape(1, 8, 8), rungs=(1, 3), epochs=3, sampler="adaptive")
    with pytest.raises(UsageError, match="another sampler"):
        source_of(spec)


def test_a_campaign_from_before_rungs_can_be_read():
    spec = CampaignSpec(name="x", size=4, shape=Shape(1, 8, 8))
    old = {key: value for key, value in spec.to_dict().items() if key not in ("rungs", "reduction_factor", "scheduler")}
    assert CampaignSpec.from_dict(old) == spec
    assert CampaignSpec.from_dict(CampaignSpec(name="x", shape=Shape(1, 8, 8), **RUNGS).to_dict()).rungs == (1, 3, 9)


def test_a_report_counts_quartets_not_rungs(archive):
    campaign(archive, finalists=1, replicates=2, **RUNGS).run()
    report = collect(archive, "one")
    assert (report.funnel.drawn, report.funnel.trained, report.coverage.quartets) == (12, 12, 12)
    assert max(row.seeds for row in report.rows) == 2


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({}, (12, 4, 1)),
        ({"size": 2}, (2, 1, 1)),
        ({"size": 50, "reduction_factor": 2}, (50, 25, 12)),
        ({"finalists": 5, "replicates": 4}, (12, 4, 1 + 3)),
        ({"size": 30, "finalists": 2, "replicates": 4}, (30, 10, 3 + 2 * 3)),
        ({"rungs": (), "finalists": 2, "replicates": 2}, (12 + 2,)),
    ],
)
def test_trials_that_are_planned_by_rung(changes, counts):
    assert planned(CampaignSpec(**{"name": "one", "shape": Shape(1, 8, 8)} | RUNGS | changes)) == counts


def test_the_work_at_the_start_of_each_driver(archive):
    run = campaign(archive, finalists=1, replicates=3, **RUNGS)
    plain = {"rungs": (1, 3, 9), "continues": False, "seconds_of": None, "typical_s": 1.0}
    whole = 12 * 1 + 4 * 3 + 1 * 9 + 2 * 9
    assert workload(run.spec, ()) == Workload(done=0, trials=12 + 4 + 1 + 2, epochs=whole, **plain)
    replace(run, budget=Budget(max_trials=14)).run()
    trials = archive.trials("one")

    def seconds_of(experts):
        return 5.0 if "A" in experts else 2.0

    open_ = [trial for trial in trials if trial.state is TrialState.READY]
    assert [trial.rung for trial in open_] == [1, 1]
    found = workload(run.spec, trials, seconds_of)
    typical = fmean(seconds_of(trial.experts) for trial in open_)
    assert found == Workload(
        **plain | {"seconds_of": seconds_of, "typical_s": typical}, done=14, trials=19, epochs=whole - 12 - 2 * 3
    )
    replace(run, budget=Budget()).run()
    over = workload(run.spec, archive.lines("one"), seconds_of)
    assert over == Workload(done=19, trials=19, epochs=0, **plain)
    assert workload(replace(run.spec, size=13), archive.lines("one")).trials == 20


def test_failures_leave_less_work_than_was_planned(archive):
    run = campaign(archive, engine=FakeEngine(checks=dict.fromkeys("ABCDEFG", Outcome.SHAPE)), **RUNGS)
    run.run()
    found = workload(run.spec, archive.lines("one"))
    assert (found.done, found.trials, found.epochs) == (12, 12, 0)


def ladder_of(accuracies, **changes):
    spec = CampaignSpec(**{"name": "one", "shape": Shape(1, 8, 8), "size": len(accuracies), "epochs": 3} | changes)
    blank = {"campaign": "one", "experts": (), "replicate": 0, "seed": 0, "suspect": "", "candidate_id": None}
    blank |= {"state": TrialState.DONE, "outcome": Outcome.VALID, "rung": 0}
    return Ladder(
        spec,
        [
            TrialLine(id=10 + place, position=place, validation_accuracy=accuracy, **blank)
            for place, accuracy in enumerate(accuracies)
        ],
    )


def test_decisions_with_their_reasons():
    ladder = ladder_of([0.5, None, 0.9, 0.5, 0.7, 0.1], rungs=(1, 3), reduction_factor=2)
    reason = {"by": "halving", "of": 6, "epochs": 3}
    assert ladder.promotions() == tuple(
        Promotion(trial_id=number, rung=1, reason=reason | {"rank": rank, "validation_accuracy": accuracy})
        for rank, (number, accuracy) in enumerate(((12, 0.9), (14, 0.7), (10, 0.5)), start=1)
    )
    assert (ladder.highest, ladder.finalists, ladder.over) == (frozenset((10, 12, 13, 14, 15)), frozenset(), False)
    finalists = ladder_of([0.5, None, 0.9, 0.7], finalists=2, replicates=3)
    again = [(replicate, rank, number) for replicate in (1, 2) for rank, number in ((1, 12), (2, 13))]
    assert finalists.promotions() == tuple(
        Promotion(
            trial_id=number,
            rung=0,
            replicate=replicate,
            reason={"by": "finalists", "rank": rank, "validation_accuracy": {12: 0.9, 13: 0.7}[number]},
        )
        for replicate, rank, number in again
    )
    assert finalists.finalists == frozenset((12, 13))
    nothing = ladder_of([None, None], finalists=2, replicates=3)
    assert (nothing.promotions(), nothing.highest, nothing.over) == ((), frozenset(), True)


@pytest.mark.parametrize(("scheduler", "order"), [("asha", "0 0 1 0 1 0"), ("halving", "0 0 0 0 1 1")])
def test_with_two_rungs_asha_promotes_at_once_and_halving_after_the_first(archive, scheduler, order):
    steps = {"size": 4, "epochs": 2, "rungs": (1, 2), "reduction_factor": 2}
    campaign(archive, scheduler=scheduler, device="cuda", **steps).run()
    finished = [archive.trial(event.trial_id).rung for event in archive.events("one", kinds=("trial.finished",))]
    assert " ".join(map(str, finished)) == order


def test_more_promotions_than_planned_do_not_make_the_epochs_to_come_negative():
    spec = CampaignSpec(name="one", shape=Shape(1, 8, 8), size=2, epochs=3, rungs=(1, 3), reduction_factor=2)
    blank = {"campaign": "one", "experts": (), "replicate": 0, "seed": 0, "suspect": "", "candidate_id": None}
    blank |= {"outcome": Outcome.VALID, "validation_accuracy": 0.5}
    done, open_ = {"state": TrialState.DONE}, {"state": TrialState.RUNNING}
    places = [(0, 0, done), (1, 0, done), (0, 1, done), (1, 1, open_)]
    trials = [
        TrialLine(id=number, position=position, rung=rung, **blank | state)
        for number, (position, rung, state) in enumerate(places)
    ]
    assert (workload(spec, trials).epochs, workload(spec, trials[:3]).epochs) == (0, 0)
    assert workload(spec, trials[:2]).epochs == 3
    further = trials[2]._replace(id=4, position=2)
    assert workload(spec, [*trials, further]).epochs == 0
