"""The network of a training in this process: built, compiled, and given the weights of other trainings."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from worker_channel import CPU, SPEC, order

from nngen.checks.rule import CheckFailed
from nngen.checks.rules.sample_nets import net_source
from nngen.training.worker import network
from nngen.training.worker.numerics import seed_generators
from nngen.types import Outcome, Shape


def test_a_card_tries_two_images_without_the_search_for_algorithms(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Any] = []

    def parts(net: nn.Module, images: torch.Tensor, path: Path, classes: int) -> tuple[str, ...]:
        tried.append((net, tuple(images.shape), images.device, path, classes, torch.backends.cudnn.benchmark))
        return ("a",)

    monkeypatch.setattr(network, "contiguous_parts", parts)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    wanted, path, net = replace(order(), shape=Shape(3, 4, 5), classes=7), Path("candidate.py"), nn.Linear(1, 1)
    assert network._contiguous_parts(lambda: net, path, wanted) == ("a",)
    assert tried == [(net, (2, 3, 4, 5), CPU, path, 7, False)]
    assert torch.backends.cudnn.benchmark is True


@pytest.mark.parametrize("mixture", [False, True])
def test_the_experts_of_a_mixture_are_compiled_one_by_one(mixture: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda part: compiled.append(part))
    net = nn.Sequential(nn.Linear(1, 1))
    if mixture:
        net.experts = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])
    network._compile(net)
    assert compiled == ([*net.experts] if mixture else [net])


def test_a_net_is_compiled_where_it_is_asked_for(training, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []
    monkeypatch.setattr(network, "_compile", compiled.append)
    nets = [training(net_source(), order(compiled=asked)).build() for asked in (False, True)]
    assert compiled == nets[1:]


def test_what_a_file_draws_when_it_is_imported_does_not_change_its_weights(training) -> None:
    nets = []
    for draws in ("", "torch.rand(5)\n"):
        seed_generators(3)
        nets.append(training("import torch\n" + draws + net_source(), order()).build().state_dict())
    assert all(torch.equal(value, nets[1][name]) for name, value in nets[0].items())


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
