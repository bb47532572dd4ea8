"""Images of a worker, and predictions, logits and files of a net in this process."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from worker_channel import CPU, SPEC, order

from nngen.checks.rule import CheckFailed
from nngen.datasets.batches import Preparation
from nngen.datasets.stored_images import StoredImages
from nngen.training.worker.evaluation import half
from nngen.training.worker.images import fitting, in_order, open_images, preparation
from nngen.types import Outcome, Shape


class Sizes(nn.Module):
    """A net that keeps the sizes of its batches; its logits name the first pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(x))
        return nn.functional.one_hot(x[:, 0, 0, 0].long().clamp(0, 9), 10).double()


def test_predictions_take_four_times_the_images_of_a_step(training) -> None:
    one, net = training(), Sizes()
    images = torch.arange(37, dtype=torch.uint8)[:, None, None, None].expand(37, 1, 8, 8)
    kept: list[torch.Tensor] = []
    found = one.predict(net, images, lambda part: part.float(), kept)
    assert net.sizes == [16, 16, 5]
    assert np.frombuffer(found, "<u2").tolist() == [min(number, 9) for number in range(37)]
    assert [(part.dtype, len(part)) for part in kept] == [(torch.float32, size) for size in net.sizes]
    assert (one.predict(net, images, lambda part: part.float()), net.training) == (found, False)


def test_predictions_that_are_not_finite_are_a_verdict(training) -> None:
    one = training()
    net = Sizes()
    net.forward = lambda x: torch.full((len(x), 10), float("nan"))  # type: ignore[method-assign]
    with pytest.raises(CheckFailed) as caught:
        one.predict(net, torch.zeros(2, 1, 8, 8), lambda part: part)
    assert (caught.value.verdict.outcome, caught.value.verdict.rule) == (Outcome.NON_FINITE, "worker.train")
    assert caught.value.verdict.message == "predictions are not finite: lower --lr, or clip the gradient"


@pytest.mark.parametrize(("whole_mib", "whole"), [(3 * 64 / 2**20, True), (3 * 64 / 2**20 - 1e-9, False)])
def test_images_lie_on_the_device_where_all_fit(whole_mib: float, whole: bool, tmp_path: Path) -> None:
    stored = []
    for name, count in (("a", 1), ("b", 2)):
        np.save(tmp_path / name, np.full((count, 1, 8, 8), count, np.uint8))
        stored.append(StoredImages(os.open(tmp_path / f"{name}.npy", os.O_RDONLY), CPU))
    found = fitting(stored, order(whole_mib=whole_mib))
    assert [isinstance(images, torch.Tensor) for images in found] == [whole] * 2
    assert [[len(part) for part in in_order(images, 1)] for images in found] == [[1], [1, 1]]
    assert [int(part.sum()) for part in in_order(found[1], 2)] == [256]


def test_images_are_prepared_as_the_order_says() -> None:
    wanted = replace(order(), mean=(0.25,), std=(0.5,))
    assert preparation(wanted) == Preparation(shape=Shape(1, 8, 8), mean=(0.25,), std=(0.5,))


def test_logits_stay_within_the_range_of_float16() -> None:
    found = half([torch.tensor([[1.5, 1e9]]), torch.tensor([[-1e9, 0.0]])])
    assert (found.dtype, found.tolist()) == (torch.float16, [[1.5, 65504.0], [-65504.0, 0.0]])


def test_a_part_of_the_images_and_labels_is_trained_on(files) -> None:
    labels, images = open_images(files(), order(replace(SPEC, train_size=12)))
    assert (len(labels), [*images], len(images["train-images"])) == (
        12,
        ["train-images", "validation-images", "test-images"],
        12,
    )
    every, all_images = open_images(files(), order())
    assert every.tolist() == [*range(10)] * 2
    places = [
        next(p for p, image in enumerate(all_images["train-images"]) if torch.equal(image, own))
        for own in images["train-images"]
    ]
    assert every[places].tolist() == labels.tolist()
