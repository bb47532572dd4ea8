"""Losses as functions and as code in generated files."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from assembly_toys import GOLDEN, import_source
from torch import Tensor

from nngen.assembly.snippets import diagnostics, losses, routing
from nngen.plan import Gate, Losses
from nngen.types import Candidate

# V-MoE's published test vectors.
GATES = torch.tensor([[0.5, 0.4, 0.1], [0.3, 0.3, 0.4], [0.1, 0.2, 0.7], [0.8, 0.2, 0.0]], dtype=torch.float64)


def softmax(x: Tensor) -> Tensor:
    return torch.softmax(x, dim=-1)


OUTPUTS = torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
NOISE = torch.randn(6, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
OF_LOGITS: dict[str, Callable[[Tensor], Tensor]] = {
    "importance": lambda x: losses.importance_loss(softmax(x)),
    "load": lambda x: losses.load_loss(x, x + 0.3 * NOISE, torch.tensor(0.3, dtype=x.dtype), 2),
    "switch": lambda x: losses.switch_loss(softmax(x)),
    "z": losses.z_loss,
    "entropy": lambda x: losses.entropy_loss(softmax(x)),
    "diversity": lambda x: losses.diversity_loss(softmax(x), OUTPUTS),
    "diversity, chosen": lambda x: losses.diversity_loss(routing.top_k_weights(x, torch.zeros(4), 2), OUTPUTS),
}
"""Every loss as a function of a gate's logits, ``(6, 4)``."""


def test_importance_is_v_moe_s() -> None:
    assert losses.importance_loss(GATES.float()).item() == pytest.approx(0.03874999, abs=2e-8)


def test_switch_is_gshard_s_on_v_moe_s_vector() -> None:
    assert losses.switch_loss(GATES).item() == pytest.approx(1.0875, abs=1e-12)


def test_load_is_the_chance_to_be_chosen() -> None:
    clean = torch.tensor([[0.0, 1.0, 0.5]])
    noisy = torch.tensor([[0.2, 0.9, 0.4]])
    spread = 1 / 3
    chance = [0.5 * (1 + math.erf((x - 0.4) / spread / math.sqrt(2))) for x in (0.0, 1.0, 0.5)]
    mean = sum(chance) / 3
    expected = sum((p - mean) ** 2 for p in chance) / 3 / mean**2
    assert losses.load_loss(clean, noisy, torch.tensor(spread), 2).item() == pytest.approx(expected, rel=1e-5)


def test_load_is_near_the_share_that_is_chosen() -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.tensor([[1.0, 0.5, 0.0, -0.5]]).expand(4000, 4)
    noisy = clean + 0.5 * torch.randn(4000, 4, generator=generator)
    share = (routing.top_k_weights(noisy, torch.zeros(4), 2) > 0).float().mean(dim=0)
    expected = (share.var(unbiased=False) / share.mean() ** 2).item()
    assert losses.load_loss(clean, noisy, torch.tensor(0.5), 2).item() == pytest.approx(expected, rel=0.1)


def test_values_for_even_and_one_sided_routing() -> None:
    even = torch.full((8, 4), 0.25)
    assert losses.importance_loss(even).item() == 0
    assert losses.entropy_loss(even).item() == pytest.approx(0, abs=1e-6)
    turns = torch.eye(4).repeat(2, 1)
    assert losses.importance_loss(turns).item() == 0
    assert losses.switch_loss(turns).item() == 1
    assert losses.entropy_loss(turns).item() == pytest.approx(math.log(4))
    assert losses.switch_loss(torch.eye(4)[:1].repeat(8, 1)).item() == 4


def test_diversity_is_zero_for_orthogonal_and_largest_for_equal_experts() -> None:
    even = torch.full((3, 2), 0.5)
    orthogonal = torch.tensor([[1.0, -1.0, 0.0], [1.0, 1.0, -2.0]]).expand(3, 2, 3)
    assert losses.diversity_loss(even, orthogonal).item() == pytest.approx(0, abs=1e-12)
    alike = orthogonal[:, :1].repeat(1, 2, 1) * torch.tensor([[[1.0], [3.0]]])
    assert losses.diversity_loss(even, alike).item() == pytest.approx(2 * 0.25)
    alone = torch.tensor([[1.0, 0.0]]).expand(3, 2)
    assert losses.diversity_loss(alone, alike).item() == 0


def test_the_bias_moves_towards_experts_that_few_chose() -> None:
    weights = torch.tensor([[0.6, 0.4, 0.0], [0.7, 0.3, 0.0], [0.5, 0.0, 0.5]])
    assert losses.shift_bias(torch.zeros(3), weights, 0.25).tolist() == [-0.25, 0.0, 0.25]


@pytest.mark.parametrize("name", OF_LOGITS)
def test_the_gradient_reaches_the_gate_and_is_right(name: str) -> None:
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    loss = OF_LOGITS[name]
    (gradient,) = torch.autograd.grad(loss(logits), logits)
    assert bool((gradient != 0).any(dim=0).all())
    assert torch.autograd.gradcheck(loss, (logits,))


def test_the_gradient_of_diversity_reaches_the_experts() -> None:
    outputs = OUTPUTS.clone().requires_grad_()
    weights = softmax(NOISE)
    assert torch.autograd.gradcheck(lambda x: losses.diversity_loss(weights, x), (outputs,))


@pytest.mark.parametrize("name", [name for name in OF_LOGITS if "diversity" not in name])
def test_no_loss_grows_with_the_batch(name: str) -> None:
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if name == "load":
        many = losses.load_loss(x.repeat(9, 1), (x + 0.3 * NOISE).repeat(9, 1), torch.tensor(0.3), 2)
    else:
        many = OF_LOGITS[name](x.repeat(9, 1))
    assert many.item() == pytest.approx(OF_LOGITS[name](x).item())


def test_every_loss_reaches_the_gate_s_weights_in_a_file(
    mix: Callable[..., Candidate], load: Callable[[str], ModuleType]
) -> None:
    everything = Losses(balance=1, load=1, switch=1, z=1, entropy=1, diversity=1)
    module = load(mix(gate=Gate(routing="top-k", noise=0.3), losses=everything).source)
    torch.manual_seed(0)
    net = module.Net((6, 3, 16, 16), (5,), {"lr": 0.1, "momentum": 0.9}, torch.device("cpu")).train()
    torch.nn.init.normal_(net.gate.head.weight)
    x = torch.rand(6, 3, 16, 16)
    values = {
        "importance": lambda r, _: module.importance_loss(softmax(r.noisy)),
        "load": lambda r, _: module.load_loss(r.clean, r.noisy, r.spread, 2),
        "switch": lambda r, _: module.switch_loss(softmax(r.noisy)),
        "z": lambda r, _: module.z_loss(r.clean),
        "entropy": lambda r, _: module.entropy_loss(softmax(r.noisy)),
        "diversity": lambda r, outputs: module.diversity_loss(r.weights, outputs),
    }
    for name, value in values.items():
        _, decision, outputs = net.blend(x)
        (gradient,) = torch.autograd.grad(value(decision, outputs.detach()), net.gate.head.weight)
        assert gradient.abs().sum() > 0, name


@pytest.mark.parametrize(("part", "kind"), [(losses, "alexnet"), (routing, "alexnet"), (diagnostics, "hetero")])
def test_files_hold_the_very_code_that_is_tested_here(part: ModuleType, kind: str, tmp_path: Path) -> None:
    text = Path(str(part.__file__)).read_text()
    source = (GOLDEN / f"{kind}.py").read_text()
    module = import_source(source, tmp_path)
    shared = [name for name in part.__all__ if hasattr(module, name)]
    assert shared
    for name in shared:
        block = next(b for b in text.split("\n\n\n") if b.startswith((f"def {name}(", f"class {name}(")))
        assert f"\n\n\n{block.rstrip()}\n\n\n" in source
