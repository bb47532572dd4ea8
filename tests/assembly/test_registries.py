"""A gate and a loss that are added only through their registries: assembled, trained, read back, refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from nngen.assembly.plan_toml import from_toml, plan_of, to_toml
from nngen.assembly.plan_validation import check_plan
from nngen.assembly.registries import GATES, LOSSES, GateNetwork, Loss
from nngen.errors import PlanError
from nngen.plan import Gate, Losses, Plan, Recipe
from nngen.types import Candidate

Mix = Callable[..., Candidate]
Load = Callable[[str], ModuleType]

GATE = '''
class Gate(nn.Module):
    """Weigh the experts by the mean colour of each image."""

    def __init__(self, channels: int, experts: int) -> None:
        super().__init__()
        self.head = nn.Linear(channels, experts)
{% include "parts/gate_parameters.py.j2" %}

    def forward(self, x: torch.Tensor) -> {{ "Routing" if routed else "torch.Tensor" }}:
        """Turn images, ``(B, C, H, W)``, into weights, ``(B, E)``."""
        logits = self.head(x.mean(dim=(2, 3))).float()
{% include "parts/gate_decision.py.j2" %}
'''
LOSS = '''
import torch


def largest_loss(weights: torch.Tensor, floor: float) -> torch.Tensor:
    """Mean of each image's largest weight above a floor."""
    return (weights.amax(dim=1) - floor).clamp(min=0).mean()
'''


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Register a gate, ``colour``, and a loss, ``largest``, with one file and one entry each."""
    (tmp_path / "colour.py.j2").write_text(GATE)
    (tmp_path / "largest.py").write_text(LOSS)
    monkeypatch.setitem(GATES, "colour", GateNetwork(meaning="mean colour", template=tmp_path / "colour.py.j2"))
    loss = Loss(
        function="largest_loss",
        term="largest_loss({probabilities}, 0.2)",
        meaning="weight of the penalty on one large weight",
        range=(0, 10),
        file=tmp_path / "largest.py",
    )
    monkeypatch.setitem(LOSSES, "largest", loss)


@pytest.mark.parametrize("routing", ["soft", "top-k"])
@pytest.mark.usefixtures("registered")
def test_a_registered_gate_and_loss_are_assembled_and_train(mix: Mix, load: Load, routing: str) -> None:
    candidate = mix(gate=Gate(network="colour", routing=routing), losses=Losses(others=(("largest", 2.5),)))
    assert "LARGEST = 2.5  # weight of the penalty on one large weight\n" in candidate.source
    assert "A gate (mean colour) weighs" in candidate.source.replace("\n", " ")
    assert plan_of(candidate.source) == candidate.plan
    module = load(candidate.source)
    torch.manual_seed(0)
    net = module.Net((4, 3, 16, 16), (5,), {"lr": 0.01, "momentum": 0.9}, torch.device("cpu"))
    before = net.gate.head.weight.detach().clone()
    net.train_setup({"lr": 0.01, "momentum": 0.9, "epoch": 1})
    _, loss = net.learn([(torch.rand(4, 3, 16, 16), torch.arange(4))])
    assert loss > 0 and not torch.equal(before, net.gate.head.weight)


@pytest.mark.usefixtures("registered")
def test_the_weight_of_a_registered_loss_changes_the_gradient(mix: Mix, load: Load) -> None:
    module = load(mix(gate=Gate(noise=0), losses=Losses(others=(("largest", 1.0),))).source)
    weights = torch.tensor([[0.7, 0.3], [0.5, 0.5]], requires_grad=True)
    module.largest_loss(weights, 0.2).backward()
    assert weights.grad is not None and weights.grad[0, 0] > 0


@pytest.mark.usefixtures("registered")
def test_the_checks_of_a_plan_follow_from_the_registries(mix: Mix) -> None:
    with pytest.raises(PlanError, match=r"losses\.largest is 11: it must lie between 0 and 10"):
        mix(losses=Losses(others=(("largest", 11),)))
    with pytest.raises(
        PlanError, match=r"network is 'color': did you mean colour\? for kind hetero it may be .* or colour"
    ):
        mix(gate=Gate(network="color"))
    text = 'experts = ["A", "B"]\n[losses]\nlargest = 1\n'
    assert from_toml(text).losses.weight("largest") == 1
    assert "\nlargest = 1.0\n" in to_toml(from_toml(text)) + "\n"


@pytest.mark.parametrize("frozen", [False, True])
def test_a_plan_is_offered_the_gates_that_it_can_use(frozen: bool) -> None:
    for name in ("calibrate", "conv", "dense", "?", 5):
        with pytest.raises(PlanError) as refused:
            check_plan(Plan(experts=("A", "B"), gate=Gate(network=name), recipe=Recipe(frozen=frozen)))
        hint, offered = str(refused.value).split("for kind hetero it may be ")
        usable = [name for name, gate in GATES.items() if not gate.features and (frozen or not gate.calibrates)]
        assert offered.split(" or ") == usable
        assert ("calibrated" in hint) == (frozen and name == "calibrate")
    assert "calibrated" in GATES and ("calibrated" in offered) == frozen


def test_a_loss_that_is_not_registered_is_refused_with_the_nearest() -> None:
    with pytest.raises(PlanError, match="no loss is called 'divers': did you mean diversity"):
        from_toml('experts = ["A", "B"]\n[losses]\ndivers = 1\n')


def test_a_plan_of_the_former_kind_alexnet_reads_as_the_same_gate() -> None:
    plan = from_toml('experts = ["AlexNet", "AlexNet"]\nkind = "alexnet"\n[gate]\nwidth = 16\n')
    assert (plan.kind, plan.gate.network, plan.gate.width, plan.repeats) == ("hetero", "convolution_linear", 16, True)
