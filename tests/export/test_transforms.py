"""Transforms of exports: equal to the preprocessing of the trial."""

import numpy as np
import pytest
import torch
from PIL import Image

from nngen.datasets.batches import Preparation
from nngen.lemur.transforms import matching_transform
from nngen.types import Shape


@pytest.mark.parametrize(
    ("stored", "shape", "augment", "name"),
    [
        ("3x32x32", "3x32x32", "none", "norm"),
        ("3x32x32", "3x32x32", "flip", "norm_flip"),
        ("1x28x28", "1x32x32", "none", "norm_32"),
        ("3x32x32", "3x256x256", "flip", "norm_256_flip"),
    ],
)
def test_what_lemur_has(stored, shape, augment, name):
    found = matching_transform(Shape.parse(stored), Shape.parse(shape), augment=augment)
    assert (found.name, found.source) == (name, None)


@pytest.mark.parametrize(
    ("stored", "shape"),
    [("1x28x28", "3x32x32"), ("3x32x32", "3x48x48"), ("3x32x32", "3x64x32"), ("3x20x32", "3x32x32")],
)
def test_what_lemur_has_not_is_written_and_does_the_same(stored, shape):
    before, after = Shape.parse(stored), Shape.parse(shape)
    found = matching_transform(before, after)
    assert "_" not in found.name
    assert found.source is not None
    namespace: dict = {}
    exec(compile(found.source, found.name, "exec"), namespace)
    mean, std = (0.4,) * before.channels, (0.25,) * before.channels
    pixels = np.random.RandomState(0).randint(0, 256, (before.height, before.width, before.channels), np.uint8)
    theirs = namespace["transform"]((mean, std))(Image.fromarray(pixels if before.channels == 3 else pixels[..., 0]))
    ours = Preparation(shape=after, mean=mean, std=std)(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0]
    assert theirs.shape == (after.channels, after.height, after.width)
    torch.testing.assert_close(theirs, ours, atol=1.01 / 255 / 0.25, rtol=0)


@pytest.mark.parametrize(
    ("shape", "augment", "steps"),
    [
        ("3x48x48", "flip", ["RandomHorizontalFlip()"]),
        ("3x32x32", "crop-flip", ["RandomCrop((32, 32), padding=(4, 4))", "RandomHorizontalFlip()"]),
        ("3x32x32", "trivial", ["TrivialAugmentWide()"]),
    ],
)
def test_an_augmentation_is_written_too(shape, augment, steps):
    found = matching_transform(Shape(3, 32, 32), Shape.parse(shape), augment=augment)
    assert found.name.endswith(f"-{augment}")
    assert all(step in (found.source or "") for step in steps)
    namespace: dict = {}
    exec(compile(found.source or "", found.name, "exec"), namespace)
    pixels = np.random.RandomState(0).randint(0, 256, (32, 32, 3), np.uint8)
    made = namespace["transform"](((0.5,), (0.5,)))(Image.fromarray(pixels))
    assert "x".join(map(str, made.shape)) == shape
