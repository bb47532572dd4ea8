"""Specification of campaigns."""

import re
from dataclasses import replace

import pytest

from nngen.campaign_spec import CampaignSpec
from nngen.errors import UsageError
from nngen.ranges import flag_of
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


REFUSED = {
    "epochs": (0, 1.5, True, "3", 10**9),
    "rungs": ((0, 1), (1, 2.5)),
    "batch": (-1, 1, 31.5, 10**9),
    "lr": (-1.0, 0.0, float("nan"), float("inf"), "x"),
    "momentum": (7, -0.1, 1.0),
    "threads": (0, -3, 1.5),
    "seed": (0.7, 2**63),
    "size": (2.5, 10**4000),
    "time_limit_s": (0.0, -1),
    "memory_mib": (0, 1.5),
    "min_explore": (0, 1.5),
    "shape": (Shape(32, 32, 3), Shape(3, 100_000, 32)),
    "augment": ("mirror",),
}


@pytest.mark.parametrize(("field", "value"), [(name, value) for name, values in REFUSED.items() for value in values])
def test_values_out_of_their_range_are_refused_with_the_range(field, value):
    named = {"name": "x", "size": 1, "shape": Shape(1, 8, 8), "epochs": 1} | {field: value}
    if field == "rungs":
        named["epochs"] = value[-1]
    with pytest.raises(UsageError) as caught:
        CampaignSpec(**named)
    message = str(caught.value)
    assert flag_of(field) in message or field in ("rungs", "augment", "shape")
    assert len(message) < 300
    if field not in ("shape", "augment"):
        assert re.search(r"must be a (whole )?number (from|above|of at least|below) [-\d]", message), message


def test_a_shape_typed_height_first_is_turned():
    with pytest.raises(UsageError, match=r"1 to 4 channels.*did you mean 3x32x32\?"):
        replace(SPEC, shape=Shape(32, 32, 3))


def test_values_of_an_older_archive_are_read_although_they_are_refused_today():
    stored = SPEC.to_dict() | {"momentum": 7.0, "batch": 1, "threads": 2000}
    assert CampaignSpec.from_dict(stored).momentum == 7.0


@pytest.mark.parametrize(
    ("stored", "typed", "grown"),
    [
        ({}, {"size": 20}, {"size": 20}),
        ({}, {"epochs": 5}, {"epochs": 5, "rungs": (1, 5), "reduction_factor": 1}),
        ({}, {"epochs": 5, "reduction_factor": 3}, {"epochs": 5, "rungs": (1, 5)}),
        ({}, {"rungs": (1, 4), "epochs": 4}, {"rungs": (1, 4), "epochs": 4}),
        ({"rungs": (1, 3), "epochs": 3}, {"epochs": 9}, {"rungs": (1, 3, 9), "epochs": 9}),
        ({"finalists": 2, "replicates": 2}, {"replicates": 5}, {"replicates": 5}),
        ({}, {"finalists": 2, "replicates": 3}, {"finalists": 2, "replicates": 3}),
        ({}, {"size": 8, "epochs": 1}, {}),
    ],
)
def test_what_a_campaign_may_grow_to(stored, typed, grown):
    begun = replace(SPEC, **stored)
    found = begun.extended(**typed)
    assert found == replace(begun, **grown)
    assert begun.extended(**{name: getattr(found, name) for name in typed} | grown) == found


@pytest.mark.parametrize(
    ("stored", "typed", "names"),
    [
        ({}, {"size": 4}, "--size 8, not --size 4"),
        ({}, {"lr": 0.1, "size": 9}, "--lr 0.001, not --lr 0.1"),
        ({"rungs": (1, 3), "epochs": 3}, {"rungs": (2, 6), "epochs": 6}, "--rungs 1,3, not --rungs 2,6"),
        ({"rungs": (1, 3), "epochs": 3}, {"reduction_factor": 2}, "--reduction-factor 3, not --reduction-factor 2"),
        ({}, {"replicates": 3}, "--finalists K --replicates R"),
    ],
)
def test_what_it_may_not_grow_to_is_named(stored, typed, names):
    with pytest.raises(UsageError, match=names):
        replace(SPEC, **stored).extended(**typed)


@pytest.mark.parametrize("name", ["", " x", "a\nb"])
def test_names(name):
    with pytest.raises(UsageError, match="cannot be a campaign's name"):
        CampaignSpec(name=name, size=1, shape=Shape(1, 8, 8))


def test_a_trial_has_its_own_seed_and_the_rest_from_the_campaign():
    trial = SPEC.trial(5)
    assert (trial.seed, trial.shape, trial.time_limit_s, trial.dataset) == (5, SPEC.shape, 60.0, "digits")
