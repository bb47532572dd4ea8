"""Data set as a value: images, statistics of the train split, limit of ``--train-size``, files that changed."""

import os

import numpy as np
import pytest

from nngen.datasets import load_dataset
from nngen.errors import DataError, UsageError
from nngen.types import Shape


def test_digits_hold_every_image_once(cache):
    from sklearn.datasets import load_digits

    data = load_dataset("digits")
    assert (len(data.train_labels), len(data.validation_labels), len(data.test_labels)) == (1151, 287, 359)
    assert data.train_images.shape == (1151, 1, 8, 8)
    assert data.train_images.max() == 255
    assert data.default_shape == Shape(1, 32, 32)
    together = np.concatenate([data.train_images, data.validation_images, data.test_images]).reshape(1797, 64)
    original = np.rint(load_digits().data * 255 / 16).astype(np.uint8)
    assert sorted(map(bytes, together)) == sorted(map(bytes, original))


def test_statistics_are_those_of_the_train_split(digits):
    values = digits.train_images / 255
    assert digits.mean == pytest.approx((values.mean(),))
    assert digits.std == pytest.approx((values.std(),))


@pytest.mark.parametrize(
    ("size", "message"), [(1152, "digits has 1,151 training images; leave it out"), (9, "digits has 10 classes")]
)
def test_a_subset_that_cannot_be_is_refused(size, message, digits):
    assert digits.training_images(None) == digits.training_images(1151) == 1151
    with pytest.raises(UsageError, match=f"--train-size {size:,}: {message}"):
        digits.training_images(size)


def test_files_that_changed_but_for_their_bytes_are_the_same_data(cache, tmp_path):
    data = load_dataset("digits")
    os.utime(data.file("train-images"))
    (cache / "backup").hardlink_to(data.file("test-images"))
    data.check_unchanged()
    data.file("train-labels").unlink()
    with pytest.raises(DataError, match="changed while they were in use"):
        data.check_unchanged()
