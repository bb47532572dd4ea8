"""Epochs of a training in this process: what is sent and when, and what is read of the candidate."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load
from torch import nn
from worker_channel import SPEC, order

from nngen.checks.rule import CheckFailed
from nngen.checks.rules.sample_nets import mixture_source, net_source
from nngen.training.frames import FrameKind
from nngen.training.worker import epochs, network
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
    monkeypatch.setattr(epochs, "_MOST_LOGITS", most)  # ten images of ten classes
    one = training(net_source(), order(SPEC, artifacts=ALL[2:]))
    one.run(files())
    assert one.channel.steps == ["ready", "epoch", 2, *steps, 3]


@pytest.mark.parametrize(("more", "steps"), [(0, ["logits"]), (1, [])])
def test_logits_are_kept_up_to_two_to_the_power_of_25(more, steps, training, files, monkeypatch) -> None:
    def predict(*given: Any) -> bytes:
        kept = given[5] if len(given) > 5 else None
        for count in (2**25 - 1, 1 + more):
            if kept is not None:
                kept.append(torch.zeros(1).expand(count))
        return b"ab"

    monkeypatch.setattr(epochs, "predict", predict)
    monkeypatch.setattr(epochs, "half", lambda outputs: torch.zeros(len(outputs)))
    one = training(net_source(), order(SPEC, artifacts=ALL[2:]))
    one.run(files())
    assert one.channel.steps == ["ready", "epoch", 2, *steps, 3]


@pytest.mark.parametrize("options", [{}, {"start": True}, {"experts": 2}])
def test_frozen_experts_need_weights_of_either_kind(options, training, files, tmp_path: Path, monkeypatch) -> None:
    source = mixture_source(init="self.frozen = True; self.experts.requires_grad_(False)")
    for name in ("place_experts", "take_over"):
        monkeypatch.setattr(network, name, lambda *_: "")
    monkeypatch.setattr(network, "TensorFile", lambda _: {})
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
        epochs._refuse_non_finite(net, 5)
        return
    with pytest.raises(CheckFailed) as caught:
        epochs._refuse_non_finite(net, 5)
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
    assert epochs._reported(returned) == {"train_accuracy": accuracy, "train_loss": loss}


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
    assert epochs._history(net) == found
    assert epochs._history(nn.Linear(1, 1)) == {}


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
