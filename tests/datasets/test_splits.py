"""Splits: the same draw as always, each class with its share; a smaller train split lies in every larger one."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nngen.datasets import load_dataset
from nngen.datasets.splits import split, subset


def test_digits_are_split_as_they_always_were(cache):
    """Published accuracies depend on the split, so this fingerprint must not change."""
    assert load_dataset("digits").fingerprint == "817e47046b04f92388d8723c5dd176ac0752726fb1994da9899330d8cc00b06e"


def test_splits_are_stratified(digits):
    for labels in (digits.train_labels, digits.validation_labels, digits.test_labels):
        shares = np.bincount(labels) / len(labels)
        assert np.ptp(shares) < 0.03


@given(st.lists(st.integers(0, 4), min_size=1), st.floats(0.05, 0.5))
def test_a_split_takes_its_share_of_each_class(values, share):
    labels = np.array(values + [0, 1, 2, 3, 4] * 3, dtype=np.int64)
    stay, taken = split(labels, share, "x")
    assert sorted([*stay, *taken]) == list(range(len(labels)))
    for label in range(5):
        total = int((labels == label).sum())
        assert int((labels[taken] == label).sum()) == max(1, round(share * total))


@given(st.lists(st.integers(0, 4), max_size=60), st.data())
def test_a_subset_has_its_share_of_each_class_and_lies_in_every_larger_one(values, data):
    labels = np.array([*values, 0, 1, 2, 3, 4], dtype=np.int64)
    size = data.draw(st.integers(5, len(labels)))
    chosen = subset(labels, size)
    assert len(set(chosen)) == len(chosen) == size
    counts = np.bincount(labels[chosen], minlength=5)
    assert counts.min() >= 1
    # A class of fewer images than one in its share gets one, and the others so many fewer.
    assert np.all(np.abs(counts - size * np.bincount(labels, minlength=5) / len(labels)) < 5)
    assert set(chosen) <= set(subset(labels, data.draw(st.integers(size, len(labels)))))
