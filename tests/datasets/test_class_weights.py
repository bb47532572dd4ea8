"""Tests of the weights of classes in training."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from nngen.archive.rows.values import spec_from_text, spec_to_text
from nngen.campaign_spec import CampaignSpec
from nngen.datasets.batches import Batches, Preparation
from nngen.datasets.class_weights import class_weights, parse, weighted_order
from nngen.errors import UsageError
from nngen.types import Shape, TrialSpec

LABELS = torch.tensor([0] * 90 + [1] * 9 + [2])


def order(weights, labels=LABELS, seed=0):
    return weighted_order(labels, weights, torch.Generator().manual_seed(seed))


def test_balanced_weights_are_those_of_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    labels = LABELS.numpy()
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert class_weights("balanced", labels, 3) == pytest.approx(expected.tolist())
    assert class_weights("none", labels, 3) == ()


def test_balanced_classes_count_alike_and_images_of_a_class_too():
    drawn = order(class_weights("balanced", LABELS.numpy(), 3))
    assert len(drawn) == len(LABELS)
    assert sorted(Counter(LABELS[drawn].tolist()).values()) == [33, 33, 34]
    times = Counter(drawn.tolist())
    assert {times[image] for image in range(90)} == {0, 1}
    assert {times[image] for image in range(90, 99)} <= {3, 4}


def test_equal_weights_draw_each_image_once():
    assert sorted(order((2.0, 2.0, 2.0)).tolist()) == list(range(100))


def test_weights_by_name():
    assert class_weights("dog=3, cat=0.5", LABELS.numpy(), 3, ("cat", "bird", "dog")) == (0.5, 1.0, 3.0)
    assert class_weights("2=3", LABELS.numpy(), 3) == (1.0, 1.0, 3.0)
    assert Counter(LABELS[order((1.0, 10.0, 1.0))].tolist())[1] == round(100 * 90 / 181)


@pytest.mark.parametrize("text", ["", "twice", "cat", "cat=", "=2", "cat=0", "cat=-1", "cat=nan", "cat=inf", "a=1,b"])
def test_what_is_not_a_weight_is_refused(text):
    with pytest.raises(UsageError, match="--class-weights"):
        parse(text)


def test_a_class_that_does_not_exist_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="did you mean cat"):
        class_weights("cats=2", LABELS.numpy(), 2, ("cat", "dog"))


def batches(weights):
    prepare = Preparation(shape=Shape(1, 2, 2), mean=(0.5,), std=(0.5,))
    return Batches(torch.zeros(100, 1, 2, 2, dtype=torch.uint8), LABELS, prepare, batch=10, seed=1, weights=weights)


def test_batches_hold_as_many_images_and_other_classes():
    labels = [torch.cat([own for _, own in batches(weights)]) for weights in ((), (1.0, 10.0, 90.0))]
    assert [len(own) for own in labels] == [100, 100]
    assert Counter(labels[0].tolist()) == {0: 90, 1: 9, 2: 1}
    assert sorted(Counter(labels[1].tolist()).values()) == [33, 33, 34]


def test_weights_are_part_of_the_fidelity_and_stored_where_there_are_some():
    plain = TrialSpec(dataset="digits", shape=Shape(1, 8, 8))
    weighted = replace(plain, class_weights="balanced")
    assert "class_weights" not in spec_to_text(plain)
    assert [spec_from_text(spec_to_text(spec)) for spec in (plain, weighted)] == [plain, weighted]
    assert plain.fidelity() != weighted.fidelity()


def test_a_campaign_keeps_its_weights():
    spec = CampaignSpec(name="one", size=1, shape=Shape(1, 8, 8), class_weights="balanced")
    assert CampaignSpec.from_dict(spec.to_dict()).trial(0).class_weights == "balanced"
    with pytest.raises(UsageError, match="--class-weights"):
        replace(spec, class_weights="some")
