"""Preprocessing as a value: written, read, and refused where its parts do not fit together."""

import json

import numpy as np
import pytest
from PIL import Image

from nngen.datasets import load_dataset
from nngen.datasets.image_files.image_file import decode
from nngen.datasets.preprocessing import Preprocessing
from nngen.errors import DataError
from nngen.types import Shape


@pytest.fixture
def folder(tmp_path):
    """Ten 16-bit images of 12 bits in each of two classes."""
    rng = np.random.default_rng(0)
    for name in ("bird", "ärger"):
        (tmp_path / "deep" / name).mkdir(parents=True)
        for number in range(10):
            pixels = rng.integers(0, 4096, (9, 7), dtype=np.uint16)
            pixels[0, 0] = 4095
            Image.fromarray(pixels).save(tmp_path / "deep" / name / f"{number}.png")
    return tmp_path / "deep"


def test_it_is_read_as_it_was_written():
    found = load_dataset("digits").preprocessing(Shape(3, 32, 32))
    assert Preprocessing.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert Preprocessing.from_dict({name: json.loads(text) for name, text in found.to_metadata().items()}) == found
    assert (str(found.image_shape), str(found.input_shape)) == ("1x8x8", "3x32x32")
    assert found.class_names == tuple("0123456789")
    assert (round(found.mean[0], 4), round(found.std[0], 4)) == (0.3059, 0.3764)


def test_an_image_of_the_folder_is_decoded_as_it_was_for_training(folder):
    data = load_dataset(f"folder:{folder}")
    found = data.preprocessing(data.default_shape)
    assert found.class_names == ("bird", "ärger")
    assert found.span == (0, 4095)
    decoded = decode(folder / "bird" / "0.png", (7, 9), grey=True, span=found.span)
    stored = np.concatenate([data.train_images, data.validation_images, data.test_images])
    assert any((decoded == image).all() for image in stored)


@pytest.mark.parametrize(
    "change",
    [
        {"mean": None},
        {"mean": [0.5, 0.5]},
        {"std": [0.0]},
        {"image_shape": [1, 8]},
        {"image_shape": [True, 8, 8]},
        {"image_shape": [2, 8, 8]},
        {"span": [1, 1]},
        {"class_names": []},
        {"class_names": [1]},
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(change):
    written = load_dataset("digits").preprocessing(Shape(3, 32, 32)).to_dict()
    with pytest.raises(DataError, match="does not describe a preprocessing"):
        Preprocessing.from_dict(written | change)
    del written[next(iter(change))]
    with pytest.raises(DataError, match="does not describe a preprocessing"):
        Preprocessing.from_dict(written)
