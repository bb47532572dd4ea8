"""LEMUR's 34 families: any four of them can be assembled, and every expert equals its family."""

from __future__ import annotations

import ast
import builtins
import symtable
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from assembly_toys import import_source
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nngen.assembly.assemble import Assembler
from nngen.assembly.identity import canonical_hash
from nngen.assembly.plan_toml import plan_of
from nngen.families.family_function import FamilyFunction
from nngen.families.hyperparameters import best_hyperparameters
from nngen.families.probe import profiles
from nngen.plan import Plan
from nngen.training.state.net_state import load_weights
from nngen.types import Candidate, Family, Interface, Shape

CPU = torch.device("cpu")
# Shared helper names; torch.jit; a network that overrides __call__.
LIGHT = (
    ("ShuffleNet", "MobileNetV2", "DenseNet", "BayesianNet-1"),
    # Complex numbers and a Parameter of its own; torch.fx.wrap; auxiliary heads.
    ("ComplexNet", "SwinTransformer", "GoogLeNet", "InceptionV3-1"),
)
REST = (
    ("AirNet", "AirNext", "AlexNet", "BagNet"),
    ("BayesianNet-2", "BayesianNet-3", "ConvNeXt", "DPN107"),
    ("DPN131", "DPN68", "DarkNet", "Diffuser"),
    ("EfficientNet", "FractalNet", "ICNet", "InceptionV3-2"),
    ("MNASNet", "MaxVit", "MobileNetV3", "RegNet"),
    ("ResNet", "SqueezeNet-1", "SqueezeNet-2", "UNet2D"),
    ("VGG", "VisionTransformer", "ComplexNet", "BayesianNet-1"),
)


def test_the_quartets_below_hold_every_family(families: dict[str, Family]) -> None:
    assert {name for quartet in (*LIGHT, *REST) for name in quartet} == set(families)


def test_every_family_becomes_an_expert(families: dict[str, Family], assembler: Assembler) -> None:
    for name, family in families.items():
        function = assembler.function(family)
        assert dict(function.hyperparameters) == best_hyperparameters(family)
        (net,) = (node for node in ast.walk(_parsed(function)) if isinstance(node, ast.ClassDef) and node.name == "Net")
        names = {node.name for node in net.body if isinstance(node, ast.FunctionDef)}
        assert names.isdisjoint({"train_setup", "learn", "supported_hyperparameters"}), name
        assert not {"WeightsEnum", "_ovewrite_named_param"} & set(function.body.split()), name
        assert not function.parameters and "bound later" not in function.body, name


def _parsed(function: FamilyFunction) -> ast.Module:
    return ast.parse(function.text("family"))


interfaces = st.builds(
    Interface,
    low=st.integers(1, 64),
    high=st.none() | st.integers(64, 256),
    square=st.booleans(),
    complex=st.booleans(),
)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_quartet_renders_to_a_file_in_the_contract(
    families: dict[str, Family], assembler: Assembler, data: st.DataObject
) -> None:
    quartet = tuple(data.draw(st.permutations(sorted(families)))[:4])
    given_interfaces = data.draw(st.tuples(*[interfaces] * 4))
    plan = Plan(experts=quartet)
    candidate = assembler.assemble(
        plan, [(families[name], interface) for name, interface in zip(quartet, given_interfaces, strict=True)]
    )
    tree = ast.parse(candidate.source)
    assert plan_of(candidate.source) == plan == candidate.plan
    assert candidate.canonical == canonical_hash(candidate.source)
    bound = list(_module_names(tree))
    assert len(bound) == len(set(bound))
    assert not _dangling(candidate.source, set(bound))
    _assert_contract(tree)


def _module_names(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                yield name
            case ast.Assign(targets=targets):
                yield from (target.id for target in targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                yield from (alias.asname or alias.name.partition(".")[0] for alias in names)


def _dangling(source: str, bound: set[str]) -> set[str]:
    """Return names that are read as globals but not bound in the file."""

    def reads(table: symtable.SymbolTable) -> Iterator[str]:
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (symbol.is_global() or table.get_type() == "module"):
                yield symbol.get_name()
        for child in table.get_children():
            yield from reads(child)

    return set(reads(symtable.symtable(source, "mixture", "exec"))) - bound - set(dir(builtins))


def _assert_contract(tree: ast.Module) -> None:
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    returned = functions["supported_hyperparameters"].body[-1]
    assert isinstance(returned, ast.Return) and returned.value is not None
    assert ast.literal_eval(returned.value) == {"lr", "momentum"}
    (net,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Net")
    assert [ast.unparse(base) for base in net.bases] == ["nn.Module"]
    arguments = {
        node.name: [arg.arg for arg in node.args.args] for node in net.body if isinstance(node, ast.FunctionDef)
    }
    assert arguments["__init__"] == ["self", "in_shape", "out_shape", "prm", "device"]
    assert arguments["train_setup"] == ["self", "prm"]
    assert arguments["learn"] == ["self", "train_data"]
    assert arguments["forward"] == ["self", "x"]


@pytest.mark.parametrize("quartet", LIGHT, ids=lambda quartet: "+".join(quartet))
def test_real_mixtures_work(
    quartet: tuple[str, ...], families: dict[str, Family], assembler: Assembler, tmp_path: Path
) -> None:
    prove(quartet, Shape(3, 32, 32), families, assembler, tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")
@pytest.mark.parametrize("quartet", REST, ids=lambda quartet: "+".join(quartet))
def test_the_rest_works_too(
    quartet: tuple[str, ...], families: dict[str, Family], assembler: Assembler, tmp_path: Path
) -> None:
    prove(quartet, Shape(1, 28, 28), families, assembler, tmp_path)


def prove(
    quartet: tuple[str, ...], shape: Shape, families: dict[str, Family], assembler: Assembler, folder: Path
) -> None:
    """Build a mixture of real families, compare experts with families, train a step, and load its weights anew."""
    measured = profiles([families[name] for name in quartet], shape, jobs=1)
    experts = []
    for name in quartet:
        interface = measured[name].interface
        assert interface is not None, measured[name].reason
        experts.append((families[name], interface))
    candidate: Candidate = assembler.assemble(Plan(experts=quartet), experts)
    module = import_source(candidate.source, folder)
    in_shape = (2, shape.channels, shape.height, shape.width)
    prm = {"lr": 0.001, "momentum": 0.9}
    torch.manual_seed(0)
    net = module.Net(in_shape, (10,), dict(prm), CPU)
    images, labels = torch.rand(4, *in_shape[1:]), torch.tensor([0, 3, 6, 9])
    for place, name in enumerate(quartet):
        assert_is_the_family(net, module, place, families[name], in_shape[0], shape.channels, folder)
    for mode in (True, False):
        with torch.no_grad():
            logits = net.train(mode)(images)
        assert logits.shape == (4, 10) and bool(torch.isfinite(logits).all())
    touched = watch_gradients(net)
    net.train_setup(prm)
    accuracy, loss = net.learn([(images, labels)])
    assert 0 <= accuracy <= 1 and loss > 0
    assert touched == {"gate", *map(str, range(4))}
    assert all(bool(torch.isfinite(parameter).all()) for parameter in net.parameters())
    again = module.Net(in_shape, (10,), dict(prm), CPU)
    again.train_setup(prm)
    load_weights(again, {n: value for n, value in net.state_dict().items() if isinstance(value, torch.Tensor)}, shape)
    outputs = []
    for built in (net.eval(), again):
        torch.manual_seed(2)
        with torch.no_grad():
            outputs.append(built(images))
    torch.testing.assert_close(*outputs, rtol=0, atol=0)


def assert_is_the_family(
    net: Any, module: ModuleType, place: int, family: Family, batch: int, channels: int, folder: Path
) -> None:
    """Check that with the same seeds the family alone and its expert have equal weights and outputs."""
    arguments = ((batch, channels, *net.adapters[place].size), (10,))
    torch.manual_seed(1)
    alone = import_source(family.source, folder).Net(*arguments, best_hyperparameters(family), CPU)
    torch.manual_seed(1)
    again = module.EXPERTS[place].network(*arguments, best_hyperparameters(family), CPU)
    # Uninitialized weights would differ between two networks or be NaN; no family has any.
    torch.testing.assert_close(again.state_dict(), alone.state_dict(), rtol=0, atol=0)
    assert trainable(net.experts[place]) == trainable(alone)
    images = torch.rand(batch, channels, *net.adapters[place].size)
    images = images.to(torch.complex64) if net.adapters[place].complex_input else images
    for mode in (False, True):
        outputs = []
        for built in (again, alone):
            torch.manual_seed(2)
            with torch.no_grad():
                outputs.append(built.train(mode)(images))
        torch.testing.assert_close(*outputs, rtol=0, atol=0)


def trainable(net: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(parameter.shape) for parameter in net.parameters() if parameter.requires_grad]


def watch_gradients(net: Any) -> set[str]:
    """Collect the parts with a nonzero gradient."""
    touched: set[str] = set()

    def watcher(name: str) -> Callable[[torch.Tensor], None]:
        def watch(parameter: torch.Tensor) -> None:
            if parameter.grad is not None and bool((parameter.grad != 0).any()):
                touched.add(name)

        return watch

    for name, part in [("gate", net.gate), *((str(place), expert) for place, expert in enumerate(net.experts))]:
        for parameter in part.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(watcher(name))
    return touched
