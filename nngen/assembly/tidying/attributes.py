"""Attributes as new code has them: in snake_case, and none that a later method is the first to give.

Only where all of a name's uses are seen: it is read and set as ``self.name`` alone, and no string spells it.
``self.W_mu`` becomes ``self.w_mu``, which a state then calls its weights by; what only ``forward`` sets is declared as
None where the object is made.
"""

# ruff: noqa: N802 -- libcst calls its visitors' methods by the names of its node classes

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import libcst as cst

from nngen.assembly.walk import walk

__all__ = ["tidy_attributes"]

_SNAKE = re.compile(r"_*[a-z][a-z0-9_]*|_+")
_PYTORCH = frozenset({"T", "H", "mT", "mH", "T_destination", "training", "dump_patches", "call_super_init"})
"""Attributes of tensors and modules that PyTorch reads itself."""


def tidy_attributes(module: cst.Module) -> cst.Module:
    """Rename and declare attributes; the program is the same."""
    uses = _Uses(module)
    names = uses.renamed()
    declared = {kind: sorted(names.get(name, name) for name in late) for kind, late in uses.late().items()}
    return module.visit(_Attributes(names, declared)) if names or declared else module


class _Uses:
    """Where the attributes of a module's classes are set and read."""

    def __init__(self, module: cst.Module) -> None:
        self.names: Counter[str] = Counter()
        """Every name, whatever it names."""
        self.own: Counter[str] = Counter()
        """Those that stand behind ``self.``"""
        self.spelled: set[str] = set()
        """Words of strings."""
        for node in walk(module):
            match node:
                case cst.Name(value=name):
                    self.names[name] += 1
                case cst.Attribute(value=cst.Name("self"), attr=cst.Name(value=name)):
                    self.own[name] += 1
                case cst.SimpleString() | cst.FormattedStringText():
                    self.spelled |= set(re.findall(r"\w+", node.value))
        self.classes = {node.name.value: node for node in module.body if isinstance(node, cst.ClassDef)}
        self.given = {name: _given(node) for name, node in self.classes.items()}

    def renamed(self) -> dict[str, str]:
        """Attributes that are not in snake_case, and what they become."""
        found: dict[str, str] = {}
        for name in self.own:
            new = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
            clear = new not in self.names and new not in self.spelled and new not in found.values()
            if not _SNAKE.fullmatch(name) and not name.startswith("__") and self._all_seen(name) and clear:
                found[name] = new
        return found

    def late(self) -> dict[str, list[str]]:
        """Attributes that a class's ``__init__`` does not set but another of its methods does."""
        if "script" in self.names:  # TorchScript would take the type from the declaration
            return {}
        early = {name for given in self.given.values() for name in given.get("__init__", ())}
        found: dict[str, list[str]] = {}
        for kind, given in self.given.items():
            late = {name for method, names in given.items() if method != "__init__" for name in names} - early
            wanted = [name for name in late if self._all_seen(name)]
            if wanted and self._plain(kind) and _calls_super(self.classes[kind]):
                found[kind] = wanted
        return found

    def _all_seen(self, name: str) -> bool:
        return self.own[name] == self.names[name] and name not in self.spelled and name not in _PYTORCH

    def _plain(self, kind: str) -> bool:
        """Whether nothing behind ``super().__init__`` calls methods: one might set what is declared after it."""
        node = self.classes.get(kind)
        if node is None or len(node.bases) != 1:
            return False
        base = cst.Module(body=[]).code_for_node(node.bases[0].value)
        if base in ("nn.Module", "torch.nn.Module"):
            return True
        made = _maker(self.classes[base]) if base in self.classes else None
        return self._plain(base) and not (made is not None and any(_is_own_call(item) for item in walk(made)))


def _methods(node: cst.ClassDef) -> Iterator[cst.FunctionDef]:
    yield from (item for item in node.body.body if isinstance(item, cst.FunctionDef))


def _given(node: cst.ClassDef) -> dict[str, list[str]]:
    """What each method sets on ``self``."""
    return {method.name.value: list(_targets(method)) for method in _methods(node)}


def _targets(method: cst.FunctionDef) -> Iterator[str]:
    for node in walk(method):
        targets: Sequence[cst.CSTNode] = ()
        if isinstance(node, cst.Assign):
            targets = [item.target for item in node.targets]
        elif isinstance(node, cst.AnnAssign | cst.AugAssign | cst.For):
            targets = [node.target]
        for target in targets:
            for part in target.elements if isinstance(target, cst.Tuple | cst.List) else [target]:
                match part.value if isinstance(part, cst.Element) else part:
                    case cst.Attribute(value=cst.Name("self"), attr=cst.Name(value=name)):
                        yield name


def _is_own_call(node: cst.CSTNode) -> bool:
    match node:
        case cst.Call(func=cst.Attribute(value=cst.Name("self"))):
            return True
    return False


def _maker(node: cst.ClassDef) -> cst.FunctionDef | None:
    return next((method for method in _methods(node) if method.name.value == "__init__"), None)


def _calls_super(node: cst.ClassDef) -> bool:
    made = _maker(node)
    return made is not None and any(_is_super(line) for line in made.body.body)


def _is_super(line: cst.CSTNode) -> bool:
    match line:
        case cst.SimpleStatementLine(
            body=[cst.Expr(cst.Call(func=cst.Attribute(value=cst.Call(func=cst.Name("super")), attr=cst.Name(name))))]
        ):
            return name == "__init__"
    return False


class _Attributes(cst.CSTTransformer):
    """Gives attributes their new names, and declares those that come late."""

    def __init__(self, names: Mapping[str, str], declared: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.names, self.declared = names, declared
        self._depth = 0

    def leave_Attribute(self, original_node: cst.Attribute, updated_node: cst.Attribute) -> cst.Attribute:
        match updated_node:
            case cst.Attribute(value=cst.Name("self"), attr=cst.Name(value=name)) if name in self.names:
                return updated_node.with_changes(attr=cst.Name(self.names[name]))
        return updated_node

    def visit_ClassDef(self, node: cst.ClassDef) -> None:
        self._depth += 1

    def leave_ClassDef(self, original_node: cst.ClassDef, updated_node: cst.ClassDef) -> cst.ClassDef:
        self._depth -= 1
        names = () if self._depth else self.declared.get(updated_node.name.value, ())
        if not names:
            return updated_node
        lines = [
            _declaring(item, names) if isinstance(item, cst.FunctionDef) and item.name.value == "__init__" else item
            for item in updated_node.body.body
        ]
        return updated_node.with_changes(body=updated_node.body.with_changes(body=lines))


def _declaring(made: cst.FunctionDef, names: Sequence[str]) -> cst.FunctionDef:
    """Set the names to None right after ``super().__init__``."""
    place = next(number for number, line in enumerate(made.body.body, 1) if _is_super(line))
    new = [cst.parse_statement(f"self.{name} = None\n") for name in names]
    lines = [*made.body.body[:place], *new, *made.body.body[place:]]
    return made.with_changes(body=made.body.with_changes(body=lines))
