"""Measurement of a family in this process: sides that it takes, confirmation, and cost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nngen.checks.rule import CheckFailed
from nngen.families import measure
from nngen.families.measure import confirm, measure_interface, training_cost
from nngen.families.subject import FamilyUnderTest
from nngen.types import Adapter, Interface, Outcome, Shape

FILE = Path("candidate.py")
SHAPE = Shape(3, 12, 12)


class Net(nn.Module):
    """A linear net that looks at its images first."""

    def __init__(self, look: Callable[[nn.Module, Tensor], object], channels: int, classes: int) -> None:
        super().__init__()
        self.look, self.layer = look, nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        changed = self.look(self, x)
        x = changed if isinstance(changed, Tensor) else x
        return self.layer((x.real if x.is_complex() else x).mean((2, 3)))


def subject(look: Callable[[nn.Module, Tensor], object], made: list[Any] | None = None) -> FamilyUnderTest:
    """Make a family whose net calls ``look`` with itself and its images; ``made`` gets what it is built with."""

    def build(in_shape: tuple[int, ...], out_shape: tuple[int], prm: dict[str, Any], device: torch.device) -> nn.Module:
        if made is not None:
            made.append((in_shape, out_shape, prm, device))
        return Net(look, in_shape[1], out_shape[0])

    return FamilyUnderTest(path=FILE, net=build, hyperparameters={"lr": 0.5}, channels=3, classes=10)


def sides(accepts: Callable[[int, int], bool]) -> Callable[[nn.Module, Tensor], None]:
    def look(_: nn.Module, x: Tensor) -> None:
        assert tuple(x.shape[:2]) == (2, 3)
        if not accepts(*x.shape[2:]):
            raise ValueError("no such side")

    return look


@pytest.mark.parametrize(
    ("accepts", "expected"),
    [
        (lambda h, w: True, Interface(low=1)),
        (lambda h, w: min(h, w) >= 20, Interface(low=20)),
        (lambda h, w: min(h, w) >= 2, Interface(low=2)),
        (lambda h, w: min(h, w) >= 200, Interface(low=200)),
        (lambda h, w: max(h, w) <= 40, Interface(low=1, high=40)),
        (lambda h, w: max(h, w) <= 511, Interface(low=1, high=511)),
        (lambda h, w: max(h, w) <= 512, Interface(low=1)),
        (lambda h, w: min(h, w) >= 300 and max(h, w) <= 430, Interface(low=300, high=430)),
        (lambda h, w: h == w == 299, Interface(low=299, high=299)),
        (lambda h, w: h == w, Interface(low=1, square=True)),
        (lambda h, w: h <= w, Interface(low=1, square=True)),
        (lambda h, w: h >= w, Interface(low=1, square=True)),
        (lambda h, w: abs(h - w) <= 31, Interface(low=1, square=True)),
        (lambda h, w: abs(h - w) <= 32, Interface(low=1)),
        (lambda h, w: abs(h - w) <= 15 and max(h, w) <= 80, Interface(low=1, high=80, square=True)),
        (lambda h, w: abs(h - w) <= 16 and max(h, w) <= 80, Interface(low=1, high=80)),
        (lambda h, w: abs(h - w) <= 32 and max(h, w) <= 130, Interface(low=1, high=130)),
    ],
)
def test_the_smallest_and_the_largest_side_are_found(accepts: Callable[[int, int], bool], expected: Interface) -> None:
    assert measure_interface(subject(sides(accepts))) == expected


def test_both_modes_and_real_numbers_decide() -> None:
    def auxiliary(net: nn.Module, x: Tensor) -> None:
        assert not net.training or x.shape[2] >= 33
        assert net.training or x.shape[2] <= 99

    assert measure_interface(subject(auxiliary)) == Interface(low=33, high=99)

    def sly(_: nn.Module, x: Tensor) -> None:  # computes no numbers on the meta device
        assert x.is_meta or 20 <= x.shape[2] <= 200

    assert measure_interface(subject(sly)) == Interface(low=20, high=200)


@pytest.mark.parametrize(("most", "high"), [(255, 255), (256, None), (300, None)])
def test_a_family_that_runs_on_real_tensors_alone_is_searched_with_them(most: int, high: int | None) -> None:
    def look(_: nn.Module, x: Tensor) -> None:
        assert not x.is_meta and 10 <= x.shape[2] <= most

    assert measure_interface(subject(look)) == Interface(low=10, high=high)


def test_complex_images_are_tried_where_real_ones_fail() -> None:
    def look(_: nn.Module, x: Tensor) -> None:
        assert x.dtype is torch.complex64 and x.shape[2] >= 16

    assert measure_interface(subject(look)) == Interface(low=16, complex=True)


def test_a_family_that_takes_no_side_is_refused_with_the_first_reason() -> None:
    seen = []

    def look(_: nn.Module, x: Tensor) -> None:
        seen.append((str(x.device), x.is_complex(), x.shape[2]))
        raise ValueError(f"not {x.shape[2]} on {x.device}")

    with pytest.raises(CheckFailed) as refused:
        measure_interface(subject(look))
    verdict = refused.value.verdict
    assert (verdict.outcome, verdict.rule) == (Outcome.SHAPE, "probe")
    assert verdict.message == (
        "works at none of 64, 32, 128, 256, 384, 224, 28, 299 px; at 64x64: ValueError: not 64 on cpu, while forward"
        " ran in eval mode on a batch of 2"
    )
    tried = [(device, kind, side) for kind in (False, True) for device in ("meta", "cpu") for side in measure._SIDES]
    assert seen == tried


def test_want_of_memory_ends_the_measurement() -> None:
    tries = []

    def look(_: nn.Module, x: Tensor) -> None:
        tries.append(x)
        raise MemoryError

    with pytest.raises(CheckFailed) as refused:
        measure_interface(subject(look))
    assert (refused.value.verdict.outcome, len(tries)) == (Outcome.MEMORY, 1)


def test_a_side_is_tried_once_and_the_last_reason_is_kept() -> None:
    made: list[Any] = []
    search = measure._Search(family=subject(sides(lambda h, w: h != 7), made), device="cpu", complex=False)
    assert [search.works(*tried) for tried in ((8, 9), (7, 9), (8, 9), (7, 9), (9, 8))] == [True, False] * 2 + [True]
    prm = {"batch": 2, "epoch": 1, "transform": "norm_8", "lr": 0.5}
    assert [entry[0] for entry in made] == [(1, 3, 8, 9), (1, 3, 7, 9), (1, 3, 9, 8)]
    assert made[0][1:] == ((10,), prm, torch.device("cpu"))
    assert search.reason == "ValueError: no such side, while forward ran in eval mode on a batch of 2"


def test_confirming_runs_both_modes_behind_the_adapter() -> None:
    seen: list[object] = []

    def look(net: nn.Module, x: Tensor) -> None:
        assert torch.initial_seed() == 0
        seen.append((net.training, torch.is_grad_enabled(), tuple(x.shape), x.dtype))

    family = subject(look)
    torch.manual_seed(5)
    confirm(family, Adapter(), Shape(3, 5, 6))
    confirm(family, Adapter(size=(8, 9), complex=True), Shape(3, 5, 6))
    first, second = ((2, 3, 5, 6), torch.float32), ((2, 3, 8, 9), torch.complex64)
    assert seen == [(mode, mode, *what) for what in (first, second) for mode in (False, True)]


def test_what_is_not_confirmed_has_an_outcome_and_a_reason() -> None:
    def infinite(training: bool) -> Callable[[nn.Module, Tensor], Tensor]:
        return lambda net, x: x / 0 if net.training is training else x

    def message(family: FamilyUnderTest) -> tuple[Outcome, str]:
        with pytest.raises(CheckFailed) as refused:
            confirm(family, Adapter(), SHAPE)
        return refused.value.verdict.outcome, refused.value.verdict.message

    for training, mode in ((False, "evaluation"), (True, "training")):
        expected = (Outcome.NON_FINITE, f"logits are not finite in {mode} mode")
        assert message(subject(infinite(training))) == expected

    class Other(Net):
        """First a parameter that nothing uses, then those of the layer, whose gradient may be zero."""

        factor = 1.0

        def __init__(self) -> None:
            super().__init__(lambda *_: None, 3, 10)
            self.layer = nn.Sequential(nn.Module(), nn.Linear(3, 10))
            self.layer[0].weight = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer[1](x.mean((2, 3))) * self.factor

    def made(factor: float) -> FamilyUnderTest:
        net = Other()
        net.factor = factor
        return FamilyUnderTest(path=FILE, net=lambda *_: net, hyperparameters={}, channels=3, classes=10)

    confirm(made(1.0), Adapter(), SHAPE)
    assert message(made(0.0)) == (Outcome.NO_GRADIENT, "no parameter received a gradient")


class Clock:
    """A clock that each pass moves: a part for the step, a part for each image, and a disturbance."""

    now = 0.0

    def __init__(self) -> None:
        self.batches: list[int] = []

    def perf_counter(self) -> float:
        return self.now

    def run(self, count: int) -> None:
        self.now += 2.0 + 0.25 * count + (4.0, 0.0, 1.0)[len(self.batches) % 3]
        self.batches.append(count)


class Saving(nn.Module):
    """A net that keeps its images, one result as large, of which a view is read too, and what its layer reads."""

    def __init__(self, clock: Clock) -> None:
        assert torch.initial_seed() == 0
        super().__init__()
        self.clock, self.scale, self.layer = clock, nn.Parameter(torch.ones(1)), nn.Linear(1, 10)
        self.register_buffer("table", torch.ones(2**18))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        assert self.training
        self.clock.run(len(x))
        found = (self.scale * x).exp()
        return self.layer((found * found.view_as(found)).mean((2, 3)))


def test_the_cost_is_what_is_kept_and_the_time_of_the_fastest_run(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(measure, "time", clock)
    torch.manual_seed(5)
    family = FamilyUnderTest(path=FILE, net=lambda *_: Saving(clock), hyperparameters={}, channels=1, classes=10)
    cost = training_cost(family, Adapter(size=(128, 64)), Shape(1, 12, 12))
    kept = 2 * 128 * 64 * 4 + 4  # in float32, for each image
    assert cost == {
        "weights_mib": 1 + 4 * 21 / 2**20,
        "image_mib": kept / 2**20,
        "image_s": 0.25,
        "step_s": 2.0,
    }
    assert clock.batches == [2] * 3 + [4] * 3 + [16] * 3


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ({2: (128, 3.0), 4: (256, 9.0), 16: (0, 10.0)}, (64.0, 0.5, 2.0)),  # 16 images need 1,024 MiB
        ({2: (128, 3.0), 4: (256.0625, 9.0)}, (64.03125, 3.0, 0.0)),  # these need half a MiB more
        ({2: (128, 3.0), 4: (258, 4.0)}, (65.0, 0.5, 2.0)),
        ({2: (128, 3.0), 4: (258, 2.0)}, (65.0, 0.0, 3.0)),
        ({2: (128, 3.0), 4: (64, 9.0), 16: (0, 1.0)}, (0.0, 0.0, 3.0)),
    ],
)
def test_the_cost_is_a_difference_of_batches_and_not_negative(
    steps: dict[int, tuple[float, float]], expected: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(_family: object, _net: object, images: Tensor) -> tuple[float, float]:
        mib, seconds = steps[len(images)]
        return mib * 2**20, seconds

    monkeypatch.setattr(measure, "_step", step)
    cost = training_cost(subject(lambda *_: None), Adapter(), SHAPE)
    assert tuple(cost[name] for name in ("image_mib", "image_s", "step_s")) == expected
