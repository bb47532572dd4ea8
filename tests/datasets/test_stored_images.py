"""Images that stay in their file: the same batches, bit for bit, as from memory."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from nngen.datasets.batches import Batches, Preparation
from nngen.datasets.stored_images import StoredImages
from nngen.types import AUGMENTATIONS, Shape

CPU = torch.device("cpu")
PREPARE = Preparation(shape=Shape(3, 12, 12), mean=(0.4,) * 3, std=(0.2,) * 3)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "images.npy"
    np.save(path, np.random.RandomState(0).randint(0, 256, (50, 3, 9, 10), np.uint8))
    return path


def opened(file: Path, chosen: torch.Tensor | None = None) -> StoredImages:
    return StoredImages(os.open(file, os.O_RDONLY), CPU, chosen)


@pytest.mark.parametrize("chosen", [None, torch.tensor([3, 9, 4, 44, 0])])
def test_parts_are_those_of_the_whole(chosen, file):
    whole, stored = opened(file, chosen).whole(), opened(file, chosen)
    assert torch.equal(whole, torch.from_numpy(np.load(file))[slice(None) if chosen is None else chosen])
    assert (len(stored), stored.nbytes) == (len(whole), whole.numel())
    parts = torch.randperm(len(whole)).split(2)
    assert all(torch.equal(images, whole[part]) for part, images in zip(parts, stored.batches(parts), strict=True))


@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_batches_from_the_file_are_those_from_memory(augment, file):
    labels = torch.arange(50)
    first, second = (
        Batches(images, labels, PREPARE, batch=7, seed=3, augment=augment)
        for images in (opened(file).whole(), opened(file))
    )
    for _ in range(2):
        both = list(zip(first, second, strict=True))
        assert len(both) == len(first) == 7
        assert all(torch.equal(one, other) for pair in both for one, other in zip(*pair, strict=True))


@pytest.mark.long
def test_a_pass_that_is_left_ends_its_thread(file):
    threads = threading.active_count()
    for _ in Batches(opened(file), torch.arange(50), PREPARE, batch=4, seed=0):
        break
    gc.collect()
    assert threading.active_count() == threads


def test_a_file_that_became_shorter_is_an_error(file):
    stored = opened(file)
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(OSError, match="shorter than it was"):
        list(stored.batches([torch.tensor([49])]))
