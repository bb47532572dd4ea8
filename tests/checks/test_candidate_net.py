"""Calls into a candidate: what is passed, what is accepted, and the verdict on each failure."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from nngen.checks.candidate_net import (
    build_net,
    check_interface,
    hyperparameter_names,
    load_module,
    logits,
    materialise,
    net_class,
    set_mode,
    set_up,
)
from nngen.checks.rule import CheckFailed
from nngen.types import Outcome, Shape

FILE = Path("candidate.py")
SHAPE = Shape(3, 4, 5)
CPU = torch.device("cpu")


def refused(call: Callable[[], object]) -> tuple[Outcome, str, str]:
    with pytest.raises(CheckFailed) as failed:
        call()
    verdict = failed.value.verdict
    return verdict.outcome, verdict.rule, verdict.message


def module(**names: object) -> ModuleType:
    made = ModuleType("candidate")
    vars(made).update(names)
    return made


class Net(nn.Linear):
    """A net that keeps what it is built with."""

    def __init__(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...], prm: dict[str, Any], device: object):
        super().__init__(in_shape[1], out_shape[0])
        self.given = in_shape, out_shape, prm, device


def names_of(returned: object) -> ModuleType:
    return module(Net=Net, supported_hyperparameters=lambda: returned)


def test_a_file_is_imported_under_its_name(tmp_path: Path) -> None:
    path = tmp_path / "file.py"
    path.write_text("import sys\nVALUE = sys.modules[__name__].__name__\n")
    for name, loaded in (("candidate", load_module(path)), ("other_name", load_module(path, "other_name"))):
        assert (loaded.VALUE, loaded.__file__) == (name, str(path))
        assert sys.modules.pop(name) is loaded
    path.write_text("\nraise ValueError('no')\n")
    expected = (Outcome.IMPORT, "import", "line 2: ValueError: no, while the file was imported")
    assert refused(lambda: load_module(path)) == expected


def test_net_is_a_class_of_modules() -> None:
    assert net_class(names_of([])) is Net
    missing = (Outcome.CONTRACT, "interface", "class Net is missing: add it, a torch.nn.Module")
    wrong = (Outcome.CONTRACT, "interface", "Net is not a subclass of torch.nn.Module")
    for made, verdict in ((module(), missing), (module(Net=None), missing), (module(Net=int), wrong)):
        assert refused(lambda made=made: net_class(made)) == verdict
    assert refused(lambda: net_class(module(Net=nn.ReLU()))) == wrong


@pytest.mark.parametrize(
    ("returned", "names"),
    [({"lr"}, ["lr"]), (["b", 3, "a", None], ["b", "a"]), ({"x": 1}, ["x"]), (iter("ab"), ["a", "b"]), ((), [])],
)
def test_names_of_hyperparameters_are_the_texts_of_a_collection(returned: object, names: list[str]) -> None:
    assert hyperparameter_names(names_of(returned), FILE) == names


def test_anything_else_is_refused() -> None:
    none = "supported_hyperparameters() does not return names of hyperparameters: return a set of str"
    for returned in (None, 3, "lr"):
        verdict = refused(lambda returned=returned: hyperparameter_names(names_of(returned), FILE))
        assert verdict == (Outcome.CONTRACT, "interface", none)
    missing = "supported_hyperparameters() is missing: add it, returning a set of names"
    for made in (module(), module(supported_hyperparameters={"lr"})):
        assert refused(lambda made=made: hyperparameter_names(made, FILE)) == (Outcome.CONTRACT, "interface", missing)

    def raises() -> None:
        raise KeyError("x")

    verdict = refused(lambda: hyperparameter_names(module(supported_hyperparameters=raises), FILE))
    assert verdict[2] == "KeyError: 'x', while supported_hyperparameters() was called"


def test_each_name_needs_a_value() -> None:
    made = names_of({"lr", "width", "depth"})
    assert check_interface(made, FILE, {"lr": None, "width": 0, "depth": 1, "more": 2}) is Net
    message = "hyperparameter depth has no value: give one with --prm depth=VALUE"
    assert refused(lambda: check_interface(made, FILE, {"lr": 1})) == (Outcome.CONTRACT, "interface", message)
    shown = "x" * 59 + "…"
    message = f"hyperparameter {shown} has no value: give one with --prm {shown}=VALUE"
    assert refused(lambda: check_interface(names_of(["x" * 61]), FILE, {}))[2] == message
    assert refused(lambda: check_interface(names_of(["x" * 60]), FILE, {}))[2].count("x" * 60 + " ") == 1


def build(kind: type[nn.Module], device: torch.device = CPU) -> nn.Module:
    made = module(Net=kind, supported_hyperparameters=set)
    return build_net(made, FILE, shape=SHAPE, classes=7, prm={"lr": 1}, device=device)


def test_a_net_is_built_for_one_image() -> None:
    net = build(Net)
    assert isinstance(net, Net)
    assert net.given == ((1, 3, 4, 5), (7,), {"lr": 1}, CPU)

    class Lazy(nn.Module):
        def __init__(self, *_: object) -> None:
            super().__init__()
            self.layer, self.seen = nn.LazyConv2d(2, 1), []

        def forward(self, x: torch.Tensor) -> None:
            self.seen.append((tuple(x.shape), self.training, torch.is_grad_enabled(), float(x.abs().sum())))
            self.layer(x)

    assert build(Lazy).seen == [((2, 3, 4, 5), False, False, 0.0)]


def test_a_net_is_moved_with_the_parameters_that_it_moved_itself() -> None:
    class Moved(Net):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.scale = nn.Parameter(torch.ones(2)).to("meta")
            self.copy = nn.Parameter(torch.ones(2)).double()  # on the same device: another tensor

    meta = torch.device("meta")
    net = build(Moved, meta)
    assert [(name, value.device) for name, value in net.named_parameters()] == [
        (name, meta) for name in ("weight", "bias", "scale")
    ]


def test_a_net_that_cannot_be_built_has_a_verdict() -> None:
    class Raises(nn.Module):
        def __init__(self, *_: object) -> None:
            raise ValueError("no")

    class Frozen(Net):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.requires_grad_(False)

    class Hidden(Net):
        def parameters(self, *_: object) -> Any:
            if "moved" in vars(self):
                raise ValueError("no parameters")
            return super().parameters()

        def to(self, *_: object) -> None:
            self.moved = True

    class Half(Net):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.weight.requires_grad = False

    text = "ValueError: no, while Net((1, 3, 4, 5), (7,), prm, device) was built"
    assert refused(lambda: build(Raises)) == (Outcome.CRASHED, "build", text)
    assert refused(lambda: build(Frozen)) == (Outcome.NO_GRADIENT, "build", "Net has no trainable parameter")
    assert isinstance(build(Half), Half)


def test_only_lazy_nets_run_for_their_weights() -> None:
    class Batch(nn.Module):
        """A net with lazy buffers alone."""

        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LazyBatchNorm2d(affine=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(x)

    net = Batch()
    materialise(net, torch.ones(2, 3, 4, 5), FILE)
    assert net.norm.running_mean is not None and net.norm.running_mean.tolist() == [0.0] * 3
    verdict = refused(lambda: materialise(nn.Sequential(nn.LazyLinear(2), nn.Linear(3, 3)), torch.ones(2, 5), FILE))
    assert verdict[:2] == (Outcome.SHAPE, "build")


def test_set_up_and_modes_are_called_and_guarded() -> None:
    class Setting(nn.Linear):
        given: object = None

        def train_setup(self, prm: object) -> None:
            if prm is None:
                raise ValueError("no prm")
            self.given = prm

        def train(self, mode: bool = True) -> nn.Module:
            if self.given == mode:
                raise ValueError(f"not {mode}")
            return super().train(mode)

    net, prm = Setting(1, 1), {"lr": 1}
    set_up(net, FILE, prm)
    assert net.given is prm
    expected = (Outcome.CRASHED, "build", "ValueError: no prm, while Net.train_setup(prm) ran")
    assert refused(lambda: set_up(net, FILE, None)) == expected  # type: ignore[arg-type]
    for training, mode in ((True, "training"), (False, "evaluation")):
        net.given = training
        verdict = refused(lambda training=training: set_mode(net, FILE, training=training))
        assert verdict == (Outcome.CRASHED, "shape", f"ValueError: not {training}, while its mode was set to {mode}")
        set_mode(net, FILE, training=not training)
        assert net.training is not training


class Returns(nn.Module):
    def __init__(self, returned: object) -> None:
        super().__init__()
        self.returned = returned

    def forward(self, x: torch.Tensor) -> object:
        if isinstance(self.returned, Exception):
            raise self.returned
        return self.returned


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (torch.zeros(2, 4), "forward returned (2, 4) in {} mode on a batch of 2; return (2, 7)"),
        (torch.zeros(3, 7), "forward returned (3, 7) in {} mode on a batch of 2; return (2, 7)"),
        (torch.zeros(14), "forward returned (14,) in {} mode on a batch of 2; return (2, 7)"),
        ([torch.zeros(2, 7)], "forward returned list in {} mode; return a tensor (2, 7)"),
        ((), "forward returned tuple in {} mode; return a tensor (2, 7)"),
        (ValueError("x"), "ValueError: x, while forward ran in {} mode on a batch of 2"),
    ],
)
def test_an_output_that_is_no_logits_has_a_verdict(returned: object, message: str) -> None:
    images = torch.zeros(2, 3, 4, 5)
    for net, mode in ((Returns(returned).train(), "train"), (Returns(returned).eval(), "eval")):
        for auxiliary in (False, True):
            verdict = refused(
                lambda net=net, auxiliary=auxiliary: logits(net, images, FILE, classes=7, auxiliary=auxiliary)
            )
            assert verdict == (Outcome.SHAPE, "shape", message.format(mode))


def test_the_first_of_a_tuple_is_taken_where_others_may_follow() -> None:
    right = torch.zeros(2, 7)
    images = torch.zeros(2, 3, 4, 5)
    for returned in (right, (right,), (right, 3)):
        assert logits(Returns(returned), images, FILE, classes=7, auxiliary=True) is right
    assert logits(Returns(right), images, FILE, classes=7) is right
    assert refused(lambda: logits(Returns((right, 3)), images, FILE, classes=7))[0] is Outcome.SHAPE
