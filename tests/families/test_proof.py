"""Proof that a family is the same network alone and as an expert: equal, refused with what differs, or put back."""

from __future__ import annotations

import builtins
import functools
import random
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from family_cases import EQUAL, family_source

from nngen.assembly.assemble import assemble
from nngen.checks.candidate_net import load_module
from nngen.checks.rule import CheckFailed
from nngen.families.catalogue import make_family
from nngen.families.family_function import family_function
from nngen.families.hyperparameters import DEFAULTS
from nngen.families.own_settings import OwnSettings
from nngen.families.process_state import ProcessState
from nngen.families.proof import Proof, prove
from nngen.families.subject import FamilyUnderTest
from nngen.plan import Plan
from nngen.types import Adapter, Interface, Shape

SHAPE = Shape(3, 12, 12)


@pytest.fixture
def proof(tmp_path: Path) -> Callable[[str], Proof]:
    """Prove a source in this process; the settings of torch are as before afterwards."""

    def call(source: str) -> Proof:
        path, expert = tmp_path / "alone.py", tmp_path / "expert.py"
        path.write_text(source, encoding="utf-8")
        function = family_function(make_family("Toy", source))
        expert.write_text(f"from functools import cache\n\n\n{function.text('family')}", encoding="utf-8")
        # The class is loaded by the proof itself.
        family = FamilyUnderTest(path=path, net=torch.nn.Module, hyperparameters=DEFAULTS, channels=3, classes=10)
        before = OwnSettings(lambda: None).read()
        try:
            return prove(family, expert, Adapter(), SHAPE)
        finally:
            assert OwnSettings(lambda: None).read() == before

    return call


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("name", EQUAL)
def test_a_family_as_an_expert_is_what_it_is_alone(name: str, proof: Callable[[str], Proof]) -> None:
    assert proof(EQUAL[name]).own_settings == (name in ("a seed of its own",))


DIFFERENT = {
    "a parameter by its own source": (
        family_source("import inspect", "self.gain = nn.Parameter(torch.zeros(len(inspect.getsource(Net))))"),
        "its parameters differ (gain)",
    ),
    "a value by its own source": (
        family_source("import inspect", "self.body.bias.data += len(inspect.getsource(Net))"),
        "its parameters differ (body.bias)",
    ),
    "a frozen parameter": (
        family_source("import inspect", "self.fc.bias.requires_grad = inspect.getsource(Net)[0] == 'c'"),
        "its parameters differ (fc.bias)",
    ),
    "outputs": (
        family_source("import inspect").replace("x.mean((2, 3)))", "x.mean((2, 3)) * len(inspect.getsource(Net)))"),
        "its outputs in evaluation differ",
    ),
    "outputs in training": (
        family_source("import inspect").replace(
            "x.mean((2, 3)))", "x.mean((2, 3)) * (len(inspect.getsource(Net)) if self.training else 1))"
        ),
        "its outputs in training differ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_differs_is_named(name: str, proof: Callable[[str], Proof]) -> None:
    source, message = DIFFERENT[name]
    with pytest.raises(CheckFailed) as caught:
        proof(source)
    assert f"another network inside a function: {message}" in str(caught.value)


FAILING = {
    "as an expert": (
        family_source("import inspect", "assert inspect.getsource(Net)[0] == 'c', 'indented'"),
        "as an expert: .*AssertionError: indented",
    ),
    "in building": (family_source(init="raise ValueError('never')"), "ValueError: never"),
    "not finite": (family_source(init="self.body.bias.data += float('nan')"), "logits are not finite in evaluation"),
    "no gradient": (family_source().replace("x.mean((2, 3)))", "x.mean((2, 3))) * 0"), "no parameter received"),
    "memory that nothing wrote": (
        family_source(init="self.gain = nn.Parameter(torch.empty(8))").replace(
            "x.mean((2, 3)))", "x.mean((2, 3)) * self.gain)"
        ),
        "not finite",
    ),
    "seeds in its forward pass": (
        family_source().replace("        x = torch.relu", "        torch.manual_seed(0)\n        x = torch.relu"),
        "seeds the generators in its forward pass",
    ),
}


@pytest.mark.parametrize("name", FAILING)
def test_what_does_not_work_is_refused(name: str, proof: Callable[[str], Proof]) -> None:
    source, message = FAILING[name]
    with pytest.raises(CheckFailed, match=message):
        proof(source)


SETTINGS = {
    "a default type": "torch.set_default_dtype(torch.float64)",
    "a flag of cudnn": "torch.backends.cudnn.benchmark = True",
    "deterministic algorithms": "torch.use_deterministic_algorithms(False)",
    "threads": "torch.set_num_threads(torch.get_num_threads() + 1)",
    "anomaly detection": "torch.autograd.set_detect_anomaly(True)",
    "precision": "torch.set_float32_matmul_precision('medium')",
    "the newer flags of precision": "torch.backends.fp32_precision = 'tf32'",
    "a newer flag of a card": "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
}


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("place", ["import", "construction", "forward"])
def test_settings_are_put_back_wherever_they_are_changed(name: str, place: str, proof: Callable[[str], Proof]) -> None:
    line = SETTINGS[name]
    source = {
        "import": family_source(line),
        "construction": family_source(init=line),
        "forward": family_source().replace("        x = torch.relu", f"        {line}\n        x = torch.relu"),
    }[place]
    source = source.replace("torch.relu(self.body(x))", "torch.relu(self.body(x.to(self.body.weight.dtype)))")
    found = proof(source)
    assert found.own_settings and not found.seeds


@pytest.mark.parametrize("line", ["torch.manual_seed(3)", "random.seed(3)", "np.random.seed(3)", "torch.seed()"])
@pytest.mark.parametrize("place", ["import", "construction"])
def test_seeds_are_noticed(line: str, place: str, proof: Callable[[str], Proof]) -> None:
    head = "import random\nimport numpy as np\n"
    source = family_source(head + line) if place == "import" else family_source(head, line)
    assert proof(source).seeds


def test_random_numbers_in_evaluation_are_noticed(proof: Callable[[str], Proof]) -> None:
    assert not proof(family_source()).stochastic
    assert not proof(family_source(init="self.body = nn.Sequential(self.body, nn.Dropout(0.5))")).stochastic
    noise = family_source().replace("x.mean((2, 3)))", "x.mean((2, 3)) + torch.randn(8))")
    assert proof(noise).stochastic


def test_the_trial_of_a_mixture_is_in_prm(proof: Callable[[str], Proof]) -> None:
    proof(family_source(init="assert (prm['batch'], prm['epoch'], prm['transform']) == (2, 1, 'norm_12'), prm"))


PATCHES = {
    "a function": ("torch.nn.functional.relu = torch.nn.functional.gelu", "torch.nn.functional.relu"),
    "a method": ("torch.nn.Conv2d.extra_repr = lambda self: ''", "torch.nn.modules.conv.Conv2d.extra_repr"),
    "a new method": ("torch.Tensor.tidy = lambda self: self", "torch.Tensor.tidy"),
    "an attribute of a class": ("torch.nn.ReLU.scale = 0.5", "torch.nn.modules.activation.ReLU.scale"),
    "a function of Python": ("builtins.sorted = list", "builtins.sorted"),
    "a private function": ("torch.nn.init._no_grad_fill_ = lambda *_: None", "torch.nn.init._no_grad_fill_"),
    "flushed denormal numbers": ("torch.set_flush_denormal(True)", "torch.set_flush_denormal"),
    "a partial method": (
        "torch.nn.Conv2d.__init__ = functools.partialmethod(torch.nn.Conv2d.__init__, bias=False)",
        "torch.nn.modules.conv.Conv2d.__init__",
    ),
    "warnings that are errors": ("warnings.filterwarnings('error', 'odd')", "warnings.filters"),
    "hooks": ("torch.nn.modules.module.register_module_forward_hook(print)", "the hooks of all modules"),
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("name", PATCHES)
def test_what_is_replaced_for_all_is_named(name: str) -> None:
    line, expected = PATCHES[name]
    before = ProcessState()
    owners = (torch.nn.functional, torch.nn.Conv2d, torch.Tensor, torch.nn.ReLU, torch.nn.init, builtins)
    kept = [dict(vars(owner)) for owner in owners]
    try:
        with warnings.catch_warnings():
            exec(
                line,
                {
                    "__name__": "family",
                    "torch": torch,
                    "builtins": builtins,
                    "functools": functools,
                    "warnings": warnings,
                },
            )
            found = before.changes()
    finally:
        torch.set_flush_denormal(False)
        torch.nn.modules.module._global_forward_hooks.clear()
        for owner, attributes in zip(owners, kept, strict=True):
            for attribute in [attribute for attribute in vars(owner) if attribute not in attributes]:
                delattr(owner, attribute)
            for attribute, value in attributes.items():
                if vars(owner).get(attribute) is not value:
                    setattr(owner, attribute, value)
    assert found == (expected,)
    assert before.changes() == ()


def test_what_torch_changes_of_its_own_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    before = ProcessState()
    seed = torch.manual_seed
    # As on the first use of torch.compile, and on that of vmap.
    monkeypatch.setattr(torch, "manual_seed", torch.compiler.disable(seed))
    monkeypatch.setattr(torch._functorch.predispatch, "DECOMPOSITIONS_LOADED", "changed")
    assert torch.manual_seed is not seed
    assert before.changes() == ()
    monkeypatch.setattr(torch, "manual_seed", functools.wraps(seed)(lambda number: seed(number)))
    assert before.changes() == ("torch.manual_seed",)


SEEDED = family_source("import random\nimport numpy as np\ntorch.manual_seed(42)\nrandom.seed(1)\nnp.random.seed(1)\n")
FLAGGED = family_source(
    "torch.backends.cudnn.benchmark = True", "torch.set_default_dtype(torch.float64)\nself.double()"
).replace("torch.relu(self.body(x))", "torch.relu(self.body(x.double()))")


def test_the_neighbours_of_a_family_with_seeds_and_settings_notice_nothing(tmp_path: Path) -> None:
    plan = Plan(experts=("Seeded", "Flagged", "Plain"))
    own, plain = Interface(low=1, own_settings=True), Interface(low=1)
    families = [make_family("Seeded", SEEDED), make_family("Flagged", FLAGGED), make_family("Plain", family_source())]
    candidate = assemble(plan, list(zip(families, (own, own, plain), strict=True)))
    path = tmp_path / "mixture.py"
    path.write_text(candidate.source)
    before = OwnSettings(lambda: None).read()

    def build(seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        net = load_module(path, "mixture_with_settings").Net((1, 3, 12, 12), (10,), dict(DEFAULTS), torch.device("cpu"))
        assert OwnSettings(lambda: None).read() == before
        return net

    nets = [build(seed) for seed in (0, 0, 1)]
    states = [net.state_dict() for net in nets]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    weights = [name for name, value in states[0].items() if name.endswith("weight") and value.dim() > 1]
    assert {name for name in weights if torch.equal(states[0][name], states[2][name])} == set()
    assert {value.dtype for name, value in states[0].items() if name.startswith("experts.1.")} == {torch.float64}
    assert {value.dtype for name, value in states[0].items() if name.startswith("experts.2.")} == {torch.float32}
    # In a step of training, too.
    nets[0].train_setup(dict(DEFAULTS))  # type: ignore[operator]
    nets[0].learn([(torch.rand(4, 3, 12, 12), torch.arange(4))])  # type: ignore[operator]
    assert OwnSettings(lambda: None).read() == before


@pytest.mark.parametrize("change", ["x.sub_(0.5)", "x.relu_()", "x.data.mul_(2)"])
def test_the_neighbours_of_a_family_that_changes_its_images_see_them_unchanged(
    tmp_path: Path, proof: Callable[[str], Proof], change: str
) -> None:
    source = family_source().replace("        x = torch.relu", f"        {change}\n        x = torch.relu")
    found = proof(source)
    assert found.changes_input and found.own_settings and not found.settings
    interfaces = Interface(low=1, own_settings=found.own_settings), Interface(low=1)
    families = make_family("Writes", source), make_family("Plain", family_source())
    candidate = assemble(Plan(experts=("Writes", "Plain")), list(zip(families, interfaces, strict=True)))
    path = tmp_path / "mixture.py"
    path.write_text(candidate.source)
    net = load_module(path, "mixture_with_changes").Net((1, 3, 12, 12), (10,), dict(DEFAULTS), torch.device("cpu"))
    seen = []
    net.experts[1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    images = torch.randn(4, 3, 12, 12)
    kept = images.clone()
    net.train_setup(dict(DEFAULTS))
    net(images).sum().backward()
    assert torch.equal(images, kept) and torch.equal(seen[0], kept)


def test_files_of_other_families_hold_no_such_code() -> None:
    plain = Interface(low=1)
    names = ("A", "B", "C", "D")
    candidate = assemble(Plan(experts=names), [(make_family(name, family_source()), plain) for name in names])
    assert "OwnSettings" not in candidate.source and "numpy" not in candidate.source
