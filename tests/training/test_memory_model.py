"""Memory model: refusal of trainings that cannot fit, and sharing of a GPU by predictions."""

import threading
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nngen.checks.rules.sample_nets import net_source
from nngen.errors import LemurError
from nngen.families.probe import profiles, training_costs
from nngen.families.profile import TrainingCost
from nngen.plan import Plan, Recipe
from nngen.training import LocalEngine
from nngen.training.memory_model import Prediction, largest_batch, predict, predictor, refusal
from nngen.types import Candidate, Interface, Outcome, Shape, TrialSpec

LIGHT = TrainingCost(weights_mib=4.0, image_mib=2.0, image_s=0.01, step_s=0.1)
HEAVY = TrainingCost(weights_mib=500.0, image_mib=100.0, image_s=1.0, step_s=0.1)
SPEC = TrialSpec(dataset="digits", shape=Shape(1, 32, 32), batch=64, memory_mib=12_288)


def _prediction(weight, spec=SPEC):
    return predict("ABCD", dict.fromkeys("ABCD", weight), spec, 1000)


def test_the_prediction_is_a_sum_over_the_experts():
    prediction = _prediction(LIGHT)
    assert prediction.image_mib == 8.0
    assert prediction.low_mib(64) - prediction.low_mib(32) == 256.0
    assert prediction.low_mib(64) < prediction.likely_mib
    assert prediction.seconds == pytest.approx(1000 * 4 * 0.01 + 16 * 4 * 0.1)
    assert _prediction(LIGHT, replace(SPEC, threads=2, epochs=3)).seconds == pytest.approx(3 * (20 + 6.4))


def test_frozen_experts_keep_nothing_for_a_backward_pass():
    frozen = predict("ABCD", dict.fromkeys("ABCD", LIGHT), SPEC, 1000, frozen=True)
    whole = _prediction(LIGHT)
    assert frozen.low_mib(64) == frozen.fixed_mib == whole.fixed_mib - 3 * 16.0
    assert frozen.fixed_mib < frozen.likely_mib < whole.likely_mib
    assert frozen.seconds == pytest.approx(whole.seconds / 3)


def test_a_family_that_was_not_measured_is_not_predicted():
    assert predict("ABCD", {"A": LIGHT}, SPEC, 1000) is None
    assert predict("", {}, SPEC, 1000) is None


def test_a_training_that_cannot_fit_is_refused_with_figures_and_remedy():
    prediction = _prediction(HEAVY)
    verdict = refusal(prediction, 4096)
    assert verdict.outcome is Outcome.MEMORY
    assert verdict.rule == "predicted"
    assert f"{prediction.low_mib(2):,.0f} MiB at least" in verdict.message
    assert "4,096" in verdict.message
    assert "--memory-mib" in verdict.message


@given(memory=st.integers(512, 65_536), batch=st.integers(2, 512), image=st.floats(0, 1000), fixed=st.floats(0, 50_000))
def test_a_batch_that_could_fit_is_never_refused(memory, batch, image, fixed):
    prediction = Prediction(fixed_mib=fixed, image_mib=image, likely_mib=0, seconds=None)
    chosen = largest_batch(prediction, batch, memory)
    assert 2 <= chosen <= batch
    if prediction.low_mib(batch) <= memory:
        assert refusal(prediction, memory) is None
        assert chosen == batch
    if chosen < batch and 2 * chosen + 1 <= batch:
        assert prediction.low_mib(2 * chosen + 1) > memory


def test_families_are_weighed_and_kept(families, tmp_path, monkeypatch):
    shape = Shape(1, 32, 32)
    pair = [families[name] for name in ("SqueezeNet-1", "ShuffleNet")]
    found = profiles(pair, shape)
    monkeypatch.setenv("NNGEN_CACHE", str(tmp_path))
    own = [(family, found[family.name].interface) for family in pair]
    first = training_costs(own, shape)
    assert 0.1 < first["ShuffleNet"].image_mib < 5
    assert 0 < first["ShuffleNet"].image_s + first["ShuffleNet"].step_s < 5
    assert 4 < first["ShuffleNet"].weights_mib < 12
    monkeypatch.setattr("nngen.families.probe.JobRunner", lambda *_: pytest.fail("measured again"))
    assert training_costs(own, shape) == first


def test_the_engine_refuses_what_cannot_fit(job):
    plan = Plan(experts=("A", "B", "C", "D"))
    heavy = Candidate(id="0" * 32, source=net_source(), canonical="", plan=plan)
    with LocalEngine(predict=lambda *_: _prediction(HEAVY)) as engine:
        trial = engine.train(job(heavy, memory_mib=4096))
    assert (trial.verdict.outcome, trial.verdict.rule) == (Outcome.MEMORY, "predicted")
    assert trial.seconds == 0


@pytest.mark.long
def test_the_engine_begins_with_a_batch_that_can_fit(job):
    large = Prediction(fixed_mib=100, image_mib=10, likely_mib=500, seconds=1.0)
    with LocalEngine(predict=lambda *_: large) as engine:
        trial = engine.train(job(net_source(), memory_mib=640))
    assert trial.verdict.valid, trial.verdict.message
    assert (trial.batch, trial.predicted_mib) == (32, 500)
    assert trial.spec.batch == 64


def test_a_predictor_predicts_plans_of_its_families_alone(candidate):
    assert predictor({})(candidate(""), SPEC, 100) is None
    other = Candidate(id="0" * 32, source="", canonical="", plan=Plan(experts=("A", "B", "C", "D")))
    assert predictor({})(other, SPEC, 100) is None


def test_a_predictor_weighs_where_memory_could_run_out_or_is_shared(families, monkeypatch):
    weighed = []

    def weigh(missing, shape, *, classes, wanted):
        assert (classes, wanted) == (10, "auto")
        weighed.append([family.name for family, _ in missing])
        return {family.name: HEAVY for family, _ in missing}

    monkeypatch.setattr("nngen.training.memory_model.training_costs", weigh)
    names = ("AirNext", "ICNet", "MNASNet", "ShuffleNet")
    known = {name: (families[name], Interface(low=32)) for name in names}
    mixture = Candidate(id="0" * 32, source="", canonical="", plan=Plan(experts=names))
    foretell = predictor(known)
    assert foretell(mixture, SPEC, 1000) is None
    assert weighed == []
    spec = replace(SPEC, shape=Shape(3, 256, 256))
    foretold = predict(names, dict.fromkeys(names, HEAVY), spec, 1000)
    assert foretell(mixture, spec, 1000) == foretell(mixture, spec, 1000) == foretold
    still = replace(mixture, plan=replace(mixture.plan, recipe=Recipe(frozen=True)))
    assert foretell(still, spec, 1000) == predict(names, dict.fromkeys(names, HEAVY), spec, 1000, frozen=True)
    assert foretell(mixture, replace(SPEC, device="cuda"), 1000).seconds is None
    assert weighed == [list(names), [], [], list(names)]


def test_a_family_that_cannot_be_weighed_is_tried_once(families, monkeypatch):
    tries = []

    def weigh(missing, shape, *, classes, wanted):
        tries.append(len(missing))
        raise LemurError("the probe's process ended early")

    monkeypatch.setattr("nngen.training.memory_model.training_costs", weigh)
    names = ("AirNext", "ICNet", "MNASNet", "ShuffleNet")
    mixture = Candidate(id="0" * 32, source="", canonical="", plan=Plan(experts=names))
    foretell = predictor({name: (families[name], Interface(low=32)) for name in names})
    assert [foretell(mixture, replace(SPEC, device="cuda"), 1000) for _ in range(2)] == [None, None]
    assert tries == [4, 0]


@pytest.mark.gpu
def test_several_trials_share_a_card(job):
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    small = Prediction(fixed_mib=300, image_mib=0.1, likely_mib=600, seconds=None)
    trials = []
    with LocalEngine(slots=3, predict=lambda *_: small) as engine:
        threads = [
            threading.Thread(
                target=lambda seed=seed: trials.append(engine.train(job(net_source(), device="cuda", seed=seed)))
            )
            for seed in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [trial.verdict.valid for trial in trials] == [True] * 3
