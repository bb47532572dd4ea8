"""Folders of images with one folder per class: shape and splits; invalid ones are refused with their names."""

import numpy as np
import pytest
from PIL import Image

from nngen.datasets import load_dataset
from nngen.errors import DataError
from nngen.types import Shape


def _write_images(folder, *, classes=2, each=10, size=(12, 9), mode="RGB"):
    random = np.random.RandomState(0)
    for label in range(classes):
        place = folder / f"class{label}"
        place.mkdir(parents=True)
        for number in range(each):
            pixels = random.randint(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(place / f"{number}.png")


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1)])
def test_a_folder_per_class(mode, channels, cache, tmp_path):
    _write_images(tmp_path / "images", classes=3, mode=mode)
    data = load_dataset(f"folder:{tmp_path / 'images'}")
    assert data.classes == 3
    assert data.shape == Shape(channels, 9, 12)
    assert (len(data.train_labels), len(data.validation_labels), len(data.test_labels)) == (18, 6, 6)


def test_images_of_many_sizes_get_one(cache, tmp_path):
    _write_images(tmp_path / "images")
    Image.new("RGB", (40, 50)).save(tmp_path / "images" / "class0" / "large.jpg")
    assert load_dataset(f"folder:{tmp_path / 'images'}").shape == Shape(3, 9, 9)


def test_a_changed_folder_is_another_data_set(cache, tmp_path):
    _write_images(tmp_path / "images")
    first = load_dataset(f"folder:{tmp_path / 'images'}")
    Image.new("RGB", (12, 9)).save(tmp_path / "images" / "class1" / "more.png")
    second = load_dataset(f"folder:{tmp_path / 'images'}")
    assert first.fingerprint != second.fingerprint


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "is not a folder"),
        (lambda path: path.mkdir(), "holds 0 folders with images"),
        (lambda path: _write_images(path, classes=1), "holds 1 folders with images"),
        (lambda path: _write_images(path, each=2), "at least 3 are needed"),
        (lambda path: (_write_images(path), (path / "class0" / "x.png").write_bytes(b"x")), "x.png is not an image"),
    ],
)
def test_a_folder_that_will_not_do_is_explained(make, message, cache, tmp_path):
    make(tmp_path / "images")
    with pytest.raises(DataError, match=message):
        load_dataset(f"folder:{tmp_path / 'images'}")


def test_a_cut_image_is_named(cache, tmp_path):
    _write_images(tmp_path / "images")
    file = tmp_path / "images" / "class0" / "3.png"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataError, match=r"3.png cannot be read: image file is truncated"):
        load_dataset(f"folder:{tmp_path / 'images'}")
