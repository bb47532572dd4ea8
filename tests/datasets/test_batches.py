"""Batches for ``learn``: equal to those of LEMUR's loader, with every image once per pass."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn.functional import interpolate

from nngen.datasets.batches import Batches, Preparation
from nngen.errors import DataError
from nngen.types import AUGMENTATIONS, Shape

PLAIN = Preparation(shape=Shape(1, 4, 4), mean=(0.0,), std=(1.0,))


def _batches(count, batch, *, seed=0, prepare=PLAIN):
    images = torch.zeros(count, 1, 4, 4, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(count)
    return Batches(images, torch.arange(count), prepare, batch=batch, seed=seed)


@settings(deadline=None)
@given(count=st.integers(2, 200), batch=st.integers(2, 70))
def test_a_pass_shows_every_image_once_but_for_a_single_last(count, batch):
    batches = _batches(count, batch)
    seen = list(batches)
    assert len(seen) == len(batches)
    labels = torch.cat([labels for _, labels in seen]).tolist()
    assert len(set(labels)) == len(labels) == count - (count % batch == 1)
    for images, labels in seen:
        assert images.dtype is torch.float32
        assert labels.dtype is torch.int64
        assert 1 < len(images) <= batch
        assert torch.equal((images[:, 0, 0, 0] * 255).round().long(), labels)


def test_the_order_follows_from_the_seed_and_changes_with_each_pass():
    def orders(seed):
        batches = _batches(50, 8, seed=seed)
        return [torch.cat([labels for _, labels in batches]).tolist() for _ in range(2)]

    first, second = orders(1)
    assert orders(1) == [first, second]
    assert first != second
    assert orders(2)[0] != first
    assert first != sorted(first)


def test_whoever_watches_looks_after_the_first_batch_and_then_now_and_then():
    looks = []
    batches = Batches(
        torch.zeros(1040, 1, 4, 4, dtype=torch.uint8), torch.arange(1040), PLAIN, batch=8, seed=0, on_batch=looks.append
    )
    assert len(list(batches)) == 130
    assert looks == [1, 50, 100]


def test_it_has_what_files_ask_a_loader_for():
    batches = _batches(50, 8)
    assert len(batches) == 7
    assert batches.batch_size == 8
    assert len(batches.dataset) == 50
    assert next(iter(batches))[0].shape == (8, 1, 4, 4)


def test_mirrored_images_are_mirrored_whole():
    images = torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4).repeat(64, 1, 1, 1)
    batches = Batches(images, torch.zeros(64, dtype=torch.int64), PLAIN, batch=64, seed=0, augment="flip")
    ((batch, _),) = batches
    straight = images[0].float() / 255
    mirrored = [torch.equal(image, straight.flip(2)) for image in batch]
    assert all(torch.equal(image, straight) or turned for image, turned in zip(batch, mirrored, strict=True))
    assert 20 < sum(mirrored) < 44


@pytest.mark.parametrize("size", [(12, 12), (8, 24)])
def test_cropped_images_are_moved_by_an_eighth_at_most_on_black(size):
    height, width = size
    image = torch.randint(1, 256, (2, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    plain = Preparation(shape=Shape(2, height, width), mean=(0.0, 0.0), std=(1.0, 1.0))
    labels = torch.zeros(200, dtype=torch.int64)
    batches = Batches(image.repeat(200, 1, 1, 1), labels, plain, batch=200, seed=0, augment="crop-flip")
    ((batch, _),) = batches
    down, right = height // 8, width // 8
    padded = torch.nn.functional.pad(image, (right, right, down, down))
    places = {
        (top, left, flipped): view.flip(2) if flipped else view
        for top in range(2 * down + 1)
        for left in range(2 * right + 1)
        for view in [padded[:, top : top + height, left : left + width]]
        for flipped in (False, True)
    }
    bytes_ = (batch * 255).round().to(torch.uint8)
    seen = [next(place for place, view in places.items() if torch.equal(view, found)) for found in bytes_]
    assert len(set(seen)) > 0.8 * len(places)


def test_trivial_augment_changes_each_image_alike_for_equal_seeds_and_leaves_the_global_generator():
    images = torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    plain = Preparation(shape=Shape(3, 32, 32), mean=(0.0,) * 3, std=(1.0,) * 3)

    def batch(seed):
        batches = Batches(images, torch.arange(16), plain, batch=16, seed=seed, augment="trivial")
        return next(iter(batches))

    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, labels = batch(1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(first, batch(1)[0])
    changed = [not torch.equal(one * 255, images[label].float()) for one, label in zip(first, labels, strict=True)]
    assert sum(changed) > 8


def test_grey_images_take_every_augmentation():
    for augment in AUGMENTATIONS:
        images = torch.randint(0, 256, (64, 1, 9, 9), dtype=torch.uint8)
        plain = Preparation(shape=Shape(3, 16, 16), mean=(0.5,), std=(0.2,))
        batches = Batches(images, torch.arange(64), plain, batch=64, seed=0, augment=augment)
        assert next(iter(batches))[0].shape == (64, 3, 16, 16)


def test_prepared_images_have_mean_0_and_std_1():
    random = np.random.RandomState(0).randint(0, 256, (500, 3, 6, 6), dtype=np.uint8)
    values = random / 255
    prepare = Preparation(shape=Shape(3, 6, 6), mean=tuple(values.mean((0, 2, 3))), std=tuple(values.std((0, 2, 3))))
    ready = prepare(torch.from_numpy(random))
    assert ready.mean((0, 2, 3)).abs().max() < 1e-5
    assert (ready.std((0, 2, 3)) - 1).abs().max() < 1e-3
    assert prepare(torch.from_numpy(random)).data_ptr() != ready.data_ptr()


@pytest.mark.parametrize("size", [(32, 32), (28, 20), (4, 4)])
def test_resizing_agrees_with_pillow(size):
    pixels = np.random.RandomState(0).randint(0, 256, (8, 8), dtype=np.uint8)
    ours = Preparation(shape=Shape(1, *size), mean=(0.0,), std=(1.0,))(torch.from_numpy(pixels)[None, None])
    pillow = np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR)) / 255
    assert np.abs(ours[0, 0].numpy() - pillow).max() <= 1.01 / 255


@pytest.mark.parametrize("channels", [1, 3])
def test_growing_by_matrices_agrees_with_the_kernel(channels):
    pixels = torch.randint(256, (3, channels, 28, 20), dtype=torch.uint8)
    prepare = Preparation(shape=Shape(channels, 64, 33), mean=(0.3,) * channels, std=(0.2,) * channels)
    kernel = interpolate((pixels / 255 - 0.3) / 0.2, size=(64, 33), mode="bilinear", align_corners=False)
    assert (prepare(pixels) - kernel).abs().max() < 1e-5


def test_one_channel_is_repeated_and_three_are_refused():
    grey = torch.randint(256, (2, 1, 4, 4), dtype=torch.uint8)
    colour = Preparation(shape=Shape(3, 4, 4), mean=(0.5,), std=(0.5,))(grey)
    assert torch.equal(colour[:, 0], colour[:, 2])
    with pytest.raises(DataError, match="3 channels and cannot become 1x4x4: take --shape 3x4x4"):
        PLAIN(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))


def test_channels_last_changes_the_layout_alone():
    images = torch.randint(256, (2, 3, 4, 4), dtype=torch.uint8)
    one, other = (
        Preparation(shape=Shape(3, 4, 4), mean=(0.5,) * 3, std=(0.5,) * 3, channels_last=last)(images)
        for last in (False, True)
    )
    assert torch.equal(one, other)
    assert other.is_contiguous(memory_format=torch.channels_last)
