"""The worker's entry points in this process: what a training, a prediction and a check send, and when."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save_file
from worker_channel import CPU, SPEC, Sent, order

from nngen.checks.rule import CheckFailed
from nngen.checks.rules.sample_nets import mixture_source, net_source
from nngen.training import worker
from nngen.training.frames import FrameKind
from nngen.types import Outcome

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


@pytest.mark.parametrize(("most", "steps"), [(99, []), (100, ["logits"])])
def test_logits_are_kept_up_to_a_number_of_values(most, steps, training, files, monkeypatch) -> None:
    monkeypatch.setattr(worker, "_MOST_LOGITS", most)  # ten images of ten classes
    one = training(net_source(), order(SPEC, artifacts=ALL[2:]))
    one.run(files())
    assert one.channel.steps == ["ready", "epoch", 2, *steps, 3]


@pytest.mark.parametrize(("more", "steps"), [(0, ["logits"]), (1, [])])
def test_logits_are_kept_up_to_two_to_the_power_of_25(more, steps, training, files, monkeypatch) -> None:
    def predict(_: object, net: object, images: object, prepare: object, kept: list[torch.Tensor] | None = None):
        for count in (2**25 - 1, 1 + more):
            if kept is not None:
                kept.append(torch.zeros(1).expand(count))
        return b"ab"

    monkeypatch.setattr(worker._Training, "predict", predict)
    monkeypatch.setattr(worker, "_half", lambda outputs: torch.zeros(len(outputs)))
    one = training(net_source(), order(SPEC, artifacts=ALL[2:]))
    one.run(files())
    assert one.channel.steps == ["ready", "epoch", 2, *steps, 3]


def test_a_graph_is_made_with_the_first_four_images(here, files, training, tmp_path: Path, monkeypatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(worker, "send_artifacts", lambda *arguments: given.append(arguments))
    one = training(net_source(), order(artifacts=("onnx",), metadata={"a": "b"}))
    numbers = files()
    save_file(one.build(CPU).state_dict(), tmp_path / "weights")
    one.run(numbers)
    channel = here(net_source())
    opened = [os.open(tmp_path / name, os.O_RDONLY) for name in ("validation-images.npy", "weights")]
    worker.predict(one.order.to_json(), channel, opened)
    for (net, names, example, metadata, sent_by), part, sent_to in zip(
        given, ("test", "validation"), (one.channel, channel), strict=True
    ):
        images = torch.from_numpy(np.load(tmp_path / f"{part}-images.npy"))
        assert torch.equal(example, one.preparation()(images[:4]))
        assert (names, metadata, net.training) == (("onnx",), {"a": "b"}, False)
        assert sent_by is sent_to


@pytest.mark.parametrize("options", [{}, {"start": True}, {"experts": 2}])
def test_frozen_experts_need_weights_of_either_kind(options, training, files, tmp_path: Path, monkeypatch) -> None:
    source = mixture_source(init="self.frozen = True; self.experts.requires_grad_(False)")
    for name in ("place_experts", "take_over"):
        monkeypatch.setattr(worker, name, lambda *_: "")
    monkeypatch.setattr(worker, "TensorFile", lambda _: {})
    one = training(source, replace(order(), **options))
    (tmp_path / "weights").write_bytes(b"")
    more = [os.open(tmp_path / "weights", os.O_RDONLY) for _ in range(options.get("experts", len(options)))]
    if options:
        one.run([*files(), *more])
        assert one.channel.steps == ["ready", "epoch", 2, 3]
        return
    with pytest.raises(CheckFailed) as caught:
        one.run(files())
    verdict = caught.value.verdict
    assert (verdict.outcome, verdict.rule, one.channel.steps) == (Outcome.CONTRACT, "worker.train", ["ready"])
    assert verdict.message == (
        "its experts are frozen and have no trained weights: nngen surrogate gates --train hands them over, and nngen"
        " train --from goes on from the weights of a mixture"
    )


def test_what_a_file_draws_when_it_is_imported_does_not_change_its_weights(training) -> None:
    nets = []
    for draws in ("", "torch.rand(5)\n"):
        worker._seed(3)
        nets.append(training("import torch\n" + draws + net_source(), order()).build(CPU).state_dict())
    assert all(torch.equal(value, nets[1][name]) for name, value in nets[0].items())


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


def test_each_entry_point_sets_up_its_process(here, files, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(worker, "_configure", lambda *given, **named: calls.append((given, named)))
    channel, numbers = here("x = ("), files()
    worker.check({"shape": "1x8x8", "classes": 2, "hyperparameters": {}, "device": "cpu", "threads": 2}, channel, [])
    worker.train(order(replace(SPEC, threads=4)).to_json(), channel, files())
    worker.predict(order().to_json(), channel, numbers[:2])
    for number in (numbers[0], *numbers[2:]):
        os.close(number)
    assert calls == [(("cpu", 2), {"seed": 0}), (("cpu", 4, 3), {}), (("cpu", 1, 3), {})]
    assert channel.steps == ["verdict"] * 3


def test_a_net_is_compiled_where_it_is_asked_for(training, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []
    monkeypatch.setattr(worker, "_compile", compiled.append)
    nets = [training(net_source(), order(compiled=asked)).build(CPU) for asked in (False, True)]
    assert compiled == nets[1:]
