"""Entry points of the worker in this process: checks, trainings, predictions, graphics cards."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from worker_channel import SPEC, Sent, order

from nngen.checks.rule import fail
from nngen.checks.rules.sample_nets import net_source
from nngen.training import worker
from nngen.training.frames import FrameKind
from nngen.training.worker import evaluation
from nngen.training.worker.images import preparation
from nngen.training.worker.numerics import seed_generators
from nngen.types import Outcome


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, training) -> Callable[[str], Sent]:
    """Put a source where the entry points look for it, and leave the threads of this process as they are."""
    monkeypatch.setattr(worker, "configure", lambda device, threads, seed: seed_generators(seed))
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


def test_a_graph_is_made_with_the_first_four_images(here, files, training, tmp_path: Path, monkeypatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(evaluation, "send_artifacts", lambda *arguments: given.append(arguments))
    one = training(net_source(), order(artifacts=("onnx",), metadata={"a": "b"}))
    numbers = files()
    save_file(one.build().state_dict(), tmp_path / "weights")
    one.run(numbers)
    channel = here(net_source())
    opened = [os.open(tmp_path / name, os.O_RDONLY) for name in ("validation-images.npy", "weights")]
    worker.predict(one.order.to_json(), channel, opened)
    for (net, names, example, metadata, sent_by), part, sent_to in zip(
        given, ("test", "validation"), (one.channel, channel), strict=True
    ):
        images = torch.from_numpy(np.load(tmp_path / f"{part}-images.npy"))
        assert torch.equal(example, preparation(one.order)(images[:4]))
        assert (names, metadata, net.training) == (("onnx",), {"a": "b"}, False)
        assert sent_by is sent_to


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


def test_each_entry_point_sets_up_its_process(here, files, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(worker, "configure", lambda *given, **named: calls.append((given, named)))
    channel, numbers = here("x = ("), files()
    worker.check({"shape": "1x8x8", "classes": 2, "hyperparameters": {}, "device": "cpu", "threads": 2}, channel, [])
    worker.train(order(replace(SPEC, threads=4)).to_json(), channel, files())
    worker.predict(order().to_json(), channel, numbers[:2])
    for number in (numbers[0], *numbers[2:]):
        os.close(number)
    assert calls == [(("cpu", 2), {"seed": 0}), (("cpu", 4, 3), {}), (("cpu", 1, 3), {})]
    assert channel.steps == ["verdict"] * 3


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


def test_cards_are_described_by_name_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = [SimpleNamespace(name="Small", total_memory=3 * 2**20), SimpleNamespace(name="Large", total_memory=2**33)]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: cards[number])
    channel: Any = Sent()
    worker.describe_cards({}, channel, [])
    assert channel.messages == [{"name": "Small", "mib": 3.0}, {"name": "Large", "mib": 8192.0}]
