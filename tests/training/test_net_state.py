"""State of a net between two epochs: captured, restored into a net built anew, trained on to the same last digit."""

import importlib.util
import json
import random
import struct
from collections import deque
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from threading import Lock

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from nngen.assembly.assemble import assemble
from nngen.assembly.plan_toml import preset
from nngen.plan import Recipe
from nngen.training.state.net_state import capture, restore
from nngen.training.state.net_values import StateMismatchError, UnknownStateError
from nngen.training.state.tensor_file import TensorFile, encode, storable

GOLDEN = Path(__file__).parents[1] / "golden"
PRM = {"lr": 0.01, "momentum": 0.9, "batch": 4, "epoch": 3, "transform": "norm_16"}
RECIPES = {
    "average": Recipe(ema=0.9, optimizer="sgd", weight_decay=0.0),
    "mixing": Recipe(mixup=0.4, cutmix=0.5),
}


def source_of(kind):
    if kind in RECIPES:
        return assemble(replace(preset("moev7"), recipe=RECIPES[kind]), []).source
    return (GOLDEN / f"{kind}.py").read_text()


def build(source, folder, seed=0):
    file = folder / "net.py"
    file.write_text(source)
    spec = importlib.util.spec_from_file_location("net_of_state", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for start in (random.seed, np.random.seed, torch.manual_seed):
        start(seed)
    net = module.Net((1, 3, 16, 16), (5,), dict(PRM), torch.device("cpu"))
    net.train_setup(dict(PRM))
    return net


def epoch(net):
    """Train an epoch and predict, as a trial does; return the logits."""
    generator = torch.Generator().manual_seed(1)
    batches = [
        (torch.rand(4, 3, 16, 16, generator=generator), torch.randint(0, 5, (4,), generator=generator))
        for _ in range(3)
    ]
    net.train()
    net.learn(batches)
    net.eval()
    with torch.no_grad():
        return net(batches[0][0])


def through_a_file(net):
    """Return the state as it comes from its file."""
    tensors, state = capture(net)
    size, parts = encode(tensors, {"state": json.dumps(state)})
    content = b"".join(parts)
    assert len(content) == size
    file = TensorFile(BytesIO(content))
    return file, json.loads(file.metadata["state"])


@pytest.mark.long
@pytest.mark.parametrize("kind", ["hetero", "homogeneous", "alexnet", *RECIPES])
def test_a_restored_mixture_trains_on_to_the_last_bit(kind, tmp_path):
    source = source_of(kind)
    whole = build(source, tmp_path)
    epoch(whole)
    tensors, state = through_a_file(whole)
    # The restored net is built by another state of the generators, which must not matter.
    wanted = [epoch(whole), epoch(whole)]
    resumed = build(source, tmp_path)
    torch.manual_seed(9)
    restore(resumed, tensors, state)
    assert [torch.equal(epoch(resumed), logits) for logits in wanted] == [True, True]
    assert resumed.history == whole.history
    differing = build(source, tmp_path)
    assert not torch.equal(epoch(differing), wanted[0])


class Odd(nn.Module):
    """A net with values of many kinds, some of them shared."""

    def __init__(self, hidden=0):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.rows = nn.RNN(2, 2)
        self.register_buffer("seen", torch.zeros(()), persistent=False)
        self.optimizer = torch.optim.AdamW(self.parameters(), lr=0.1)
        self.schedule = torch.optim.lr_scheduler.MultiStepLR(self.optimizer, [1, 3])
        self.generator = torch.Generator().manual_seed(0)
        self.shared = self.also = [1]
        self.values = {"a": (1, 2.5, None), 3: {"x"}, "last": deque([1], maxlen=2), "nan": float("nan")}
        self.numbers = np.arange(3.0)
        self.average = self.layer.weight.detach().clone()
        self.loose = [nn.Linear(1, 1)]
        self.function = abs
        self.hidden = hidden

    def step(self):
        self.optimizer.zero_grad()
        noise = torch.rand(2, generator=self.generator)
        self.layer(noise).sum().backward()
        self.optimizer.step()
        self.schedule.step()
        self.seen += 1
        self.shared.append(len(self.shared))
        self.values["a"] = (self.values["a"][0] + 1, float(noise[0]), True)
        self.values["last"].append(random.random())
        self.numbers = self.numbers * np.random.rand()
        self.average.mul_(0.5).add_(self.layer.weight.detach(), alpha=0.5)
        self.loose[0].weight.data += 1
        self.training = not self.training


def look(net):
    parts = (net.layer.weight, net.seen, net.average, net.loose[0].weight)
    texts = (net.shared, net.values, net.numbers, net.training, net.schedule.get_last_lr())
    return [part.tolist() for part in parts], repr(texts)


def test_values_of_many_kinds_and_what_is_shared():
    torch.manual_seed(0)
    whole = Odd()
    whole.step()
    tensors, state = through_a_file(whole)
    whole.step()
    torch.manual_seed(0)
    resumed = Odd()
    restore(resumed, tensors, state)
    assert resumed.shared is resumed.also
    resumed.step()
    assert look(resumed) == look(whole)
    assert (resumed.values["last"].maxlen, resumed.function) == (2, abs)
    assert resumed.also == [1, 1, 2]


@pytest.mark.parametrize("hidden", [iter([1]), (number for number in [1]), torch.nn.Module, [Lock()]])
def test_what_cannot_be_stored_is_named(hidden):
    if hidden is torch.nn.Module:  # a class does not change
        capture(Odd(hidden))
        return
    with pytest.raises(UnknownStateError, match=r"net\.hidden(\[0\])? is a (list_iterator|generator|lock), whose"):
        capture(Odd(hidden))


def test_the_state_of_another_net_is_refused():
    tensors, state = through_a_file(Odd())
    with pytest.raises(StateMismatchError, match="has other parts"):
        restore(nn.Linear(2, 2), tensors, state)
    other = Odd()
    other.layer = nn.Linear(2, 3)
    with pytest.raises(StateMismatchError, match=r"layer\.weight is \(2, 2\) and not \(3, 2\)"):
        restore(other, tensors, state)
    for broken in (None, [], {"net": 1}, ["dict", [], 0], ["what", 1], state[:1]):
        with pytest.raises(StateMismatchError):
            restore(Odd(), tensors, broken)


def test_what_is_made_while_training_is_refused():
    grown = Odd(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0))
    tensors, state = through_a_file(grown)
    with pytest.raises(StateMismatchError, match="made while the net trains"):
        restore(Odd(), tensors, state)


def test_the_format_is_that_of_safetensors():
    tensors = {
        "half": torch.rand(2, 3).half(),
        "brain": torch.rand(2).bfloat16(),
        "none": torch.zeros(0, 4),
        "number": torch.tensor(3),
        "truth": torch.tensor([True, False]),
        "turned": torch.rand(2, 3).T,
        "complex": torch.rand(2, dtype=torch.complex64).conj(),
    }
    content = b"".join(encode(tensors, {"state": "é"})[1])
    theirs = load(content)
    ours = TensorFile(BytesIO(save({name: theirs[name] for name in theirs}, {"state": "é"})))
    assert ours.metadata == {"state": "é"}
    for name, tensor in tensors.items():
        assert torch.equal(theirs[name], tensor)
        assert torch.equal(ours[name], tensor)
        assert ours[name].dtype is tensor.dtype


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\2\0\0\0\0\0\0\0[]", b"\xff" * 8 + b"{}", b"\2\0\0\0\0\0\0\0{"])
def test_other_files_are_refused(content):
    with pytest.raises(ValueError, match="not a safetensors file"):
        TensorFile(BytesIO(content))


def file_of(table, body=b"", length=None):
    """Return an open file with a header of any form."""
    head = json.dumps(table).encode()
    return TensorFile(BytesIO(struct.pack("<Q", len(head) if length is None else length) + head + body))


@pytest.mark.parametrize(("length", "fault"), [(100_000_000, "Extra data"), (100_000_001, "its header is too long")])
def test_a_header_has_the_longest_length_of_safetensors(length, fault):
    with pytest.raises(ValueError, match=rf"^not a safetensors file \(.*{fault}"):
        TensorFile(BytesIO(struct.pack("<Q", length) + b"{}{}"))


def test_a_file_lists_its_tensors_and_begins_at_a_multiple_of_eight():
    for name in ("a", "ab", "abcdefgh"):
        tensors = {name: torch.arange(3), "none": torch.zeros(0), "last": torch.ones(2, dtype=torch.int8)}
        size, parts = encode(tensors, {"x": "y"})
        content = b"".join(parts)
        assert (len(content), (len(content) - 24 - 2) % 8) == (size, 0)
        file = TensorFile(BytesIO(content))
        assert ([*file], len(file), file.metadata) == ([*tensors], 3, {"x": "y"})
        assert [file[key].tolist() for key in file] == [[0, 1, 2], [], [1, 1]]
    assert file_of({}).metadata == {}


def test_a_tensor_of_another_size_than_its_shape_is_refused():
    entry = {"dtype": "I8", "shape": [3], "data_offsets": [0, 2]}
    with pytest.raises(ValueError, match=r"^a has another size than its shape$"):
        file_of({"a": entry}, b"ab")["a"]


@pytest.mark.parametrize(
    ("tensor", "good"),
    [
        (torch.zeros(2), True),
        (torch.zeros(2, dtype=torch.bool), True),
        (torch.zeros(2, dtype=torch.complex128), False),
        (torch.eye(2).to_sparse(), False),
        (torch.zeros(2, device="meta"), False),
    ],
)
def test_the_format_has_dense_tensors_of_its_types(tensor, good):
    assert storable(tensor) is good


def test_a_file_that_was_cut_is_refused():
    content = b"".join(encode({"a": torch.rand(9)}, {})[1])
    file = TensorFile(BytesIO(content[:-1]))
    with pytest.raises(ValueError, match="ends within a"):
        file["a"]
