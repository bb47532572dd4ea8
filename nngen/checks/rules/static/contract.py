"""Rule ``contract``: the source has ``supported_hyperparameters`` and ``Net`` with the methods that LEMUR calls.

Candidates and families alike keep it.
"""

from __future__ import annotations

import ast

from nngen.checks.rule import Invalid, StaticRule, fail
from nngen.checks.source import Source
from nngen.types import Outcome

METHODS = {
    "__init__": ("in_shape", "out_shape", "prm", "device"),
    "train_setup": ("prm",),
    "learn": ("train_data",),
    "forward": ("x",),
}
"""Methods of ``Net`` and the positional arguments that LEMUR passes them."""

_PLAIN = {"nn.Module", "torch.nn.Module", "torch.nn.modules.Module", "object"}
"""Bases that define none of the methods; any other base may define them."""

_BARE = """\
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


class Contract(StaticRule):
    """Refuses a source that lacks one of these names, or whose signatures do not fit LEMUR's calls."""

    name = "contract"
    order = 30
    VALID = (
        _BARE,
        _BARE.replace("prm, device)", "prm, device=None, *, extra=1)"),
        _BARE.replace("def forward(self, x)", "def forward(self, *inputs)"),
        _BARE.replace("    def forward(self, x): ...\n", "").replace("nn.Module", "Base"),
        _BARE.replace("    def forward(self, x): ...\n", "    def run(self, x): ...\n    forward = run\n"),
        _BARE.replace("    def learn(self, train_data): ...\n", "") + "Net.learn = print\n",
        _BARE.replace("    def learn(self, train_data): ...\n", "").replace("class Net", "@trains\nclass Net"),
        _BARE.replace("class Net(", "class Model(") + "Net: type = Model\n",
    )
    INVALID = (
        Invalid(source="x = 1\n", message="supported_hyperparameters() is missing", outcome=Outcome.CONTRACT),
        Invalid(source=_BARE.replace("Net", "Model"), message="class Net is missing", outcome=Outcome.CONTRACT),
        Invalid(source=_BARE.replace("learn", "fit"), message="no method learn", outcome=Outcome.CONTRACT, line=4),
        Invalid(
            source=_BARE.replace("out_shape, prm, device", "out_shape, prm"),
            message="__init__(self, in_shape, out_shape, prm, device)",
            outcome=Outcome.CONTRACT,
            line=5,
        ),
        Invalid(
            source=_BARE.replace("learn(self, train_data)", "learn(self, train_data, *, rate)"),
            message="learn(self, train_data)",
            outcome=Outcome.CONTRACT,
            line=8,
        ),
        Invalid(
            source=_BARE.replace("supported_hyperparameters()", "supported_hyperparameters(x)"),
            message="takes no argument",
            outcome=Outcome.CONTRACT,
            line=2,
        ),
    )

    def check(self, source: Source) -> None:
        names = _top_names(source)
        function = names.get("supported_hyperparameters")
        if function is None:
            raise self._failure("supported_hyperparameters() is missing: add it, returning a set of names")
        if isinstance(function, ast.FunctionDef) and not _takes(function, 0):
            raise self._failure("supported_hyperparameters() takes no argument", function)
        net = names.get("Net")
        if net is None:
            raise self._failure("class Net is missing: add it, a torch.nn.Module")
        if isinstance(net, ast.ClassDef):
            self._check_net(source, net)

    def _check_net(self, source: Source, net: ast.ClassDef) -> None:
        methods = {node.name: node for node in net.body if isinstance(node, ast.FunctionDef)}
        # A decorator, and an assignment in the class or to an attribute, may define a method, too.
        elsewhere = {name for node in source.nodes for name in _stored(node)}
        plain = all(source.dotted(base) in _PLAIN for base in net.bases) and not net.decorator_list
        for name, arguments in METHODS.items():
            method = methods.get(name)
            signature = f"{name}(self, {', '.join(arguments)})"
            if method is None and plain and name not in elsewhere:
                raise self._failure(f"class Net has no method {name}: add {signature}", net)
            if method is not None and not _takes(method, len(arguments) + 1):
                raise self._failure(f"Net.{name} cannot be called as {signature}", method)

    def _failure(self, message: str, node: ast.FunctionDef | ast.ClassDef | None = None) -> Exception:
        return fail(Outcome.CONTRACT, self.name, message, line=None if node is None else node.lineno)


def _top_names(source: Source) -> dict[str, ast.stmt]:
    names: dict[str, ast.stmt] = {}
    for node in source.top_level():
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names[name] = node
            case ast.Assign() | ast.AnnAssign():
                names.update({name: node for part in ast.walk(node) for name in _stored(part)})
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names.update({alias.asname or alias.name: node for alias in aliases})
    return names


def _stored(node: ast.AST) -> tuple[str, ...]:
    """Return the name that a node assigns, of a variable or an attribute."""
    match node:
        case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
            return (name,)
    return ()


def _takes(function: ast.FunctionDef, count: int) -> bool:
    """Return whether the function can be called with ``count`` positional arguments and no others."""
    arguments = function.args
    positional = len(arguments.posonlyargs) + len(arguments.args)
    needed = positional - len(arguments.defaults)
    room = arguments.vararg is not None or count <= positional
    return needed <= count and room and all(default is not None for default in arguments.kw_defaults)
