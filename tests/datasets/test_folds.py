"""Tests of the folds of a data set."""

import numpy as np
import pytest

from nngen.datasets import load_dataset
from nngen.datasets.folds import fold_name, parse_fold
from nngen.datasets.registry import dataset_name
from nngen.errors import DataError, UsageError


def test_each_image_validates_in_one_fold_and_the_test_split_is_the_same():
    whole = load_dataset("digits")
    folds = [load_dataset(fold_name("digits", number, 3)) for number in (1, 2, 3)]
    assert len({fold.fingerprint for fold in (whole, *folds)}) == 4
    validation = np.concatenate([fold.validation_images for fold in folds])
    pool = np.concatenate([whole.train_images, whole.validation_images])
    assert sorted(map(bytes, validation)) == sorted(map(bytes, pool))
    for fold in folds:
        assert np.array_equal(fold.test_images, whole.test_images)
        assert sorted(map(bytes, [*fold.train_images, *fold.validation_images])) == sorted(map(bytes, pool))
        shares = np.bincount(fold.validation_labels) / np.bincount(
            np.concatenate([whole.train_labels, whole.validation_labels])
        )
        assert shares == pytest.approx(np.full(10, 1 / 3), abs=0.01)
        assert fold.default_shape == whole.default_shape


def test_names_of_folds():
    assert dataset_name("fold-2-of-5:CIFAR10") == "fold-2-of-5:cifar-10"
    assert parse_fold("fold-2-of-5:folder:photos") == (2, 5, "folder:photos")
    assert parse_fold("folder:fold") is None


@pytest.mark.parametrize(
    "name", ["fold-6-of-5:digits", "fold-1-of-1:digits", "fold-1-of-99:digits", "fold-1-of-5:fold-1-of-5:digits"]
)
def test_folds_that_do_not_exist_are_refused(name):
    with pytest.raises(UsageError, match="fold"):
        load_dataset(name)
    with pytest.raises(UsageError, match="no data set is called"):
        load_dataset("fold-1-of-5:nothing")


def test_a_class_with_too_few_images_is_named(tmp_path):
    from PIL import Image

    for name, count in (("cat", 20), ("dog", 4)):
        (tmp_path / name).mkdir()
        for number in range(count):
            Image.new("RGB", (8, 8), (number * 9, len(name) * 9, ord(name[0]))).save(tmp_path / name / f"{number}.png")
    with pytest.raises(DataError, match="class dog has 3 images"):
        load_dataset(fold_name(f"folder:{tmp_path}", 1, 5))
