"""The rules that read a source: whole verdicts, and sources at the border of what they accept."""

from __future__ import annotations

import pytest

from nngen.checks.rules.sample_nets import net_source
from nngen.checks.rules.static.contract import METHODS
from nngen.checks.rules.static.forbidden import CALLS, MODULES
from nngen.checks.source import Source
from nngen.checks.static import static_check, static_rules
from nngen.types import MAX_SOURCE_BYTES, Outcome, Verdict

RULES = {rule.name: rule for rule in static_rules()}
BARE = """\
import torch.nn as nn
def supported_hyperparameters():
    return {'lr', 'momentum'}
class Net(nn.Module):
    def __init__(self, in_shape, out_shape, prm, device):
        super().__init__()
    def train_setup(self, prm): ...
    def learn(self, train_data): ...
    def forward(self, x): ...
"""
SIGNATURES = {
    "__init__": "__init__(self, in_shape, out_shape, prm, device)",
    "train_setup": "train_setup(self, prm)",
    "learn": "learn(self, train_data)",
    "forward": "forward(self, x)",
}


def verdict(source: str) -> tuple[str, str, int | None]:
    found = static_check(source)
    return found.rule, found.message, found.line


def test_a_source_that_keeps_all_rules_is_valid() -> None:
    assert static_check(BARE) == static_check(net_source()) == Verdict(outcome=Outcome.VALID)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_that_is_missing_is_named_with_its_signature(name: str) -> None:
    def without(source: str) -> str:
        return source.replace(f"def {name}(", "def other(")

    message = f"line 4: class Net has no method {name}: add {SIGNATURES[name]}"
    for base in ("nn.Module", "nn.modules.Module", "object", ""):
        assert verdict(without(BARE).replace("nn.Module)", f"{base})")) == ("contract", message, 4), base
    kept = (
        without(BARE).replace("nn.Module)", "nn.Module, Mixin)"),
        without(BARE).replace("class Net", "@filled\nclass Net"),
        without(BARE) + f"    {name} = other\n",
        without(BARE) + f"setattr(Net, 'x', 1)\nNet.{name} = print\n",
        without(BARE).replace("def other(", f"{name}: object = None\n    def other("),
    )
    assert [static_check(source).valid for source in kept] == [True] * 5


@pytest.mark.parametrize(
    ("arguments", "fits"),
    [
        ("self, train_data", True),
        ("self, data, more=1", True),
        ("self, data, *, more=1", True),
        ("self, data, *more, **named", True),
        ("self, *data", True),
        ("*data", True),
        ("self, data, /", True),
        ("self=1, data=2", True),
        ("self", False),
        ("", False),
        ("self, data, more", False),
        ("self, data, *, more", False),
        ("self, data, more, *rest", False),
        ("self, **data", False),
        ("self, /, data, more", False),
    ],
)
def test_a_method_takes_the_arguments_that_lemur_passes(arguments: str, fits: bool) -> None:
    source = BARE.replace("def learn(self, train_data)", f"def learn({arguments})")
    message = "line 8: Net.learn cannot be called as learn(self, train_data)"
    assert verdict(source) == (("", "", None) if fits else ("contract", message, 8))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = 1\n", ("contract", "supported_hyperparameters() is missing: add it, returning a set of names", None)),
        (
            BARE.replace("hyperparameters():", "hyperparameters(x):"),
            ("contract", "line 2: supported_hyperparameters() takes no argument", 2),
        ),
        (BARE.replace("hyperparameters():", "hyperparameters(x=1, *y, **z):"), ("", "", None)),
        (
            BARE.replace("class Net", "class Other"),
            ("contract", "class Net is missing: add it, a torch.nn.Module", None),
        ),
        ("from a import b as Net, supported_hyperparameters\n", ("", "", None)),
        ("import Net\nsupported_hyperparameters: object = lambda: []\n", ("", "", None)),
        ("Net, (supported_hyperparameters, c) = a\n", ("", "", None)),
        (f"if a:\n    {BARE.replace(chr(10), chr(10) + '    ')}\n", ("", "", None)),
        (f"def f():\n    {BARE.replace(chr(10), chr(10) + '    ')}\n", ("contract", "", None)),
    ],
)
def test_the_two_names_of_the_contract(source: str, expected: tuple[str, str, int | None]) -> None:
    rule, message, line = verdict(source)
    assert (rule, line) == (expected[0], expected[2])
    assert message.startswith(expected[1]) and bool(message) == bool(rule)


@pytest.mark.parametrize(
    ("source", "line", "what"),
    [
        ("x = 1\nimport os, pickle.x, socket\n", 2, "import pickle.x"),
        ("from multiprocessing.pool import Pool\n", 1, "from multiprocessing.pool import"),
        ("import os as o\no.system('x')\n", 2, "os.system(...)"),
        ("import os\nos.execv('a', [])\n", 2, "os.execv(...)"),
        ("import torch.distributed as d\nd.new_group()\n", 2, "torch.distributed.new_group(...)"),
        ("def f():\n    open('x')\neval('1')\n", 2, "open(...)"),
        ("eval('1'); import pickle\n", 1, "eval(...)"),
        ("class A:\n    def g(self): pass\nopen('x')\n", 3, "open(...)"),
    ],
)
def test_the_first_thing_that_is_not_allowed_is_named(source: str, line: int, what: str) -> None:
    assert verdict(source) == ("forbidden", f"line {line}: {what} is not allowed in a candidate: remove it", line)


@pytest.mark.parametrize(
    "source",
    [
        "from .pickle import x\n",
        "import os\nos.path.join('a')\nos.system\n",
        "import torch.distributed as d\nd.get_rank()\n",
        "class A:\n    def open(self): pass\nopen('x')\n",
        "net.eval(); (lambda: 1)(); x.open()\n",
        "from . import pickle\n",
        "import pickles, pickler.pickle\n",
    ],
)
def test_what_is_not_listed_is_allowed(source: str) -> None:
    RULES["forbidden"].check(Source(source))


def test_the_lists_hold_names_and_no_white_space() -> None:
    assert {"pickle", "socket", "subprocess", "ctypes"} < MODULES and not {"os", "torch", "numpy"} & MODULES
    assert {"eval", "os.system", "torch.load", "numpy.load"} < CALLS
    assert all(name.strip() == name != "" for name in (*MODULES, *CALLS))


@pytest.mark.parametrize(
    ("source", "message", "line"),
    [
        ("#" * (MAX_SOURCE_BYTES + 1), "has 4,194,305 bytes; at most 4 MiB are allowed", None),
        ("é" * (MAX_SOURCE_BYTES // 2) + "a", "has 4,194,305 bytes; at most 4 MiB are allowed", None),
        ("x = '\ud800'", "holds lone surrogates: save it as UTF-8", None),
        ("\0", "line 1: holds a null byte", 1),
        ("a\n\nb\0\n\0", "line 3: holds a null byte", 3),
        ("\n\0", "line 2: holds a null byte", 2),
        ("x = (\n", "line 1: '(' was never closed", 1),
        ("x = " + "-" * 200_000 + "1", "is nested too deep to be parsed", None),
    ],
)
def test_a_source_that_is_no_python_is_refused_with_its_line(source: str, message: str, line: int | None) -> None:
    assert static_check(source) == Verdict(outcome=Outcome.SYNTAX, rule="syntax", message=message, line=line)
