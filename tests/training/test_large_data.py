"""Data larger than the share of memory that it may take: batches are read from the files, with the same results."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nngen.checks.rules.sample_nets import net_source
from nngen.datasets.loading import store_dataset
from nngen.datasets.source import Raw
from nngen.training import attempts
from nngen.types import Shape


@pytest.mark.parametrize("size", [None, 200])
def test_a_training_that_reads_batches_is_the_one_that_has_all_in_memory(size, engine, job, monkeypatch):
    work = job(net_source(), epochs=2, train_size=size, augment="crop-flip")
    whole = engine.train(replace(work, logits=True))
    monkeypatch.setattr(attempts, "WHOLE", {"cpu": 0.0})
    read = engine.train(replace(work, logits=True))
    assert read.verdict.valid, read.verdict.message
    assert read.validation_logits == whole.validation_logits
    assert read.test_predictions == whole.test_predictions
    assert [point.train_loss for point in read.curve] == [point.train_loss for point in whole.curve]


class _Large:
    """400 MiB of images: two classes, dark and bright."""

    name = "large"
    default_shape = None

    def key(self) -> str:
        return "1"

    def decode(self) -> Raw:
        labels = np.arange(2000, dtype=np.int64) % 2
        images = np.broadcast_to((labels * 200).astype(np.uint8)[:, None, None, None], (2000, 3, 264, 264))
        return Raw(classes=2, images=images, labels=labels)


@pytest.mark.long
def test_resident_memory_does_not_grow_with_the_images(cache, engine, job):
    data = store_dataset(_Large(), cache / "data" / "large")
    # In the second epoch all pages are resident: memory is measured some times a second.
    work = job(net_source(), dataset=data, shape=Shape(3, 8, 8), batch=32, memory_mib=1200, epochs=2)
    read, mapped = engine.train(work), engine.train(replace(work, spec=replace(work.spec, memory_mib=12_000)))
    assert read.verdict.valid, read.verdict.message
    assert read.test_predictions == mapped.test_predictions
    # Mapped pages of a file count as memory of a process.
    assert read.peak_mib < mapped.peak_mib - 200
