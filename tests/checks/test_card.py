"""The format channels_last: which nets and parts take it, and what is done to those that do not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nngen.checks.card import contiguous_parts, takes_channels_last, use_channels_last
from nngen.checks.rule import CheckFailed
from nngen.types import Outcome

FILE = Path("candidate.py")
LAST = torch.channels_last
IMAGES = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


class Scaled(nn.Module):
    """A net whose logits are other ones in channels_last, where it may raise in one of the modes or going back."""

    def __init__(self, factor: float = 1.0, error: BaseException | None = None, when: str = "") -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 1), nn.Linear(4, 5)
        self.factor, self.error, self.when = factor, error, when
        self.passes: list[tuple[bool, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        last = not x.is_contiguous()
        self.passes.append((last, self.training))
        found = self.head(self.conv(x).mean((2, 3)))
        if last and self.error is not None:
            if self.when == ("train" if self.training else "eval"):
                raise self.error
            if self.when == "backward" and self.training:
                found.register_hook(self._raise)
        return found * self.factor if last else found

    def _raise(self, _: Tensor) -> None:
        assert self.error is not None
        raise self.error


@pytest.mark.parametrize(
    ("factor", "takes"),
    [(1.0, True), (1.019, True), (0.981, True), (1.021, False), (0.979, False), (float("nan"), False)],
)
def test_logits_may_differ_by_rounding_alone(factor: float, takes: bool) -> None:
    net = Scaled(factor)
    assert takes_channels_last(net, IMAGES, FILE, 5) is takes
    assert net.passes == [(False, False), (True, False), (True, True)]
    assert net.conv.weight.grad is not None


def test_weights_are_tried_in_the_format_too() -> None:
    class Looks(Scaled):
        def forward(self, x: Tensor) -> Tensor:
            self.weights.append(self.conv.weight.is_contiguous(memory_format=LAST))
            return super().forward(x)

    net = Looks()
    net.conv, net.weights = nn.Conv2d(3, 4, 2), []
    assert takes_channels_last(net, IMAGES, FILE, 5)
    assert net.weights == [False, True, True]


@pytest.mark.parametrize("when", ["eval", "train", "backward"])
def test_a_failure_in_the_format_is_an_answer_and_want_of_memory_is_not(when: str) -> None:
    assert not takes_channels_last(Scaled(error=ValueError("no"), when=when), IMAGES, FILE, 5)
    with pytest.raises(CheckFailed) as failed:
        takes_channels_last(Scaled(error=MemoryError("full"), when=when), IMAGES, FILE, 5)
    assert failed.value.verdict.outcome is Outcome.MEMORY


def test_a_backward_pass_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Scaled(error=RuntimeError("out of memory"), when="backward")
    with pytest.raises(CheckFailed) as failed:
        takes_channels_last(net, IMAGES, FILE, 5)
    verdict = failed.value.verdict
    assert (verdict.outcome, verdict.rule) == (Outcome.MEMORY, "card")
    assert verdict.message == "RuntimeError: out of memory, while the backward pass ran in channels_last"


def test_a_net_that_draws_in_evaluation_draws_the_same_numbers() -> None:
    class Draws(Scaled):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + torch.randn(5)

    assert takes_channels_last(Draws(), IMAGES, FILE, 5)


class Mixture(nn.Module):
    def __init__(self, experts: object, adapters: object) -> None:
        super().__init__()
        self.experts, self.adapters = experts, adapters

    def forward(self, x: Tensor) -> Tensor:
        return self.experts[0](x) if isinstance(self.experts, nn.ModuleList) else x.new_ones(2, 5, requires_grad=True)


def test_each_expert_is_tried_behind_its_adapter() -> None:
    class Crop(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :, 1:, 1:].contiguous()

    experts = nn.ModuleList([Scaled(2.0), Scaled(), Scaled(3.0)])
    adapters = nn.ModuleList([Crop(), nn.Identity(), Crop()])
    assert contiguous_parts(Mixture(experts, adapters), IMAGES, FILE, 5) == ("experts.0", "experts.2")
    # A net that has experts or adapters of another kind is one part.
    assert contiguous_parts(Mixture(experts, None), IMAGES, FILE, 5) == ("",)
    assert contiguous_parts(Mixture(3, adapters), IMAGES, FILE, 5) == ()

    class Breaks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("no images")

    with pytest.raises(CheckFailed, match=r"^ValueError: no images, while the adapter of expert 1 ran$"):
        contiguous_parts(Mixture(experts, nn.ModuleList([Crop(), Breaks(), Crop()])), IMAGES, FILE, 5)


def test_weights_of_four_axes_get_the_format_and_the_parts_that_are_named_keep_theirs() -> None:
    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.deep = nn.Conv3d(3, 4, 3)
            self.flat = nn.Linear(3, 4)
            self.register_buffer("table", torch.rand(2, 3, 4, 5))

        def forward(self, x: Tensor, other: Tensor, count: int) -> tuple[bool, bool, int]:
            return x.is_contiguous(), other.is_contiguous(), count

    net = nn.ModuleDict({"one": Part(), "two": Part()})
    use_channels_last(net, ["two"])
    one, two = net["one"], net["two"]
    for part, last in ((one, True), (two, False)):
        assert [value.is_contiguous(memory_format=LAST) for value in (part.conv.weight, part.table)] == [last] * 2
        assert [value.is_contiguous() for value in (part.conv.weight, part.table)] == [not last] * 2
        assert part.deep.weight.is_contiguous() and part.flat.weight.is_contiguous()
    images = IMAGES.contiguous(memory_format=LAST)
    assert one(images, images, 3) == (False, False, 3)
    assert two(images, images, 3) == (True, True, 3)
    use_channels_last(two)
    assert two.conv.weight.is_contiguous(memory_format=LAST)
