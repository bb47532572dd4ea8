"""Specification of campaigns."""

from dataclasses import replace

import pytest

from nngen.campaign import CampaignSpec
from nngen.errors import UsageError
from nngen.types import Shape

SPEC = CampaignSpec(name="one", size=8, shape=Shape(1, 8, 8), families=("A", "B"), time_limit_s=60.0)


def test_as_json_and_back():
    assert CampaignSpec.from_dict(SPEC.to_dict() | {"pool": {}}) == SPEC


def test_differences_are_named_with_both_values():
    SPEC.require(replace(SPEC, size=8, shape=Shape(1, 8, 8)))
    with pytest.raises(UsageError) as caught:
        SPEC.require(replace(SPEC, size=8, epochs=3, families=("A",), time_limit_s=10.0))
    assert (
        "began with --families A,B, --epochs 1, --time-limit 60.0, not --families A, --epochs 3, --time-limit 10.0"
        in str(caught.value)
    )


@pytest.mark.parametrize(
    ("field", "value"), [("epochs", 0), ("batch", -1), ("lr", float("nan")), ("threads", 0), ("time_limit_s", 0.0)]
)
def test_numbers_must_be_positive(field, value):
    flag = field.removesuffix("_s").replace("_", "-")
    with pytest.raises(UsageError, match=f"--{flag} must be positive, not {value}"):
        CampaignSpec(**{"name": "x", "size": 1, "shape": Shape(1, 8, 8), field: value})


@pytest.mark.parametrize("name", ["", " x", "a\nb"])
def test_names(name):
    with pytest.raises(UsageError, match="cannot be a campaign's name"):
        CampaignSpec(name=name, size=1, shape=Shape(1, 8, 8))


def test_a_trial_has_its_own_seed_and_the_rest_from_the_campaign():
    trial = SPEC.trial(5)
    assert (trial.seed, trial.shape, trial.time_limit_s, trial.dataset) == (5, SPEC.shape, 60.0, "digits")
