"""Trials that are ended early: which, at what gain, and at what cost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fake_lemur import source

from nngen.analysis.ranking.early_stop import EarlyStop, EndedEarlyError, is_ended, saving
from nngen.analysis.report import collect
from nngen.archive import Archive
from nngen.campaign_spec import CampaignSpec
from nngen.errors import UsageError
from nngen.testing.fakes import fake_campaign
from nngen.types import EpochResult, Outcome, Shape

STEPS = {"size": 35, "epochs": 8, "rungs": (4, 8), "reduction_factor": 5}


def first_rung(archive, name="one"):
    return [trial for trial in archive.trials(name) if trial.rung == 0]


def test_the_same_candidates_go_on_as_without_it(archive):
    fake_campaign(archive, **STEPS, stop_early=True).run()
    ended = [trial for trial in first_rung(archive) if is_ended(trial)]
    assert len(ended) >= 10
    for trial in ended:
        assert (trial.outcome, len(trial.curve) < 4) == (Outcome.VALID, True)
        assert trial.validation_accuracy == trial.curve[-1].validation_accuracy
        assert trial.suspect.startswith(f"ended early after epoch {len(trial.curve)} of 4: at most 0.")
    whole = [trial for trial in first_rung(archive) if not is_ended(trial)]
    assert {len(trial.curve) for trial in whole} == {4} and len(whole) >= 10
    with Archive.in_memory() as other:
        fake_campaign(other, **STEPS).run()
        assert went_on(archive) == went_on(other)
    found = saving(fake_campaign(archive, **STEPS, stop_early=True).spec, archive.trials("one"))
    assert (found.ended, found.tested, found.wrong, found.regret) == (len(ended), len(whole), 0, 0.0)
    assert found.saved_s == pytest.approx(0.5 * sum(4 - len(trial.curve) for trial in ended))
    assert found.sentence in collect(archive, "one").limits


def went_on(archive):
    return {trial.position for trial in archive.trials("one") if trial.rung == 1}


def test_a_result_that_was_cut_short_is_not_taken_over_by_another_campaign(archive):
    fake_campaign(archive, **STEPS, stop_early=True).run()
    fake_campaign(archive, name="whole", **STEPS).run()
    assert not any(is_ended(trial) for trial in archive.trials("whole"))
    assert {len(trial.curve) for trial in first_rung(archive, "whole")} == {4}


def test_a_resumed_campaign_decides_by_its_archive(archive):
    fake_campaign(archive, **STEPS, stop_early=True).run()
    spec = fake_campaign(archive, **STEPS, stop_early=True).spec
    again, fresh = EarlyStop(spec, archive.trials("one")), EarlyStop(spec)
    for trial in archive.trials("one"):
        fresh.finish(trial)
    for accuracies in ([0.0], [0.1, 0.2], [0.25]):
        assert again.reason(0, accuracies) == fresh.reason(0, accuracies)
    assert again.reason(0, [0.0]) and again.reason(1, [0.0]) is None


def test_noise_ends_few_of_those_that_go_on():
    """Of noisy made-up trainings, under a tenth of those that would go on are ended."""
    spec = CampaignSpec(name="x", size=200, shape=Shape(1, 8, 8), epochs=10, rungs=(5, 10), stop_early=True)
    random = np.random.default_rng(0)
    with Archive.in_memory() as archive:
        fake_campaign(archive, size=1).run()
        model = archive.trials("one")[0]
    trials = []
    for place in range(200):
        own = random.normal(0.5, 0.05)
        curve = tuple(
            EpochResult(epoch=e, validation_accuracy=float(own + random.normal(0, 0.03)), seconds=1.0)
            for e in range(1, 6)
        )
        last = curve[-1].validation_accuracy
        trials.append(replace(model, id=place, position=place, curve=curve, validation_accuracy=last))
    rule, ended = EarlyStop(spec), set()
    for place, trial in enumerate(trials):
        accuracies = [point.validation_accuracy for point in trial.curve]
        if any(rule.reason(0, accuracies[:epoch]) for epoch in range(1, 5)):
            ended.add(place)
            trial = replace(trial, suspect="ended early after epoch 1 of 5")
        rule.finish(trial)
    ranked = sorted(range(200), key=lambda place: -trials[place].validation_accuracy)
    best = set(ranked[: 200 // spec.reduction_factor])
    assert len(ended) > 20
    assert len(ended & best) <= 6


def test_refused_without_rungs_to_go_on_to():
    for rungs in ((), (3,), (1, 9)):
        with pytest.raises(UsageError, match="--stop-early ends trials that do not go on"):
            CampaignSpec(
                name="x", size=9, shape=Shape(1, 8, 8), epochs=rungs[-1] if rungs else 9, rungs=rungs, stop_early=True
            )


def test_a_worker_ends_with_its_training(engine, job):
    seen = []

    def end(result):
        seen.append(result.epoch)
        raise EndedEarlyError("enough")

    with pytest.raises(EndedEarlyError, match="enough"):
        engine.train(job(source(8), epochs=500), end)
    assert seen == [1]
    assert engine.train(job(source(8))).verdict.valid
