"""Columns keep the text that earlier versions wrote, so that old archives read and compare the same."""

import json
from dataclasses import replace

from nngen.archive.rows.trials import TrialRows
from nngen.archive.rows.values import environment_to_text, spec_from_text, spec_to_text
from nngen.campaign_spec import CampaignSpec
from nngen.types import Outcome, Shape, Trial, TrialSpec, Verdict

SPEC = TrialSpec(dataset="digits", shape=Shape(1, 8, 8), time_limit_s=60.0)
ENVIRONMENT = {
    "torch": "2",
    "data": "d1",
    "isolation": "process",
    "prm": '{"batch": 32, "lr": 0.001}',
    "batch": "32",
    "batches_tried": "64, 32",
    "energy_j": "12.500",
    "predicted_mib": "90",
}
TRIAL = Trial(
    candidate_id="one",
    spec=SPEC,
    verdict=Verdict(outcome=Outcome.VALID),
    batch=32,
    batches_tried=(64, 32),
    prm={"batch": 32, "lr": 1e-3},
    energy_j=12.5,
    predicted_mib=90.0,
    data_fingerprint="d1",
    isolation="process",
    environment={"torch": "2"},
)


def row(environment):
    named = ("id", "campaign", "position", "rung", "replicate", "candidate_id", "validation_accuracy", "test_accuracy")
    named += ("parameters", "seconds", "peak_mib", "copied_from", "started_at", "finished_at", "spec", "outcome")
    named += ("given_isolation", "given_seed")
    plan = json.dumps({"experts": ["A", "B", "C", "D"]})
    return dict.fromkeys(named) | {"plan": plan, "state": "done", "environment": environment, "suspect": ""}


def test_the_conditions_of_a_trial_are_strings_in_the_column():
    assert json.loads(environment_to_text(TRIAL)) == ENVIRONMENT


def test_the_conditions_of_a_trial_are_typed_when_read():
    stored = TrialRows().trial(row(json.dumps(ENVIRONMENT)), [])
    for name in ("batch", "batches_tried", "prm", "energy_j", "predicted_mib", "data_fingerprint", "isolation"):
        assert getattr(stored, name) == getattr(TRIAL, name), name
    assert stored.environment == {"torch": "2"}
    assert TrialRows().trial(row('{"data_fingerprint": "d0"}'), []).data_fingerprint == "d0"
    assert TrialRows().trial(row(None), []).batch is None


def test_the_time_limit_keeps_its_key():
    text = spec_to_text(SPEC)
    assert json.loads(text)["wall_s"] == 60.0
    assert spec_from_text(text) == spec_from_text(text.replace("wall_s", "time_limit_s")) == SPEC


def test_a_field_that_came_later_is_written_only_where_it_is_set():
    assert "train_size" not in json.loads(spec_to_text(SPEC))
    part = replace(SPEC, train_size=200)
    assert spec_from_text(spec_to_text(part)) == part


def test_photographs_of_cifar_were_mirrored_before_augmentation_was_stored():
    plain = spec_to_text(SPEC)
    assert "augment" not in plain
    old = spec_from_text(plain.replace("digits", "cifar-10"))
    assert (spec_from_text(plain).augment, old.augment) == ("none", "flip")
    for spec in (old, replace(old, augment="none"), replace(SPEC, augment="trivial")):
        assert spec_from_text(spec_to_text(spec)) == spec
    stored = CampaignSpec(name="a", size=1, shape=Shape(3, 32, 32), dataset="cifar-10").to_dict()
    assert CampaignSpec.from_dict(stored).augment == "none"
    del stored["augment"]
    assert CampaignSpec.from_dict(stored).augment == "flip"
