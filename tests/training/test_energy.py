"""Energy of a block, from NVML's counter."""

import sys
from types import SimpleNamespace

import pytest

from nngen.training.environment import energy_meter


class NVMLError(Exception):
    pass


@pytest.fixture
def nvml(monkeypatch):
    """Stub of pynvml whose counter rises by 1,500 mJ per reading."""
    state = SimpleNamespace(looks=0, open=0, card=None)

    def look(card):
        state.looks += 1
        state.card = card
        return 1500 * state.looks

    def count(change):
        state.open += change

    fake = SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: count(1),
        nvmlShutdown=lambda: count(-1),
        nvmlDeviceGetHandleByIndex=lambda index: f"card {index}",
        nvmlDeviceGetHandleByUUID=lambda uuid: f"card {uuid}",
        nvmlDeviceGetTotalEnergyConsumption=look,
        state=state,
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return fake


def fails(*_):
    raise NVMLError


def test_joules_are_the_difference_of_the_counter(nvml):
    with energy_meter("cuda") as meter:
        assert meter.joules is None
    assert meter.joules == pytest.approx(1.5)
    assert (nvml.state.open, nvml.state.card) == (0, "card 0")


@pytest.mark.parametrize(("visible", "card"), [("2,3", "card 2"), ("GPU-abc", "card GPU-abc")])
def test_the_card_is_the_first_that_cuda_sees(nvml, monkeypatch, visible, card):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with energy_meter("cuda"):
        pass
    assert nvml.state.card == card


@pytest.mark.parametrize("call", ["nvmlInit", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetTotalEnergyConsumption"])
def test_a_device_without_a_counter_gives_none(nvml, monkeypatch, call):
    monkeypatch.setattr(nvml, call, fails)
    with energy_meter("cuda") as meter:
        pass
    assert meter.joules is None
    assert nvml.state.open == 0


@pytest.mark.parametrize("failing", [1, 2])
def test_one_reading_of_two_gives_none(nvml, monkeypatch, failing):
    def look(card):
        nvml.state.looks += 1
        if nvml.state.looks == failing:
            raise NVMLError
        return 1500

    monkeypatch.setattr(nvml, "nvmlDeviceGetTotalEnergyConsumption", look)
    with energy_meter("cuda") as meter:
        pass
    assert (meter.joules, nvml.state.looks) == (None, 2)


@pytest.mark.parametrize(("card", "read"), [("GPU-x", "card GPU-x"), ("4", "card 4"), ("", "card 5")])
def test_the_card_of_a_training_is_read(nvml, monkeypatch, card, read):
    monkeypatch.setattr(nvml, "nvmlDeviceGetHandleByUUID", lambda uuid: uuid.isdigit() or f"card {uuid}")
    monkeypatch.setattr(nvml, "nvmlDeviceGetHandleByIndex", lambda index: f"card {index + 0}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    with energy_meter("cuda", card):
        pass
    assert nvml.state.card == read


def test_without_pynvml_or_on_the_cpu(nvml, monkeypatch):
    with energy_meter("cpu") as meter:
        pass
    assert (meter.joules, nvml.state.looks) == (None, 0)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with energy_meter("cuda") as meter:
        pass
    assert meter.joules is None


def test_it_is_closed_when_the_block_fails(nvml):
    with pytest.raises(RuntimeError), energy_meter("cuda"):
        raise RuntimeError
    assert nvml.state.open == 0
