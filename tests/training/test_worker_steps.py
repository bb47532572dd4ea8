"""Steps of the worker in this process: checkpoints, predictions, and what it reads of a candidate."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from worker_channel import CPU, Sent, order

from nngen.checks.rule import CheckFailed, fail
from nngen.checks.rules.sample_nets import mixture_source
from nngen.datasets.batches import Preparation
from nngen.datasets.stored_images import StoredImages
from nngen.seeds import derive
from nngen.training import worker
from nngen.training.state.net_state import UnknownStateError
from nngen.types import Outcome, Shape


@pytest.fixture
def checkpoints(training, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, SimpleNamespace]]:
    """A training at a second 1000 of a clock, whose state takes a quarter of a second to be sent."""
    clock = SimpleNamespace(now=1000.0, state=({}, {"a": 1}))

    def send(channel: Any, name: str, tensors: Any, **metadata: str) -> None:
        clock.now += 0.25
        channel.steps.append((name, tensors, metadata))

    def take(_: object) -> Any:
        if isinstance(clock.state, Exception):
            raise clock.state
        return clock.state

    monkeypatch.setattr(worker, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(worker, "send_tensors", send)
    monkeypatch.setattr(worker, "capture", take)

    def make(stored_at: float, storing_s: float, asked: bool = True) -> tuple[Any, SimpleNamespace]:
        one = training()
        one.checkpoints, one.stored_at, one.storing_s = asked, stored_at, storing_s
        return one, clock

    return make


@pytest.mark.parametrize(
    ("stored_at", "storing_s", "needed", "asked", "sent"),
    [
        (990.0, 5.0, False, True, True),
        (990.0, 5.5, False, True, False),  # more than half of the time since the last one
        (990.0, 5.5, True, True, True),
        (999.5, 1.0, False, True, True),
        (999.5, 1.25, False, True, False),
        (990.0, 0.0, True, False, False),
        (990.0, 0.0, False, False, False),
    ],
)
def test_checkpoints_take_half_of_the_time_at_most(stored_at, storing_s, needed, asked, sent, checkpoints) -> None:
    one, _ = checkpoints(stored_at, storing_s, asked)
    one._send_checkpoint(None, needed=needed)
    assert one.channel.steps == [("checkpoint", {}, {"state": '{"a": 1}'})] * sent
    assert (one.stored_at, one.storing_s) == ((1000.25, 0.25) if sent else (stored_at, storing_s))


def test_a_state_that_cannot_be_known_is_told_once(checkpoints) -> None:
    one, clock = checkpoints(990.0, 0.0)
    clock.state = UnknownStateError("net.a is a lock")
    for _ in range(2):
        one._send_checkpoint(None, needed=False)
    assert one.channel.messages == [{"event": "no-file", "name": "checkpoint", "reason": "net.a is a lock"}]


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
def test_images_lie_on_the_device_where_all_fit(whole_mib: float, whole: bool, training, tmp_path: Path) -> None:
    stored = []
    for name, count in (("a", 1), ("b", 2)):
        np.save(tmp_path / name, np.full((count, 1, 8, 8), count, np.uint8))
        stored.append(StoredImages(os.open(tmp_path / f"{name}.npy", os.O_RDONLY), CPU))
    found = training("", order(whole_mib=whole_mib)).fitting(stored)
    assert [isinstance(images, torch.Tensor) for images in found] == [whole] * 2
    assert [[len(part) for part in worker._in_order(images, 1)] for images in found] == [[1], [1, 1]]
    assert [int(part.sum()) for part in worker._in_order(found[1], 2)] == [256]


def test_images_are_prepared_as_the_order_says(training) -> None:
    wanted = replace(order(), mean=(0.25,), std=(0.5,))
    assert training("", wanted).preparation() == Preparation(shape=Shape(1, 8, 8), mean=(0.25,), std=(0.5,))


def test_a_card_tries_two_images_without_the_search_for_algorithms(training, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Any] = []

    def parts(net: nn.Module, images: torch.Tensor, path: Path, classes: int) -> tuple[str, ...]:
        tried.append((net, tuple(images.shape), images.device, path, classes, torch.backends.cudnn.benchmark))
        return ("a",)

    monkeypatch.setattr(worker, "contiguous_parts", parts)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    one, net = training("", replace(order(), shape=Shape(3, 4, 5), classes=7)), Sizes()
    assert one._contiguous_parts(lambda: net) == ("a",)
    assert tried == [(net, (2, 3, 4, 5), CPU, one.path, 7, False)]
    assert torch.backends.cudnn.benchmark is True


def test_logits_stay_within_the_range_of_float16() -> None:
    found = worker._half([torch.tensor([[1.5, 1e9]]), torch.tensor([[-1e9, 0.0]])])
    assert (found.dtype, found.tolist()) == (torch.float16, [[1.5, 65504.0], [-65504.0, 0.0]])


@pytest.mark.parametrize(
    ("values", "good"),
    [
        ([torch.zeros(2), torch.ones(3)], True),
        ([torch.zeros(2), torch.tensor([1.0, float("inf")])], False),
        ([torch.tensor([complex(0, float("nan"))])], False),
        ([], True),
    ],
)
def test_weights_that_are_not_finite_end_a_training(values: list[torch.Tensor], good: bool) -> None:
    net = nn.Module()
    net.values = nn.ParameterList(values)
    net.whole = nn.Parameter(torch.tensor([1]), requires_grad=False)
    if good:
        worker._refuse_non_finite(net, 5)
        return
    with pytest.raises(CheckFailed) as caught:
        worker._refuse_non_finite(net, 5)
    text = "weights are not finite after step 5 of an epoch: lower --lr, or clip the gradient"
    assert (caught.value.verdict.outcome, caught.value.verdict.message) == (Outcome.NON_FINITE, text)


@pytest.mark.parametrize(
    ("returned", "accuracy", "loss"),
    [
        ((0.5, 1.5), 0.5, 1.5),
        ((torch.tensor(0.5), "2"), 0.5, 2.0),
        ((float("inf"), object()), None, None),
        ((0.5,), None, None),
        ((0.5, 1.5, 2.5), None, None),
        ([0.5, 1.5], None, None),
        (None, None, None),
    ],
)
def test_what_learn_returns_is_read_as_numbers(returned: object, accuracy: float | None, loss: float | None) -> None:
    assert worker._reported(returned) == {"train_accuracy": accuracy, "train_loss": loss}


@pytest.mark.parametrize(
    ("history", "found"),
    [
        ([{}, {"usage": [0.25, "x"], "entropy": 1}], {"usage": [0.25, None], "entropy": 1.0}),
        ([{"usage": [0.5] * 70, "entropy": float("nan")}], {"usage": [0.5] * 64, "entropy": None}),
        ([{"usage": 3, "entropy": 1}], {}),
        ([], {}),
    ],
)
def test_the_gates_history_is_read_as_numbers(history: list[Any], found: dict[str, Any]) -> None:
    net: Any = SimpleNamespace(history=history)
    assert worker._history(net) == found
    assert worker._history(nn.Linear(1, 1)) == {}


def test_a_report_has_what_learn_and_the_gate_say(training, files) -> None:
    init = "self.history = [{'usage': [0.5, 0.5], 'entropy': 0.5}]"
    one = training(mixture_source(init=init) + "\n    def more(self): pass\n")
    one.run(files())
    assert one.channel.messages[1] == {
        "event": "epoch",
        "samples": 20,
        "train_accuracy": None,
        "train_loss": None,
        "usage": [0.5, 0.5],
        "entropy": 0.5,
    }


@pytest.mark.parametrize("mixture", [False, True])
def test_the_experts_of_a_mixture_are_compiled_one_by_one(mixture: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda part: compiled.append(part))
    net = nn.Sequential(nn.Linear(1, 1))
    if mixture:
        net.experts = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])
    worker._compile(net)
    assert compiled == ([*net.experts] if mixture else [net])


@pytest.mark.parametrize(("line", "sent"), [(None, None), (0, None), (1, 1), (3, 3), (4, None)])
def test_a_failure_is_sent_with_a_line_of_the_file(line: int | None, sent: int | None, tmp_path: Path) -> None:
    path, channel = tmp_path / "candidate.py", Sent()
    path.write_text("a\nb\n")
    with worker._failures_sent(channel, path):  # type: ignore[arg-type]
        path.unlink()
        raise fail(Outcome.SHAPE, "rule", "text", line=line)
    message = "text" if line is None else f"line {line}: text"
    (found,) = channel.messages
    assert found == {"event": "verdict", "outcome": "shape", "rule": "rule", "message": message, "line": sent}
    json.dumps(found)


def test_draws_of_an_evaluation_are_its_own(training) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(1))

    def seeded(seed: int) -> tuple[float, float, float]:
        random.seed(derive(seed, "python"))
        np.random.seed(derive(seed, "numpy"))
        torch.manual_seed(derive(seed, "torch"))
        return draw()

    wanted = seeded(7)
    worker._seed(7)
    assert draw() == wanted
    worker._seed(8)
    first, second = draw(), draw()
    worker._seed(8)
    assert draw() == first
    with worker._own_draws(7):
        assert draw() == wanted
    assert draw() == second


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_arithmetic_of_a_worker_is_set(device: str, monkeypatch: pytest.MonkeyPatch, training) -> None:
    set_: list[Any] = []
    for name in ("set_num_threads", "set_num_interop_threads"):
        monkeypatch.setattr(torch, name, lambda number, name=name: set_.append((name, number)))
    deterministic: Any = lambda *given, **named: set_.append((given, named))  # noqa: E731
    monkeypatch.setattr(torch, "use_deterministic_algorithms", deterministic)
    card = SimpleNamespace(cuda=SimpleNamespace(matmul=SimpleNamespace()), cudnn=SimpleNamespace())
    monkeypatch.setattr(torch, "backends", card)
    worker._configure(device, 3, 7)
    assert torch.initial_seed() == derive(7, "torch")
    on = device == "cuda"
    assert set_ == [("set_num_threads", 3), ("set_num_interop_threads", 1)] + [((True,), {"warn_only": True})] * (
        not on
    )
    assert (vars(card.cuda.matmul), vars(card.cudnn)) == (
        ({"allow_tf32": True}, {"allow_tf32": True, "benchmark": True}) if on else ({}, {})
    )


def test_cards_are_described_by_name_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = [SimpleNamespace(name="Small", total_memory=3 * 2**20), SimpleNamespace(name="Large", total_memory=2**33)]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: cards[number])
    channel: Any = Sent()
    worker.describe_cards({}, channel, [])
    assert channel.messages == [{"name": "Small", "mib": 3.0}, {"name": "Large", "mib": 8192.0}]
