"""Settings that a family changes: in force while its own code runs, put back afterwards; its seeds have no effect."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nngen.families.own_settings import OwnSettings

CHANGES: dict[str, Callable[[], object]] = {
    "default type": lambda: torch.set_default_dtype(torch.float64),
    "default device": lambda: torch.set_default_device("meta"),
    "gradients": lambda: torch.set_grad_enabled(False),
    "anomaly detection": lambda: torch.autograd.set_detect_anomaly(True),
    "precision": lambda: torch.set_float32_matmul_precision("medium"),
    "threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "deterministic algorithms": lambda: torch.set_deterministic_debug_mode(1),
    "mkldnn": lambda: setattr(torch.backends.mkldnn, "enabled", False),
    "cudnn": lambda: setattr(torch.backends.cudnn, "enabled", False),
    "cudnn.benchmark": lambda: setattr(torch.backends.cudnn, "benchmark", True),
    "cudnn.deterministic": lambda: setattr(torch.backends.cudnn, "deterministic", True),
    "flash attention": lambda: torch.backends.cuda.enable_flash_sdp(False),
    "attention with less memory": lambda: torch.backends.cuda.enable_mem_efficient_sdp(False),
    "plain attention": lambda: torch.backends.cuda.enable_math_sdp(False),
}
"""Changes of the settings, in the order in which ``OwnSettings`` reads them."""


def read() -> list[object]:
    return OwnSettings(lambda: None).read()


@pytest.fixture(autouse=True)
def unchanged() -> Iterator[None]:
    before = read()
    yield
    assert read() == before


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("name", CHANGES)
def test_a_setting_is_in_force_between_entering_and_leaving(name: str) -> None:
    before, place = read(), list(CHANGES).index(name)
    settings = OwnSettings(CHANGES[name])
    assert read() == before and list(settings.own) == [place]
    for _ in range(2):
        settings.enter()
        inside = read()
        settings.leave()
        assert inside[place] == settings.own[place] != before[place]
        assert [one for number, one in enumerate(inside) if number != place] == [
            one for number, one in enumerate(before) if number != place
        ]
        assert read() == before


def test_each_call_adds_to_what_is_kept_and_may_take_it_back() -> None:
    def build(benchmark: bool) -> nn.Module:
        torch.backends.cudnn.benchmark = benchmark
        torch.backends.mkldnn.enabled = not benchmark
        return nn.ReLU()

    before = read()
    settings = OwnSettings(lambda: build)
    assert settings.own == {} and settings.network is build
    settings(True)
    assert {list(CHANGES)[place] for place in settings.own} == {"mkldnn", "cudnn.benchmark"}
    settings(False)
    assert settings.own == {} and read() == before


class Net(nn.Module):
    """A net that changes its images and a setting, and may fail."""

    error: Exception | None = None

    def forward(self, x: Tensor) -> Tensor:
        x.mul_(2)
        torch.backends.cudnn.benchmark = True
        if self.error is not None:
            raise self.error
        return x


def test_a_forward_pass_gets_copies_of_its_images_and_leaves_no_setting_behind() -> None:
    before, net = read(), OwnSettings(lambda: lambda *_: Net())(3)
    images = torch.ones(2)
    assert net(images).tolist() == [2.0, 2.0] and images.tolist() == [1.0, 1.0]
    assert read() == before
    net.error = ValueError("no")
    with pytest.raises(ValueError, match="no"):
        net(images)
    assert read() == before


def numbers() -> tuple[float, float, float]:
    return float(torch.rand(())), random.random(), float(np.random.rand())


@pytest.mark.parametrize("fails", [False, True])
def test_the_generators_go_on_from_seeds_that_the_family_has_no_influence_on(fails: bool) -> None:
    def seeds(number: int) -> int:
        for seed in (torch.manual_seed, random.seed, np.random.seed):
            seed(number)
        numbers()
        return 1 // (number - 5) if fails else number

    def after(number: int) -> tuple[float, float, float]:
        torch.manual_seed(3)
        settings = OwnSettings(lambda: None)
        torch.manual_seed(3)
        random.seed(4)
        np.random.seed(4)
        if fails:
            with pytest.raises(ZeroDivisionError):
                settings.run(seeds, 5)
        else:
            assert settings.run(seeds, number) == number
        return numbers()

    found = after(1), after(2)
    # Each generator is seeded with a number that torch's own draws: the first one is torch's itself.
    torch.manual_seed(3)
    torch.manual_seed(int(torch.randint(2**31, ())))
    random.seed(int(torch.randint(2**31, ())))
    np.random.seed(int(torch.randint(2**31, ())))
    assert found == (numbers(),) * 2


NEWER = len(OwnSettings.precisions) if hasattr(torch._C, "_get_fp32_precision_getter") else 0


def test_an_older_flag_that_newer_ones_contradict_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def contradicted() -> str:
        raise RuntimeError("mixed precisions")

    before = OwnSettings.read_precision()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_float32_matmul_precision", contradicted)
        assert OwnSettings.read_precision() == (None, *before[1:])


def test_precision_is_read_and_set_as_one_value() -> None:
    before = OwnSettings.read_precision()
    assert len(before) == 2 + NEWER
    try:
        torch.set_float32_matmul_precision("medium")
        torch.backends.cudnn.allow_tf32 = not before[1]
        changed = OwnSettings.read_precision()
        assert changed[:2] == ("medium", not before[1])
        OwnSettings.set_precision(before)
        assert OwnSettings.read_precision() == before
        OwnSettings.set_precision(changed)
        assert OwnSettings.read_precision() == changed
        OwnSettings.set_precision((None, None, *changed[2:]))
        assert OwnSettings.read_precision() == changed
    finally:
        OwnSettings.set_precision(before)
