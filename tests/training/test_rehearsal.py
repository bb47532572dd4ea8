"""Families and mixtures under the settings of a graphics card, rehearsed on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from card_rehearsal import PASSES, Sent, card_settings, interface_of, rehearse, train_with_card_settings
from torch import nn

from nngen.assembly.assemble import assemble
from nngen.checks.candidate_net import _restore_parameters
from nngen.checks.card import WHOLE, contiguous_parts, use_channels_last
from nngen.checks.rules.sample_nets import net_source
from nngen.families.catalogue import make_family
from nngen.plan import Gate, Plan
from nngen.training.orders import TrainOrder
from nngen.training.worker.network import build
from nngen.training.worker.numerics import seed_generators
from nngen.types import Family, Interface, Shape

SHAPE = Shape(3, 32, 32)
FAMILIES = (
    *("AirNet", "AirNext", "AlexNet", "BagNet", "BayesianNet-1", "BayesianNet-2", "BayesianNet-3", "ComplexNet"),
    *("ConvNeXt", "DPN107", "DPN131", "DPN68", "DarkNet", "DenseNet", "Diffuser", "EfficientNet", "FractalNet"),
    *("GoogLeNet", "ICNet", "InceptionV3-1", "InceptionV3-2", "MNASNet", "MaxVit", "MobileNetV2", "MobileNetV3"),
    *("RegNet", "ResNet", "ShuffleNet", "SqueezeNet-1", "SqueezeNet-2", "SwinTransformer", "UNet2D", "VGG"),
    "VisionTransformer",
)
CONTIGUOUS = {"BayesianNet-1", "BayesianNet-3", "ComplexNet"}
VIEWS = "self.conv = nn.Conv2d(in_shape[1], 4, 3, padding=1); self.fc = nn.Linear(4 * in_shape[2] * in_shape[3], 10)"
VIEW = "return self.fc(self.conv(x).view(len(x), -1))"


@pytest.mark.rehearsal
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_runs_as_on_a_card(name: str, families: dict[str, Family]) -> None:
    found = rehearse(families[name], interface_of(name), SHAPE)
    assert found.channels_last == (f"{PASSES}, contiguous" if name in CONTIGUOUS else PASSES)
    assert found.bfloat16 == (f"{PASSES}, float32" if name == "ComplexNet" else PASSES)
    assert found.cuda == PASSES


@pytest.mark.rehearsal
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "plan",
    [
        Plan(experts=("BayesianNet-1", "ComplexNet", "DenseNet", "ShuffleNet")),
        Plan(
            experts=("BayesianNet-3", "ComplexNet", "ICNet", "ShuffleNet"),
            gate=Gate(network="convolution_linear", routing="top-k", k=2),
        ),
        Plan(experts=("Dense",) * 4, kind="homogeneous"),
    ],
    ids=lambda plan: "-".join(dict.fromkeys(plan.experts)),
)
def test_a_mixture_trains_as_on_a_card(plan: Plan, families: dict[str, Family], job: Any, tmp_path: Path) -> None:
    names = plan.experts if plan.kind == "hetero" else ()
    experts = [(families[name], interface_of(name)) for name in names]
    training = job(assemble(plan, experts), shape=SHAPE, batch=8, lr=0.001)
    sent = train_with_card_settings(training, 20, tmp_path)
    assert [message["event"] for message in sent.messages] == ["ready", "epoch"]
    assert sent.messages[1]["samples"] == 20


@pytest.mark.rehearsal
@pytest.mark.filterwarnings("ignore")
def test_a_mixture_is_the_same_on_fake_cuda_tensors(families: dict[str, Family]) -> None:
    names = ("BayesianNet-1", "ComplexNet", "ICNet", "ShuffleNet")
    mixture = assemble(Plan(experts=names), [(families[name], interface_of(name)) for name in names])
    found = rehearse(make_family("Mixture", mixture.source), Interface(low=32), SHAPE)
    assert (found.channels_last, found.bfloat16, found.cuda) == (f"{PASSES}, contiguous", PASSES, PASSES)


def test_a_file_that_needs_contiguous_tensors_trains_as_on_a_card(job: Any, tmp_path: Path) -> None:
    source = net_source(init=VIEWS, forward=VIEW, loss="assert not inputs.is_contiguous()")
    sent = train_with_card_settings(job(source, shape=Shape(3, 8, 8), batch=8), 20, tmp_path)
    assert [message["event"] for message in sent.messages] == ["ready", "epoch"]


def test_a_file_that_builds_its_net_only_once_trains_as_on_a_card(job: Any, tmp_path: Path) -> None:
    source = "WIDTHS = iter([8])\n" + net_source(init="self.width = next(WIDTHS)")
    sent = train_with_card_settings(job(source, shape=Shape(3, 8, 8), batch=8), 20, tmp_path)
    assert [message["event"] for message in sent.messages] == ["ready", "epoch"]


def test_the_first_weights_are_those_of_the_cpu(job: Any, tmp_path: Path) -> None:
    # On a card a net is built twice: once to find the parts that need contiguous tensors.
    path = tmp_path / "candidate.py"
    path.write_text(net_source(init=VIEWS, forward=VIEW))
    order = TrainOrder.of(job("", seed=3, shape=Shape(3, 8, 8)))
    seed_generators(3)
    expected = build(path, order, Sent()).state_dict()
    seed_generators(3)
    with card_settings():
        found = build(path, order, Sent()).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_only_an_expert_that_needs_it_keeps_contiguous_tensors(tmp_path: Path) -> None:
    class Mixture(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList([nn.Sequential(nn.Conv2d(3, 2, 8), nn.Flatten()), _Flattening()])
            self.adapters = nn.ModuleList([nn.Identity(), nn.Identity()])

    images = torch.rand(2, 3, 8, 8)
    assert contiguous_parts(Mixture(), images, tmp_path, 2) == ("experts.1",)
    net = Mixture()
    use_channels_last(net, ("experts.1",))
    fast, plain = net.experts
    assert not fast[0].weight.is_contiguous()
    assert plain.conv.weight.is_contiguous()
    last = images.contiguous(memory_format=torch.channels_last)
    assert torch.allclose(plain(last), plain(images))


class _Flattening(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).view(len(x), -1)[:, :2]


class _Strided(nn.Module):
    """A net that runs in channels_last and gives other logits there."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_strided(x, (len(x), 2), (x[0].numel(), 1)) * self.scale

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))


class _Capsules(nn.Module):
    """A net with a weight of five axes, which has no format channels_last."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.W = nn.Parameter(torch.randn(1, 4, 2, 2, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.W @ self.conv(x).mean((2, 3))[:, :, None, None, None]).sum((1, 3, 4))


def test_a_weight_of_five_axes_keeps_its_format_and_the_others_do_not(tmp_path: Path) -> None:
    assert contiguous_parts(_Capsules(), torch.rand(2, 3, 8, 8), tmp_path, 2) == ()
    net = _Capsules()
    use_channels_last(net)
    assert net.W.is_contiguous() and not net.conv.weight.is_contiguous()


@pytest.mark.parametrize("net", [_Flattening(), _Strided()], ids=lambda net: type(net).__name__)
def test_what_fails_or_differs_in_channels_last_is_found(net: nn.Module, tmp_path: Path) -> None:
    assert contiguous_parts(net, torch.rand(2, 3, 8, 8), tmp_path, 2) == (WHOLE,)


def test_a_parameter_that_its_constructor_moved_stays_one() -> None:
    net = nn.Linear(2, 2)
    net.scale = nn.Parameter(torch.ones(2)).to("meta")  # as .to("cuda") on a card
    net.scaled = net.weight * 2
    assert set(dict(net.named_parameters())) == {"weight", "bias"}
    _restore_parameters(net)
    assert set(dict(net.named_parameters())) == {"weight", "bias", "scale"}
    assert net.scale.is_leaf and net.scale.device.type == "meta"
