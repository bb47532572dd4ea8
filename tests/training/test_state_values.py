"""Values of a net as JSON and back, one by one, and weights that are given to a net."""

from __future__ import annotations

import json
import re
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nngen.training.state.net_state import capture, load_weights, place_experts, restore, take_over
from nngen.training.state.net_values import StateMismatchError, UnknownStateError
from nngen.types import Shape


class Pair(NamedTuple):
    first: int
    second: float


class Plain:
    """An object that is made of its attributes."""


class Holder(nn.Module):
    """A module with the given attributes."""

    def __init__(self, **values: Any) -> None:
        super().__init__()
        for name, value in values.items():
            setattr(self, name, value)


def plain(**values: Any) -> Plain:
    made = Plain()
    vars(made).update(values)
    return made


def values(n: int) -> dict[str, Any]:
    """Return a value of each kind; another for each number."""
    shared = [n]
    return {
        "none": None if n == 3 else 1,
        "truth": n == 3,
        "number": n,
        "real": n / 2,
        "text": str(n),
        "scalar": np.float32(n),
        "whole": np.int16(n),
        "complex": complex(n, -n),
        "bytes": bytes([n, 255]),
        "pair": Pair(n, n / 4),
        "tuple": (n, "x" * n, (n,)),
        "list": [*range(n)],
        "deque": deque(range(n)),
        "set": {n, str(n)},
        "dict": {n: n, "same": n, (1, 2): [n]},
        "ordered": OrderedDict(b=n, a=n),
        "counter": Counter("a" * n),
        "default": defaultdict(list, a=[n]),
        "object": plain(n=n, inner=plain(more=shared)),
        "shared": shared,
        "array": np.arange(n),
        "tensor": torch.arange(n),
        "generator": torch.Generator().manual_seed(n),
        "part": nn.Linear(2, 1),
        "again": shared,
    }


def shown(value: Any) -> Any:
    """Describe a value with its type; shared values are found by ``is``."""
    if isinstance(value, Tensor):
        return ("Tensor", value.tolist(), value.dtype, value.requires_grad)
    if isinstance(value, np.ndarray):
        return ("ndarray", value.tolist(), value.dtype)
    if isinstance(value, torch.Generator):
        return ("Generator", value.get_state().tolist())
    if isinstance(value, Plain | nn.Module):
        return (type(value).__name__, {name: shown(item) for name, item in vars(value).items() if "hook" not in name})
    if isinstance(value, dict):
        return (type(value).__name__, [(key, shown(item)) for key, item in value.items()])
    if isinstance(value, list | tuple | deque):
        return (type(value).__name__, [shown(item) for item in value])
    return (type(value).__name__, value)


def saved(net: nn.Module) -> tuple[dict[str, Tensor], Any]:
    """Return the state as it comes from its file: as copies and JSON."""
    tensors, state = capture(net)
    return {name: value.detach().clone() for name, value in tensors.items()}, json.loads(json.dumps(state))


@pytest.mark.parametrize("other", [1, 5])
def test_each_kind_of_value_comes_back_in_place(other: int) -> None:
    whole, built = Holder(**values(3)), Holder(**values(other))
    whole.eval()
    del whole.text
    built.extra = [1]
    before = vars(built).copy()
    weight, list_of_keys = built.part.weight, built.dict[(1, 2)]
    restore(built, *saved(whole))
    assert shown(built) == shown(whole)
    assert built.shared is built.again is built.object.inner.more
    for name in ("list", "deque", "set", "dict", "ordered", "counter", "default", "object", "shared", "generator"):
        assert vars(built)[name] is before[name]
    assert (built.part.weight, built.dict[(1, 2)]) == (weight, list_of_keys)
    assert built.dict[(1, 2)] is list_of_keys


def test_values_of_a_kind_that_the_new_net_has_not_are_made() -> None:
    whole = values(3)
    fresh = ("object", "part", "shared", "again")
    built = Holder(**{name: None for name in whole if name not in fresh}, **{name: values(1)[name] for name in fresh})
    wanted = Holder(**whole)
    restore(built, *saved(wanted))
    found = {name: value for name, value in vars(built).items() if name in whole and name != "pair"}
    assert shown(found) == shown({name: vars(wanted)[name] for name in found})
    assert vars(built)["pair"] == (3, 0.75)


def test_the_state_is_plain_json() -> None:
    module = Holder(a=1, b=[None, "x"], c=(True, b"\x01\xff"), d={2: abs}, e=np.float64(0.5), f=1j, g=plain(h=2.5))
    module.k, module.names = module.b, {1: torch.zeros(1), "1": torch.ones(1)}
    module.layer, module.kept = nn.Linear(1, 1), nn.Parameter(torch.zeros(2), requires_grad=False)
    tensors, (kind, content, number) = capture(module)
    assert (kind, number, [name for name, _ in content]) == ("dict", 0, ["net", "python", "numpy", "torch"])
    layer = {"weight": ["tensor", "net.layer.weight", True, 4], "bias": ["tensor", "net.layer.bias", True, 5]}
    inner = {"training": True, "in_features": 1, "out_features": 1}
    others = {
        "training": True,
        "a": 1,
        "b": ["list", [None, "x"], 6],
        "c": ["tuple", [True, ["bytes", "01ff"]]],
        "d": ["dict", [[2, ["same"]]], 7],
        "e": ["scalar", "<f8", 0.5],
        "f": ["complex", 0.0, 1.0],
        "g": ["object", "Plain", {"h": 2.5}, 8],
        "k": ["ref", 6],
        "names": ["dict", [[1, ["tensor", "net.names.1", False, 10]], ["1", ["tensor", "net.names.1'", False, 11]]], 9],
    }
    parts = {"layer": ["module", layer, {}, {}, inner, 3]}
    assert content[0][1] == ["module", {"kept": ["tensor", "net.kept", False, 2]}, {}, parts, others, 1]
    names = {"net.kept", "net.layer.weight", "net.layer.bias", "net.names.1", "net.names.1'", "torch"}
    assert tensors.keys() == names | {"numpy[1]"}
    assert tensors["net.layer.weight"] is module.layer.weight


def test_gradients_are_asked_for_where_they_were() -> None:
    whole, built = Holder(a=torch.zeros(1), b=nn.Parameter(torch.zeros(1))), Holder(a=torch.zeros(1), b=None)
    built.b = nn.Parameter(torch.ones(1), requires_grad=False)
    whole.a.requires_grad_()
    whole.c = whole.b * 2  # computed: it asks for a gradient and is no leaf
    built.c = built.a.requires_grad_() * 2
    restore(built, *saved(whole))
    assert (built.a.requires_grad, built.b.requires_grad) == (True, True)
    assert (built.b.tolist(), built.c.tolist()) == ([0.0], [0.0])


def test_a_tensor_of_another_kind_is_replaced_and_a_parameter_is_not() -> None:
    whole = Holder(a=torch.ones(2), b=torch.ones(2), c=nn.Parameter(torch.ones(2)))
    built = Holder(a=torch.zeros(3), b=torch.zeros(2, dtype=torch.int64), c=nn.Parameter(torch.zeros(2)))
    a = built.a
    restore(built, *saved(whole))
    assert built.a is not a
    assert shown([built.a, built.b]) == shown([whole.a, whole.b])
    for other in (torch.zeros(3), torch.zeros(2, dtype=torch.float64)):
        built = Holder(a=a, b=a, c=nn.Parameter(other))
        with pytest.raises(
            StateMismatchError, match=rf"^net\.c is \(2,\) and not {re.escape(str(tuple(other.shape)))}$"
        ):
            restore(built, *saved(whole))


SGD = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)


@pytest.mark.parametrize(
    ("grown", "message"),
    [
        ({"a": abs}, "a function or a class is put into the net while the net trains"),
        ({"a": SGD}, "an optimizer or a schedule is made while the net trains"),
        ({"a": [nn.Linear(1, 1)]}, "a part of the net is made while it trains"),
        ({"a": nn.Linear(1, 1)}, "a Holder has other parts than when it was stored"),
        ({"a": nn.Parameter(torch.zeros(1))}, "a Holder has other parts than when it was stored"),
        ({"a": plain()}, "an object of class Plain is made while the net trains"),
    ],
)
def test_what_cannot_be_made_again_is_named(grown: dict[str, Any], message: str) -> None:
    tensors, state = saved(Holder(**grown))
    with pytest.raises(StateMismatchError, match=f"^{message}$"):
        restore(Holder(), tensors, state)


def test_a_damaged_state_is_named_by_its_error() -> None:
    tensors, state = saved(Holder(a=torch.zeros(1)))
    with pytest.raises(StateMismatchError, match=r"^KeyError: 'net\.a'$"):
        restore(Holder(), {}, state)
    with pytest.raises(StateMismatchError, match=r"^AttributeError: "):
        restore(Holder(), tensors, ["dict", [["net", ["odd", 1]]], 0])


class Slots:
    __slots__ = ("a",)


class Slotted(Slots):
    """An object with a dictionary, and more."""


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([Slots()], r"net\.a\[0\] is a Slots, whose state cannot be stored"),
        (Slotted(), r"net\.a is a Slotted, whose state cannot be stored"),
        (np.array(["x"]), r"net\.a is a ndarray, whose state cannot be stored"),
        (torch.eye(2).to_sparse(), r"net\.a is a tensor of torch.float32 and torch.sparse_coo, which cannot be stored"),
    ],
)
def test_a_value_without_a_known_state_is_named(value: object, message: str) -> None:
    with pytest.raises(UnknownStateError, match=f"^{message}$"):
        capture(Holder(a=value))


def test_the_generator_of_a_card_comes_back_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[int]] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: torch.tensor([7], dtype=torch.uint8))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state: given.append(state.tolist()))
    tensors, state = saved(Holder())
    assert "cuda" in tensors
    restore(Holder(), tensors, state)
    assert given == [[7]]


class Late(nn.Module):
    """A net that makes a layer in its first forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 2)
        self.late: nn.Linear | None = None
        self.register_buffer("graph", torch.eye(2).to_sparse())
        self.seen: list[tuple[tuple[int, ...], bool, bool]] = []

    def get_extra_state(self) -> str:
        return "x"

    def set_extra_state(self, state: str) -> None:
        assert state == "x"

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append((tuple(images.shape), self.training, torch.is_grad_enabled()))
        if self.late is None:
            self.late = nn.Linear(2, 3)
        return self.late(self.first(images.flatten(1)))


def test_weights_of_layers_that_come_late_are_loaded_too() -> None:
    trained = Late()
    trained(torch.rand(2, 2, 2, 2))
    kept = {name: value for name, value in trained.state_dict().items() if isinstance(value, Tensor)}
    kept["graph"] = 3 * torch.eye(2)
    net = Late()
    for passes in (1, 1):
        load_weights(net, kept, Shape(2, 2, 2))
        assert net.seen == [((2, 2, 2, 2), False, False)] * passes
    found = net.state_dict()
    assert found["graph"].layout is torch.sparse_coo
    dense = {name: value.to_dense() for name, value in found.items() if isinstance(value, Tensor)}
    assert shown(dense) == shown({name: kept[name] for name in dense})
    assert dense.keys() == kept.keys()
    with pytest.raises(RuntimeError, match="Missing key"):
        load_weights(net, {name: value for name, value in kept.items() if name != "graph"}, Shape(2, 2, 2))


def test_experts_take_the_weights_of_their_own_trainings() -> None:
    def one() -> nn.Module:
        return Holder(expert=nn.Linear(2, 2))

    net = Holder(experts=nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)]), gate=nn.Linear(2, 2))
    gate, alone = net.gate.weight.tolist(), [one(), one()]
    place_experts(net, [part.state_dict() for part in alone], Shape(1, 1, 2))
    assert [expert.weight.tolist() for expert in net.experts] == [part.expert.weight.tolist() for part in alone]
    assert [expert.bias.tolist() for expert in net.experts] == [part.expert.bias.tolist() for part in alone]
    assert (net.gate.weight.tolist(), net.training) == (gate, False)


def test_weights_that_fit_are_taken_over_and_the_rest_is_counted() -> None:
    def net(width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(2, 2), nn.Linear(2, width, bias=False), nn.BatchNorm1d(2))

    own, other = net(3), net(4)
    other[2].running_var += 1
    weights = other.state_dict() | {"2.running_mean": torch.zeros(2, dtype=torch.float64), "unknown": torch.ones(1)}
    assert take_over(own, weights) == "6 of 8 tensors kept; made anew: 1.weight and 2.running_mean"
    assert own[0].weight.tolist() == other[0].weight.tolist()
    assert own[2].running_var.tolist() == [2.0, 2.0]
    assert take_over(own, own.state_dict()) == "8 of 8 tensors kept"
    wide = nn.Sequential(*(nn.Linear(2, 3, bias=False) for _ in range(6)))
    some = {"0.weight": wide[0].weight.detach()}
    made = "1.weight, 2.weight, 3.weight and 2 more"
    assert take_over(wide, some) == f"1 of 6 tensors kept; made anew: {made}"
    with pytest.raises(ValueError, match=r"^none of them fits the net$"):
        take_over(own, {"1.weight": torch.ones(9)})


class Versioned(nn.Linear):
    """Layer that refuses a state without its version, as torchvision's MNASNet does."""

    _version = 2

    def _load_from_state_dict(self, state: Any, prefix: str, metadata: Any, *rest: Any) -> None:
        if metadata.get("version") != 2:
            raise ValueError(f"a state of version {metadata.get('version')}")
        super()._load_from_state_dict(state, prefix, metadata, *rest)


@pytest.mark.parametrize("how", ["all", "experts", "some"])
def test_weights_of_layers_that_ask_for_a_version_are_loaded(how: str) -> None:
    net, trained = (Holder(experts=nn.ModuleList([Versioned(2, 2)])) for _ in range(2))
    kept = dict(trained.state_dict())
    if how == "all":
        load_weights(net, kept, Shape(1, 1, 2))
    elif how == "experts":
        place_experts(net, [{name.removeprefix("experts.0."): value for name, value in kept.items()}], Shape(1, 1, 2))
    else:
        take_over(net, kept)
    assert shown(dict(net.state_dict())) == shown(kept)
