"""Parts that the check rules are made of: prm, verdicts of exceptions, batches, groups of parameters, memory format."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from nngen.checks.candidate_net import _restore_parameters, logits, materialise, set_mode
from nngen.checks.card import WHOLE, contiguous_parts, takes_channels_last, use_channels_last
from nngen.checks.constants import MOST_CONSTANTS, MOST_DIGITS, MOST_ITEMS, large_constants
from nngen.checks.context import BATCH, CheckContext, groups
from nngen.checks.guard import guard
from nngen.checks.prm import changed_keys, make_prm
from nngen.checks.rule import CheckFailed, fail
from nngen.checks.source import Source, own_seeds
from nngen.checks.static import static_check
from nngen.types import MAX_SOURCE_BYTES, Outcome, Shape

FILE = Path("candidate.py")


def test_prm_has_every_name_that_lemur_knows() -> None:
    known = {"lr": 1e-3, "momentum": 0.9, "dropout": 0.2, "pretrained": 0, "batch": 64, "epoch": 1}
    assert make_prm({}, shape=Shape(3, 32, 48)) == known | {"transform": "norm_32"}
    given = {"lr": 0.5, "depth": 3}
    assert make_prm(given, shape=Shape(1, 8, 8), augment="crop-flip") == known | given | {
        "transform": "norm_8_crop_flip"
    }


def test_keys_that_were_changed() -> None:
    same = object()
    before = {"a": same, "b": 1, "c": None, "d": 2}
    assert changed_keys(before, dict(before)) == []
    assert changed_keys(before, {"a": same, "b": 2, "c": None, "e": None}) == ["b", "d", "e"]


class OutOfMemoryError(Exception):
    """As torch calls its own."""


class Silent(Exception):  # noqa: N818
    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    ("error", "outcome", "message"),
    [
        (ValueError("no"), Outcome.CONTRACT, "ValueError: no, while x ran"),
        (ValueError(), Outcome.CONTRACT, "ValueError, while x ran"),
        (Silent(), Outcome.CONTRACT, "Silent, while x ran"),
        (RuntimeError("CUDA out of memory"), Outcome.MEMORY, "RuntimeError: CUDA out of memory, while x ran"),
        (RuntimeError("mat1"), Outcome.CONTRACT, "RuntimeError: mat1, while x ran"),
        (ValueError("out of memory"), Outcome.CONTRACT, "ValueError: out of memory, while x ran"),
        (OutOfMemoryError(), Outcome.MEMORY, "OutOfMemoryError, while x ran"),
        (MemoryError(), Outcome.MEMORY, "MemoryError, while x ran"),
        (SystemExit(3), Outcome.CRASHED, "sys.exit(3) was called, while x ran"),
        (KeyboardInterrupt(), Outcome.CRASHED, "KeyboardInterrupt, while x ran"),
        (SyntaxError("bad", (str(FILE), 7, 1, "x")), Outcome.SYNTAX, "line 7: SyntaxError: bad, while x ran"),
        (SyntaxError("bad", ("other.py", 7, 1, "x")), Outcome.CONTRACT, "SyntaxError: bad, while x ran"),
    ],
)
def test_what_is_raised_becomes_a_verdict(error: BaseException, outcome: Outcome, message: str) -> None:
    with pytest.raises(CheckFailed) as failed, guard("rule", Outcome.CONTRACT, FILE, "x ran"):
        raise error
    found = failed.value.verdict
    assert (found.outcome, found.rule, found.message) == (outcome, "rule", message)


def test_the_line_is_the_innermost_one_of_the_candidate() -> None:
    code = "def inner():\n    raise ValueError\ndef outer():\n    inner()\n"
    names: dict[str, object] = {}
    exec(compile(code, str(FILE), "exec"), names)
    with pytest.raises(CheckFailed) as failed, guard("rule", Outcome.CRASHED, FILE, "x ran"):
        names["outer"]()  # type: ignore[operator]
    assert failed.value.verdict.line == 2


def test_a_verdict_that_stands_is_passed_on() -> None:
    verdict = fail(Outcome.SHAPE, "own", "words", line=3)
    with pytest.raises(CheckFailed) as failed, guard("rule", Outcome.CRASHED, FILE, "x ran"):
        raise verdict
    assert failed.value is verdict
    assert (verdict.verdict.message, verdict.verdict.line) == ("line 3: words", 3)
    assert fail(Outcome.SHAPE, "own", "words").verdict.message == "words"


def test_batches_differ_by_name_and_those_that_are_drawn_by_question() -> None:
    def context(question: bytes) -> CheckContext:
        return CheckContext(
            path=FILE,
            shape=Shape(3, 5, 6),
            classes=7,
            device=torch.device("cpu"),
            hyperparameters={},
            question=question,
        )

    one, other = context(b"\1"), context(b"\1\1")
    assert one.images("a").shape == (BATCH, 3, 5, 6) and one.images("a", 2).shape == (2, 3, 5, 6)
    labels = one.labels("a", 500)
    assert (labels.dtype, set(labels.tolist())) == (torch.int64, set(range(7)))
    for make in (CheckContext.images, CheckContext.labels):
        assert torch.equal(make(one, "a", 50), make(other, "a", 50))
        assert not torch.equal(make(one, "a", 50), make(one, "b", 50))
        assert not torch.equal(make(one, "a", 50), make(one, "a", 50, drawn=True))
        assert not torch.equal(make(one, "a", 50, drawn=True), make(other, "a", 50, drawn=True))
        assert torch.equal(make(one, "a", 50, drawn=True), make(context(b"\1"), "a", 50, drawn=True))


class Mixture(nn.Module):
    def __init__(self, **parts: object) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


def test_groups_of_a_mixture_are_its_experts_and_its_gate() -> None:
    experts, gate = nn.ModuleList([nn.Linear(1, 1), nn.ReLU()]), nn.Linear(1, 2)
    names = ["expert 0 (Linear)", "expert 1 (ReLU)"]
    assert list(groups(Mixture(experts=experts, gate=gate))) == [*names, "the gate"]
    assert list(groups(Mixture(experts=experts))) == list(groups(Mixture(experts=experts, frozen=True))) == names
    assert groups(Mixture(experts=experts, gate=gate, frozen=True)) == {"the gate": gate}
    assert list(groups(Mixture(experts=experts, gate=gate, frozen=1))) == [*names, "the gate"]
    for plain in (Mixture(gate=gate), Mixture(experts=3), Mixture(experts=nn.ModuleList(), gate=gate, frozen=True)):
        assert groups(plain) == {"the net": plain}


class Views(nn.Module):
    """A net that calls ``view`` on a feature map, which channels_last does not allow."""

    def __init__(self, flatten: str = "view") -> None:
        super().__init__()
        self.conv, self.head, self.flatten = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 5), flatten

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(getattr(self.conv(x), self.flatten)(len(x), -1))


class Other(Views):
    """A net whose logits depend on the memory format."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = 1.0 if x.is_contiguous() else 1.05
        return scale * super().forward(x)


IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_nets_that_run_in_channels_last_are_told_from_those_that_do_not() -> None:
    assert takes_channels_last(Views("reshape"), IMAGES, FILE, 5)
    assert not takes_channels_last(Views(), IMAGES, FILE, 5)
    assert not takes_channels_last(Other("reshape"), IMAGES, FILE, 5)
    with pytest.raises(CheckFailed, match="mat1"):  # it fails in any format
        takes_channels_last(Views("reshape"), IMAGES[:, :, 1:], FILE, 5)


def test_parts_that_keep_the_contiguous_format() -> None:
    assert contiguous_parts(Views("reshape"), IMAGES, FILE, 5) == ()
    assert contiguous_parts(Views(), IMAGES, FILE, 5) == (WHOLE,)
    experts = nn.ModuleList([Views("reshape"), Views(), Views("reshape")])
    mixture = Mixture(experts=experts, adapters=nn.ModuleList([nn.Identity()] * 3))
    assert contiguous_parts(mixture, IMAGES, FILE, 5) == ("experts.1",)
    use_channels_last(mixture, ("experts.1",))
    weights = [expert.conv.weight for expert in experts]
    assert [weight.is_contiguous(memory_format=torch.channels_last) for weight in weights] == [True, False, True]
    assert experts[1](IMAGES.contiguous(memory_format=torch.channels_last)).shape == (2, 5)


def test_a_parameter_that_was_moved_is_registered_again() -> None:
    net = nn.Module()
    net.moved = nn.Parameter(torch.ones(2)).to("meta")
    net.plain = torch.ones(2)
    net.doubled = 2 * nn.Parameter(torch.ones(2))
    _restore_parameters(net)
    assert [name for name, _ in net.named_parameters()] == ["moved"]
    assert net.moved.shape == (2,)


def test_lazy_layers_get_their_weights_and_other_nets_are_not_run() -> None:
    lazy = nn.Sequential(nn.Flatten(), nn.LazyLinear(5))
    materialise(lazy, IMAGES, FILE)
    assert lazy[1].weight.shape == (5, 192)

    class Net(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise AssertionError

    materialise(Net(1, 1), IMAGES, FILE)
    with pytest.raises(CheckFailed, match="forward ran once, for the lazy layers"):
        materialise(nn.Sequential(nn.LazyLinear(5), nn.Linear(1, 1)), IMAGES, FILE)


def test_only_a_tensor_of_logits_is_accepted() -> None:
    class Net(nn.Module):
        returned: object = None

        def forward(self, x: torch.Tensor) -> object:
            return self.returned

    net, right = Net(), torch.zeros(2, 5)
    net.returned = (right, 3)
    assert logits(net, IMAGES, FILE, classes=5, auxiliary=True) is right
    with pytest.raises(CheckFailed, match=r"forward returned tuple in train mode; return a tensor \(2, 5\)"):
        logits(net, IMAGES, FILE, classes=5)
    for returned in ((), torch.zeros(2, 4), torch.zeros(3, 5)):
        net.returned = returned
        with pytest.raises(CheckFailed, match="forward returned"):
            logits(net.eval(), IMAGES, FILE, classes=5, auxiliary=True)


@pytest.mark.parametrize(
    ("source", "most", "found"),
    [
        (lambda n: f"T = [{'1, ' * n}]", MOST_ITEMS, "a table of 257 constants"),
        (lambda n: f"T = '{'a' * n}'", MOST_DIGITS, "a word of 257 characters"),
        (lambda n: f"T = b'{'a' * n}'", MOST_DIGITS, "257 bytes"),
        (lambda n: f"T = '{'1 ' * n}'", MOST_ITEMS, "a text with 257 numbers"),
        (lambda n: f"T = {2 ** (n - 1)}", 4 * MOST_DIGITS, "a number of 1,025 bits"),
        (lambda n: "x = 1\n" * n, MOST_CONSTANTS, "the first of 4,001 constants"),
    ],
)
def test_constants_are_large_beyond_a_border(source, most: int, found: str) -> None:
    assert large_constants(source(most)) == ""
    assert large_constants(source(most + 1)) == f"line 1 holds {found}"


def test_dotted_names_of_imports() -> None:
    text = "import a.b\nimport c.d as e\nfrom f import g as h, i\nfrom . import j\nfrom .k import m\n"
    source = Source(text + "class N:\n    def o(self): pass\nasync def p(): pass\n")
    assert source.imported == {"a": "a", "e": "c.d", "h": "f.g", "i": "f.i"}
    assert source.defined == {"N", "o", "p"}
    names = {text: Source(f"import c.d as e\n{text}").tree.body[1].value for text in ("e.x.y", "z", "f().x", "1")}
    assert [source.dotted(node) for node in names.values()] == ["c.d.x.y", "z", None, None]


def test_the_top_level_is_in_order_and_leaves_functions_out() -> None:
    text = (
        "a = 1\nif a:\n    b = 1\nelse:\n    c = 1\ntry:\n    d = 1\nexcept E:\n    e = 1\nfinally:\n    f = 1\n"
        "with x:\n    g = 1\ndef h():\n    i = 1\nclass J:\n    k = 1\nl = 1\n"
    )
    assigned = [node.targets[0].id for node in Source(text).top_level() if hasattr(node, "targets")]
    assert assigned == list("abcdefgl")


def test_the_first_of_several_seeds_is_named() -> None:
    text = "import torch\ndef f():\n    torch.manual_seed(0)\nclass A:\n    pass\ntorch.manual_seed(1)\n"
    assert own_seeds(text).startswith("line 3 ")


def test_a_source_of_the_largest_size_is_read() -> None:
    assert static_check("#" * MAX_SOURCE_BYTES).rule != "syntax"
    assert static_check("#" * (MAX_SOURCE_BYTES + 1)).rule == "syntax"
    assert static_check("x = 1\n\ny = '\0'\n").line == 3


def test_a_net_is_switched_to_the_mode_asked_for() -> None:
    net = nn.Sequential(nn.Dropout())
    for training in (False, True):
        set_mode(net, FILE, training=training)
        assert (net.training, net[0].training) == (training, training)

    class Net(nn.Module):
        def train(self, mode: bool = True) -> nn.Module:
            raise ValueError("no modes")

    with pytest.raises(CheckFailed, match="ValueError: no modes, while its mode was set to training"):
        set_mode(Net(), FILE, training=True)
