"""Steps of the worker in this process: what a training sends and when, and what it reads of a candidate."""

from __future__ import annotations

import json
import os
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load
from torch import nn

from nngen.checks.rule import CheckFailed, fail
from nngen.checks.rules.sample_nets import mixture_source, net_source
from nngen.datasets.batches import Preparation
from nngen.datasets.dataset import WORKER_FILES
from nngen.datasets.stored_images import StoredImages
from nngen.isolation import Isolation
from nngen.seeds import derive
from nngen.testing.fakes import fake_dataset
from nngen.training import worker
from nngen.training.engine import TrainJob
from nngen.training.frames import FrameKind
from nngen.training.orders import TrainOrder
from nngen.training.state.net_state import UnknownStateError
from nngen.types import Candidate, Outcome, Shape, TrialSpec

CPU = torch.device("cpu")
SPEC = TrialSpec(dataset="fake", shape=Shape(1, 8, 8), batch=4, lr=0.01, seed=3)


def order(spec: TrialSpec = SPEC, **options: Any) -> TrainOrder:
    candidate = Candidate(id="one", source="", canonical="")
    job = TrainJob(candidate=candidate, spec=spec, dataset=fake_dataset(), isolation=Isolation.PROCESS)
    logits = options.pop("logits", False)
    return TrainOrder.of(replace(job, logits=logits), **options)


@dataclass
class Sent:
    """Channel of a worker that keeps events, kinds of frames, and files."""

    steps: list[Any] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    bodies: dict[int, bytes] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)

    def send(self, message: dict[str, Any]) -> None:
        self.messages.append(message)
        self.steps.append(message.get("name") or message.get("event"))
        if message.get("event") == "file":
            self.files[message["name"]] = b""

    def send_bytes(self, kind: int, body: bytes) -> None:
        if kind == FrameKind.FILE:
            self.files[[*self.files][-1]] += bytes(body)
            return
        self.steps.append(kind)
        self.bodies[kind] = bytes(body)


@pytest.fixture
def training(tmp_path: Path) -> Iterator[Callable[..., worker._Training]]:
    def make(source: str = "", wanted: TrainOrder | None = None) -> worker._Training:
        path = tmp_path / "candidate.py"
        path.write_text(source)
        channel: Any = Sent()
        return worker._Training(path, wanted or order(), channel)

    filled = torch.utils.deterministic.fill_uninitialized_memory
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield make
    torch.utils.deterministic.fill_uninitialized_memory = filled
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


@pytest.fixture
def files(tmp_path: Path) -> Callable[[], list[int]]:
    """Return descriptors of the worker's files: 20 images to train on, 10 of validation and 5 of test."""
    for part in WORKER_FILES:
        count = {"train": 20, "validation": 10, "test": 5}[part.partition("-")[0]]
        images = np.random.default_rng(count).integers(0, 256, (count, 1, 8, 8), dtype=np.uint8)
        np.save(tmp_path / f"{part}.npy", np.arange(count) % 10 if part == "train-labels" else images)
    return lambda: [os.open(tmp_path / f"{part}.npy", os.O_RDONLY) for part in WORKER_FILES]


ALL = ("checkpoint", "weights", "logits")


@pytest.mark.parametrize(
    ("spec", "options", "steps"),
    [
        ({}, {}, ["ready", "epoch", 2, 3]),
        ({"epochs": 2}, {}, ["ready", "epoch", 2, "epoch", 2, 3]),
        ({}, {"logits": True}, ["ready", "epoch", 2, 6, 3]),
        ({}, {"artifacts": ALL}, ["ready", "epoch", 2, "logits", "weights", 3]),
        (
            {"epochs": 2},
            {"artifacts": ALL, "logits": True},
            ["ready", "epoch", 2, "checkpoint", "epoch", 2, 6, "logits", "weights", 3],
        ),
        ({"horizon": 2}, {"artifacts": ALL[:1]}, ["ready", "epoch", 2, "checkpoint", 3]),
        ({"epochs": 2}, {"artifacts": ALL[1:]}, ["ready", "epoch", 2, "epoch", 2, "logits", "weights", 3]),
        ({"epochs": 2}, {"artifacts": ALL[2:]}, ["ready", "epoch", 2, "epoch", 2, "logits", 3]),
    ],
)
def test_a_training_sends_its_epochs_and_files_in_order(spec, options, steps, training, files) -> None:
    one = training(net_source(), order(replace(SPEC, **spec), **options))
    one.run(files())
    assert one.channel.steps == steps
    ready, *_ = one.channel.messages
    assert ready == {"event": "ready", "parameters": 650, "started": ""}
    assert torch.utils.deterministic.fill_uninitialized_memory is False
    predictions = np.frombuffer(one.channel.bodies[FrameKind.VALIDATION], "<u2")
    assert (len(predictions), len(one.channel.bodies[FrameKind.TEST])) == (10, 10)
    logits = [
        np.frombuffer(one.channel.bodies[kind], "<f2").reshape(10, 10) for kind in one.channel.bodies if kind == 6
    ]
    logits += [load(content)["validation"].numpy() for name, content in one.channel.files.items() if name == "logits"]
    for found in logits:
        assert found.dtype == np.float16
        assert found.argmax(1).tolist() == predictions.tolist()


def test_a_part_of_the_images_and_labels_is_trained_on(training, files) -> None:
    one = training(net_source(), order(replace(SPEC, train_size=12)))
    labels, images = one._data(files(), CPU)
    assert (len(labels), [*images], len(images["train-images"])) == (
        12,
        ["train-images", "validation-images", "test-images"],
        12,
    )
    whole = one.order.__class__.from_json(one.order.to_json() | {"train_size": None})
    every, all_images = training(net_source(), whole)._data(files(), CPU)
    assert every.tolist() == [*range(10)] * 2
    places = [
        next(p for p, image in enumerate(all_images["train-images"]) if torch.equal(image, own))
        for own in images["train-images"]
    ]
    assert every[places].tolist() == labels.tolist()


def test_a_checkpoint_gives_back_the_state_after_its_epoch(training, files, tmp_path: Path) -> None:
    source = net_source(init="self.seen = 0", loss="self.seen += 1")
    spec = replace(SPEC, epochs=2)
    whole = training(source, order(spec, artifacts=ALL[:2]))
    whole.run(files())
    (tmp_path / "checkpoint").write_bytes(whole.channel.files["checkpoint"])
    rest = training(source, order(spec, artifacts=ALL[:2], done=1))
    rest.run([*files(), os.open(tmp_path / "checkpoint", os.O_RDONLY)])
    assert rest.channel.steps == ["ready", "epoch", 2, "weights", 3]
    assert rest.channel.files["weights"] == whole.channel.files["weights"]
    assert rest.channel.bodies == whole.channel.bodies


def test_weights_to_start_from_are_told_in_words(training, files, tmp_path: Path) -> None:
    first = training(net_source(), order(artifacts=("weights",)))
    first.run(files())
    (tmp_path / "weights").write_bytes(first.channel.files["weights"])
    still = order(replace(SPEC, lr=1e-30), artifacts=("weights",))
    on = training(net_source(), replace(still, start=True))
    on.run([*files(), os.open(tmp_path / "weights", os.O_RDONLY)])
    assert on.channel.messages[0]["started"] == "2 of 2 tensors kept"
    assert on.channel.files["weights"] == first.channel.files["weights"]
    other = training(
        "import torch.nn as nn\n" + net_source().replace("self.head", "self.other"), replace(still, start=True)
    )
    with pytest.raises(CheckFailed) as caught:
        other.run([*files(), os.open(tmp_path / "weights", os.O_RDONLY)])
    verdict = caught.value.verdict
    assert (verdict.outcome, verdict.rule) == (Outcome.CRASHED, "worker.train")
    assert verdict.message == "the weights to start from: none of them fits the net"


def test_a_checkpoint_that_fits_no_more_is_told_to_the_engine(training, files, tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_bytes(b"x" * 100)
    one = training(net_source(), order(replace(SPEC, epochs=2), done=1))
    with pytest.raises(CheckFailed) as caught:
        one.run([*files(), os.open(tmp_path / "checkpoint", os.O_RDONLY)])
    verdict = caught.value.verdict
    assert (verdict.outcome, verdict.rule) == (Outcome.CRASHED, "worker.restore")
    assert verdict.message.startswith("its state cannot be restored: not a safetensors file (")


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


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, training) -> Callable[[str], Sent]:
    """Put a source where the entry points look for it, and leave the threads of this process as they are."""
    monkeypatch.setattr(worker, "_configure", lambda device, threads, seed: worker._seed(seed))
    monkeypatch.chdir(tmp_path)

    def put(source: str) -> Sent:
        (tmp_path / "candidate.py").write_text(source)
        return Sent()

    return put


def test_a_training_that_fails_is_a_verdict(here, files) -> None:
    channel = here(net_source(loss="raise ValueError('odd')"))
    worker.train(order().to_json(), channel, files())
    assert channel.steps == ["ready", "verdict"]
    assert channel.messages[1]["message"].startswith("line 23: ValueError: odd, while learn(train_data) ran")
    assert channel.messages[1]["line"] == 23


def test_predictions_of_kept_weights_come_after_the_files_asked_for(here, files, training, tmp_path: Path) -> None:
    first = training(net_source(), order(artifacts=("weights",)))
    numbers = files()
    first.run(numbers)
    (tmp_path / "weights").write_bytes(first.channel.files["weights"])

    def opened() -> list[int]:
        return [os.open(tmp_path / name, os.O_RDONLY) for name in ("validation-images.npy", "weights")]

    for artifacts in ((), ("weights",)):
        channel = here(net_source())
        worker.predict(order(artifacts=artifacts, metadata={"a": "b"}).to_json(), channel, opened())
        assert channel.steps == ["ready", *artifacts, FrameKind.OUTPUTS]
        outputs = np.frombuffer(channel.bodies[FrameKind.OUTPUTS], "<f4").reshape(10, 10)
        predictions = np.frombuffer(first.channel.bodies[FrameKind.VALIDATION], "<u2")
        assert outputs.argmax(1).tolist() == predictions.tolist()
    length = struct.unpack("<Q", channel.files["weights"][:8])[0]
    assert json.loads(channel.files["weights"][8 : 8 + length])["__metadata__"] == {"a": "b"}
    other = here(net_source(init="self.more = nn.Linear(2, 2)"))
    worker.predict(order().to_json(), other, opened())
    assert other.steps == ["ready", "verdict"]
    assert "while the weights were loaded" in other.messages[1]["message"]


def test_a_check_asks_before_it_builds_and_answers_at_the_end(here) -> None:
    channel = here(net_source())
    asking, question = os.pipe()
    os.write(question, b"q" * 32)
    arguments = {"shape": "1x8x8", "classes": 10, "hyperparameters": {}, "device": "cpu", "threads": 1}
    worker.check(arguments, channel, [asking])
    assert channel.steps == ["imported", FrameKind.PROOF]
    body = channel.bodies[FrameKind.PROOF]
    assert (body[:32], len(body)) == (b"q" * 32, 3 * 32 + 4 * 3 * 10)
    assert body[32:64] != body[64:96]
    assert np.isfinite(np.frombuffer(body[96:], "<f4")).all()
    for source, steps, outcome in (
        ("x = (", ["verdict"], "syntax"),
        (net_source(forward="return x"), ["imported", "verdict"], "shape"),
    ):
        os.write(question, b"q" * 32)
        failing = here(source)
        worker.check(arguments, failing, [asking])
        assert (failing.steps, failing.messages[-1]["outcome"]) == (steps, outcome)
    os.close(asking)
    os.close(question)
