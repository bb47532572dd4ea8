"""Tests of the estimate of what a campaign takes, and of its dry run."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from nngen.analysis.cost import FamilySeconds
from nngen.archive import Archive
from nngen.campaign import estimate as module
from nngen.campaign.budget import Budget
from nngen.campaign.estimate import SPREAD, Pace, Work, estimate, measure_pace, work_to_come
from nngen.campaign.protocols import Watcher
from nngen.families.profile import TrainingCost
from nngen.testing.fakes import FakeEngine, fake_campaign, fake_dataset, fake_inputs, fake_record
from nngen.types import Outcome, Shape

LIGHT = TrainingCost(weights_mib=2.0, image_mib=0.5, image_s=0.01, step_s=0.1)


@pytest.fixture
def costs(monkeypatch):
    """Stand in for measurements of families; those with G do not fit into memory."""
    asked = []

    def training_costs(families, shape, **_):
        names = [family.name for family, _ in families]
        asked.extend(names)
        return {name: replace(LIGHT, weights_mib=5000.0 if name == "G" else 2.0) for name in names}

    monkeypatch.setattr(module, "training_costs", training_costs)
    return asked


def estimated(campaign, **more):
    record, work = campaign.preview()
    arguments = {"workers": 1, "memory_mib": 12_288.0} | more
    return estimate(record, work, archive=campaign.archive, inputs=campaign.inputs, **arguments)


def test_nothing_is_stored_by_a_preview(archive, costs):
    campaign = fake_campaign(archive)
    _, work = campaign.preview()
    assert archive.campaigns() == ()
    assert len(work) == 6
    assert {one.epochs for one in work} == {2}
    campaign.run()
    stored = [trial.experts for trial in archive.trials("one")]
    assert [one.experts for one in work] == stored
    assert campaign.preview() == (archive.campaign("one"), [])


def test_rungs_finalists_and_growth_are_counted(archive):
    campaign = fake_campaign(archive, size=9, rungs=(1, 3), epochs=3, finalists=2, replicates=2)
    _, work = campaign.preview()
    assert [one.epochs for one in work] == [1] * 9 + [3] * 5
    assert [bool(one.experts) for one in work] == [True] * 9 + [False] * 5
    campaign.run()
    grown = fake_campaign(archive, size=12, rungs=(1, 3), epochs=3, finalists=2, replicates=2)
    assert [one.epochs for one in grown.preview()[1]] == [1] * 3 + [3]


def test_trials_that_are_done_are_not_counted_again(archive):
    fake_campaign(archive, budget=Budget(max_trials=4)).run()
    record, work = fake_campaign(archive).preview()
    assert work == work_to_come(record.spec, archive.lines("one"), ())
    assert len(work) == 2


def test_time_by_the_measurements_of_families(archive, costs):
    found = estimated(fake_campaign(archive), price_per_hour=2.0)
    one_family = 10 * 0.01 + 0.1  # ten training images in one step
    assert found.hours == pytest.approx(6 * 2 * 4 * one_family / 3600)
    assert (found.low, found.high) == pytest.approx((found.hours / SPREAD, found.hours * SPREAD))
    assert found.money == pytest.approx((2 * found.hours, 2 * found.low, 2 * found.high))
    assert "measurements of 7 families" in found.basis
    assert json.loads(json.dumps(found.to_dict()))["trials"] == 6


def test_several_workers_share_the_time_but_not_a_training(archive, costs):
    alone, many = (estimated(fake_campaign(archive), workers=workers) for workers in (1, 100))
    assert many.hours == pytest.approx(alone.hours / 6)
    assert estimated(fake_campaign(archive), workers=2).hours == pytest.approx(alone.hours / 2)


def test_time_by_earlier_trials_on_the_same_data(archive, costs):
    fake_campaign(archive, size=20).run()
    costs.clear()
    campaign = fake_campaign(archive, name="two", seed=1)
    pace = measure_pace(archive, campaign.spec, campaign.inputs, {"A", "B"})
    assert costs == []
    assert pace.basis.startswith("20 trials of this archive")
    assert pace.seconds([Work(experts=("A", "B", "C", "D"), epochs=2)])[0] == pytest.approx(1.0, rel=0.05)
    other = fake_campaign(archive, name="three", batch=7)
    assert "measurements" in measure_pace(archive, other.spec, other.inputs, {"A"}).basis


def test_a_card_has_no_pace_before_its_first_trial(archive, costs):
    found = estimated(fake_campaign(archive, device="cuda"))
    assert found.hours is found.money is None
    assert found.basis == "not known before the first epoch"


def test_what_memory_refuses_and_what_it_makes_smaller(archive, costs):
    found = estimated(fake_campaign(archive))
    assert found.refused
    assert all("G" in experts and "MiB at least" in reason for experts, reason in found.refused.items())
    # 200 MiB of the worker, four copies of 8 MiB of weights, 2 MiB an image: 34 images fit into 300 MiB.
    small = estimated(fake_campaign(archive), memory_mib=300.0)
    assert set(small.smaller.values()) == {32}


def test_kept_weights_and_checkpoints_take_space(archive, costs):
    sizes = {keep: estimated(fake_campaign(archive, keep_weights=keep)).weights_mib for keep in ("none", "best", "all")}
    assert sizes["none"] == 0
    assert sizes["all"] == pytest.approx(6 * sizes["best"])
    found = estimated(fake_campaign(archive))
    assert found.checkpoints_mib > found.weights_mib
    assert estimated(fake_campaign(archive, epochs=1)).checkpoints_mib == 0
    assert found.archive_mib > 6 * 30_000 / 2**20


def test_the_time_left_is_known_before_the_first_epoch(archive, costs):
    begun = []

    class Watching(Watcher):
        def begin(self, name, work):
            begun.append(work)

    fake_campaign(archive, engine=FakeEngine(trials={"A": Outcome.MEMORY}), watcher=Watching(), timed=True).run()
    assert begun[0].typical_s == pytest.approx(4 * 0.2)
    assert begun[0].seconds_of(("A", "B")) == pytest.approx(0.4)


def test_families_are_not_measured_where_nobody_asked_for_the_time(archive, costs):
    fake_campaign(archive).run()
    assert costs == []


def test_an_archive_in_memory_serves_a_campaign_that_does_not_exist(costs):
    with Archive.in_memory() as archive:
        assert estimated(fake_campaign(archive)).trials == 6


def test_space_is_that_of_sources_templates_predictions_and_states(archive, costs):
    campaign = fake_campaign(archive)
    found = estimated(campaign, workers=2)
    data, (_, work) = campaign.inputs.dataset, campaign.preview()
    sources = sum(len(campaign.inputs.families[name][0].source) for one in work for name in one.experts)
    predictions = 2 * (len(data.validation_labels) + len(data.test_labels))
    assert found.archive_mib == pytest.approx((sources + 6 * (30_000 + predictions)) / 2**20)
    weights = sum(5000.0 if name == "G" else 2.0 for one in work for name in one.experts) / 6
    assert found.weights_mib == pytest.approx(weights)
    assert found.checkpoints_mib == pytest.approx(2 * 3 * weights)
    assert estimated(campaign, workers=50).checkpoints_mib == pytest.approx(6 * 3 * weights)
    assert (found.trials, found.epochs, found.workers) == (6, 12, 2)


def test_the_interval_by_earlier_trials_is_that_of_their_forecast(archive, costs):
    fake_campaign(archive, size=20).run()
    campaign = fake_campaign(archive, name="two", seed=1)
    pace = measure_pace(archive, campaign.spec, campaign.inputs, {"A", "B"})
    pace = replace(pace, families=replace(pace.families, error=0.25))
    work = [Work(experts=("A", "B", "C", "D"), epochs=2), Work(experts=("A", "B", "C", "E"), epochs=4)]
    expected, low, high = pace.seconds(work)
    half = 1.96 * 3 * 0.25 * (2 + 4 / 20) ** 0.5
    assert (low, high) == (pytest.approx(max(0.0, expected - half)), pytest.approx(expected + half))
    assert pace.of(()) == pytest.approx(4 * pace.families.typical)
    assert pace.seconds([]) == (0.0, 0.0, 0.0)


def test_a_family_without_a_measurement_leaves_the_time_open(archive, monkeypatch):
    campaign = fake_campaign(archive)
    for known, basis in (({}, None), ({"A": LIGHT}, None), ({"A": LIGHT, "B": LIGHT}, "measurements of 2 families")):
        found = measure_pace(archive, campaign.spec, campaign.inputs, {"A", "B"}, costs=known)
        assert (found and found.basis.removesuffix(" on this machine")) == basis


def test_the_longest_training_bounds_the_time(archive, costs):
    """Five short trainings beside a long one: a hundred workers take as long as the long one."""
    pace = module.Pace(families=FamilySeconds(seconds={}, typical=1.0, error=0.0, trials=1), spread=2.0, basis="")
    work = [*[Work(experts=(), epochs=1)] * 5, Work(experts=(), epochs=10)]
    assert module._hours(pace, work, 100) == pytest.approx((40 / 3600, 20 / 3600, 80 / 3600))
    assert module._hours(pace, work, 1) == pytest.approx((60 / 3600, 30 / 3600, 120 / 3600))
    assert module._hours(pace, [], 1) is None


def test_the_pace_of_measurements_is_their_seconds_by_family(archive, costs):
    campaign = fake_campaign(archive, train_size=None, batch=4, threads=2)
    asked = []
    given = {"A": LIGHT, "B": replace(LIGHT, image_s=0.03), "Z": replace(LIGHT, image_s=9.0)}
    found = measure_pace(archive, campaign.spec, campaign.inputs, {"A", "B"}, costs=given, progress=asked.append)
    # Ten images in three steps, on two threads.
    seconds = {"A": pytest.approx(10 * 0.01 / 2 + 3 * 0.1), "B": pytest.approx(10 * 0.03 / 2 + 3 * 0.1)}
    assert found == Pace(
        families=FamilySeconds(seconds=seconds, typical=pytest.approx(0.4), error=0.0, trials=1),
        spread=2.0,
        basis="measurements of 2 families on this machine",
    )
    assert (costs, asked) == ([], [])
    assert measure_pace(archive, campaign.spec, campaign.inputs, {"G"}).basis == (
        "measurements of 1 family on this machine"
    )
    assert measure_pace(archive, replace(campaign.spec, device="cuda"), campaign.inputs, {"A"}, costs=given) is None


def test_the_pace_is_that_of_trials_whose_epochs_take_as_long(archive, costs):
    fake_campaign(archive, size=35).run()
    fake_campaign(archive, name="goes on", rungs=(1, 2), rungs_continue=True, seed=1, batch=8).run()
    fake_campaign(archive, name="elsewhere", inputs=fake_inputs(dataset=fake_dataset(fingerprint="d2")), batch=16).run()

    def basis(names="ABCDEFG", **changes):
        campaign = fake_campaign(archive, name="new", **changes)
        return measure_pace(archive, campaign.spec, campaign.inputs, set(names)).basis

    assert basis() == "35 trials of this archive with the same data and settings"
    measured = "measurements of 7 families on this machine"
    for changes in (
        {"batch": 8},
        {"batch": 16},
        {"augment": "flip"},
        {"threads": 2},
        {"shape": Shape(3, 8, 8)},
        {"inputs": fake_inputs(dataset=fake_dataset(fingerprint="d3"))},
    ):
        assert basis(**changes) == measured, changes
    assert basis(inputs=fake_inputs("ABCDEFGH"), names="ABCDEFGH") == measured.replace("7", "8")


def test_work_to_come_of_rungs_that_go_on():
    spec = fake_record(size=6, rungs=(1, 3, 9), epochs=9, rungs_continue=True, reduction_factor=2).spec
    work = work_to_come(spec, (), ["ABCD", "ABCE"])
    named = [Work(experts=tuple(names), epochs=1) for names in ("ABCD", "ABCE")]
    later = [Work(experts=(), epochs=epochs) for epochs in (1, 1, 1, 1, 2, 2, 2, 6)]
    assert work == named + later
    plain = work_to_come(replace(spec, rungs_continue=False), (), ())
    assert [one.epochs for one in plain] == [1] * 6 + [3] * 3 + [9]


@pytest.mark.parametrize(
    ("keep", "workers", "epochs", "kept", "open_"),
    [("top:2", 1, 2, 2, 1), ("top:99", 9, 2, 6, 6), ("all", 4, 2, 6, 4), ("none", 2, 2, 0, 2), ("all", 4, 1, 6, 0)],
)
def test_weights_are_those_of_the_trials_that_are_kept_or_open(archive, costs, keep, workers, epochs, kept, open_):
    campaign = fake_campaign(archive, inputs=fake_inputs("ABCDEF"), keep_weights=keep, epochs=epochs)
    found = estimated(campaign, workers=workers)
    assert (found.weights_mib, found.checkpoints_mib) == (kept * 8.0, open_ * 3 * 8.0)
    assert (found.refused, found.smaller) == ({}, {})


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_money_needs_a_price_and_hours(archive, costs, device):
    campaign = fake_campaign(archive, device=device)
    assert estimated(campaign).money is None
    money = estimated(campaign, price_per_hour=2.0).money
    assert (money is None) == (device == "cuda")


def test_trainings_of_families_that_are_not_known_yet_count_as_typical_ones(archive, costs):
    campaign = fake_campaign(archive, inputs=fake_inputs("ABCDE"), size=5)
    record, _ = campaign.preview()
    some = {"archive": archive, "inputs": campaign.inputs, "workers": 1, "memory_mib": 12_288.0}
    found = estimate(record, [Work(experts=(), epochs=3)] * 2, **some)
    assert (sorted(costs), found.basis) == (list("ABCDE"), "measurements of 5 families on this machine")
    assert found.hours == pytest.approx(2 * 3 * 4 * 0.2 / 3600)
    assert (found.weights_mib, found.trials, found.epochs) == (8.0, 2, 6)
    predictions = 2 * (40 + 50)
    assert found.archive_mib == pytest.approx(2 * (4 * 4 + 30_000 + predictions) / 2**20)
    costs.clear()
    nothing = estimate(record, [], **some)
    assert (nothing.hours, nothing.basis, nothing.archive_mib) == (None, "not known before the first epoch", 0.0)
    assert (nothing.weights_mib, nothing.checkpoints_mib, costs) == (0.0, 0.0, [])


def test_families_alone_keep_their_logits_in_the_archive(archive, costs):
    main = fake_campaign(archive)
    main.run()
    record, work = (alone := main.baselines()).preview()
    found = estimate(record, work, archive=archive, inputs=alone.inputs, workers=1, memory_mib=12_288.0)
    each = 4 + 30_000 + 2 * (40 + 50) + 2 * 10 * 40  # source, template, predictions and logits
    assert (found.trials, found.archive_mib) == (7, pytest.approx(7 * each / 2**20))


def test_the_mean_weights_of_mixtures():
    costs = {"A": LIGHT, "B": replace(LIGHT, weights_mib=4.0)}
    work = [Work(experts=experts, epochs=1) for experts in (("A", "B"), ("A", "Z"), ())]
    assert module._weights_mib(work, costs) == pytest.approx(((2 + 4) + (2 + 3) + 4 * 3) / 3)
    assert module._weights_mib(work, {}) == module._weights_mib([], costs) == 0.0


def test_space_without_the_sources_of_families(archive, costs):
    """A family that is not among the inputs adds nothing, and without any source the template stands alone."""
    campaign = fake_campaign(archive, inputs=fake_inputs("ABCDE"), size=5)
    record, _ = campaign.preview()
    some = {"archive": archive, "workers": 1, "memory_mib": 12_288.0}
    found = estimate(record, [Work(experts=("A", "Z"), epochs=1)], inputs=campaign.inputs, **some)
    each = 30_000 + 2 * (40 + 50)
    assert (found.archive_mib, found.hours) == (pytest.approx((4 + each) / 2**20), None)
    found = estimate(record, [Work(experts=(), epochs=1)], inputs=fake_inputs(""), **some)
    assert (found.archive_mib, found.weights_mib, found.hours) == (pytest.approx(each / 2**20), 0.0, None)


def test_the_pace_is_computed_from_2000_trials_at_most(archive):
    campaign = fake_campaign(archive)
    campaign.run()
    (score, *_), record = archive.scores("one"), archive.campaign("one")
    read = []

    def scores(name):
        for number in range(5000):
            read.append(name)
            yield replace(score, experts=() if number == 3 else score.experts)

    endless = SimpleNamespace(campaigns=lambda: (record,), scores=scores)
    pace = measure_pace(endless, record.spec, campaign.inputs, score.experts)
    assert pace.basis == "2,000 trials of this archive with the same data and settings"
    assert read == ["one"] * 2001  # one of them has no families, as a file from outside
