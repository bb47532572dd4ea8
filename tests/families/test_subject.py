"""A family that was imported: what it is built with, its images behind an adapter, and its loss."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nngen.checks.rule import CheckFailed
from nngen.families.subject import FamilyUnderTest, adapted, adapted_sides
from nngen.types import Adapter, Outcome, Shape

CPU = torch.device("cpu")


def subject(net: object, **prm: object) -> FamilyUnderTest:
    return FamilyUnderTest(path=Path("x.py"), net=net, hyperparameters=prm, channels=2, classes=3)  # type: ignore[arg-type]


def test_a_net_is_built_with_the_values_of_a_trial_and_its_own() -> None:
    found = subject(lambda *given: given, lr=0.5, batch=7).build(8, 9)
    assert found == ((1, 2, 8, 9), (3,), {"batch": 7, "epoch": 1, "transform": "norm_8", "lr": 0.5}, CPU)
    assert subject(lambda *given: given).build(4, 4, "meta")[2:] == (
        {"batch": 2, "epoch": 1, "transform": "norm_4"},
        torch.device("meta"),
    )

    def raises(*_: object) -> nn.Module:
        raise ValueError("no")

    with pytest.raises(CheckFailed) as failed:
        subject(raises).build(8, 9)
    verdict = failed.value.verdict
    assert (verdict.outcome, verdict.rule) == (Outcome.CRASHED, "probe")
    assert verdict.message == "ValueError: no, while Net was built for 8x9"


def test_images_behind_an_adapter_have_its_size_and_type() -> None:
    images, shape = torch.rand(2, 3, 4, 6), Shape(3, 4, 6)
    assert adapted(images, Adapter()) is images and adapted_sides(Adapter(), shape) == (4, 6)
    resized = F.interpolate(images, size=(5, 8), mode="bilinear", align_corners=False)
    assert torch.equal(adapted(images, Adapter(size=(5, 8))), resized)
    assert adapted_sides(Adapter(size=(5, 8)), shape) == (5, 8)
    both = adapted(images, Adapter(size=(5, 8), complex=True))
    assert torch.equal(both, resized.to(torch.complex64)) and both.dtype is torch.complex64


def test_the_loss_is_that_of_labels_in_turn() -> None:
    outputs = torch.zeros(5, 3, requires_grad=True)
    subject(None).backward(outputs)
    labels = F.one_hot(torch.tensor([0, 1, 2, 0, 1]), 3)
    torch.testing.assert_close(outputs.grad, (1 / 3 - labels) / 5)
    with pytest.raises(CheckFailed, match=r", while the backward pass ran$") as failed:
        subject(None).backward(torch.zeros(5, 3))
    assert failed.value.verdict.outcome is Outcome.CRASHED


def test_the_logits_may_be_the_first_of_a_tuple() -> None:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, int]:
            return x.mean((2, 3)), 3

    assert subject(None).logits(Net(), torch.ones(2, 3, 4, 4)).tolist() == [[1.0] * 3] * 2
