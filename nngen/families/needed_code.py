"""Finds the statements of a family's source that nothing needs, where that is certain.

A mixture trains its experts itself, so that ``learn``, ``train_setup`` and what only they use may leave, and so may
factories of pretrained weights with their private imports. In doubt a statement stays: a file in which nothing left is
still correct.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from nngen.families.family_scopes import annotations_of

_TRAINING = frozenset({"learn", "train_setup"})
_REGISTERS = frozenset({"__init_subclass__", "__subclasses__", "metaclass"})
"""Words in a source that make the mere definition of a class have an effect."""

_SCRIPTS = frozenset({"script", "script_method", "trace", "trace_module"})
_WORD = re.compile(r"\w+")


@dataclass(kw_only=True)
class NeededCode:
    """What may leave a source."""

    # statements of the module and methods of ``Net`` that nothing needs
    unneeded: list[ast.stmt] = field(default_factory=list)
    # import statements of which some names stay, with those names
    imports: list[tuple[ast.Import | ast.ImportFrom, list[ast.alias]]] = field(default_factory=list)
    scripts: bool  # whether the source has words of TorchScript


@dataclass(eq=False)
class _Unit:
    """A statement that may leave or not; ``binds`` is empty where it stays whatever happens."""

    node: ast.stmt
    binds: set[str]
    words: set[str]


def needed_code(tree: ast.Module) -> NeededCode:
    """Find what ``Net`` and the statements with an effect do not mention, by any name or word of a string."""
    # A name may be reached by its spelling too (getattr, a registry of strings), so that words of strings count.
    every_word = _words([tree])
    methods = _training_methods(tree, every_word)
    units = [_Unit(node, _binds(node, every_word), _words([node], without=methods)) for node in tree.body]
    units += [_Unit(node, {node.name}, _words(node.body)) for node in methods]
    # Statements that may have an effect stay whatever happens, and so does all that they mention.
    needed = {"Net"}.union(*(unit.words for unit in units if not unit.binds))
    binders: dict[str, list[_Unit]] = {}
    for unit in units:
        for name in unit.binds:
            binders.setdefault(name, []).append(unit)
    # What binds a needed name is needed, and so is all that it mentions; every name is looked up once.
    kept_units: set[_Unit] = set()
    names = list(needed)
    while names:
        for unit in binders.pop(names.pop(), ()):
            if unit not in kept_units:
                kept_units.add(unit)
                names += unit.words - needed
                needed |= unit.words
    result = NeededCode(
        unneeded=[unit.node for unit in units if unit.binds and unit not in kept_units],
        scripts=bool(every_word & _SCRIPTS),
    )
    gone = {id(node) for node in result.unneeded}
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in gone and _binds(node, every_word):
            kept = [alias for alias in node.names if _bound(alias) in needed]
            if len(kept) < len(node.names):
                result.imports.append((node, kept))
    if not result.scripts:
        result.unneeded += _overloads(tree)
    return result


def _training_methods(tree: ast.Module, words: set[str]) -> list[ast.FunctionDef]:
    """List ``learn`` and ``train_setup`` of ``Net``, if the class does not change without them."""
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    net = classes.get("Net")
    if net is None:
        return []
    found = [item for item in net.body if isinstance(item, ast.FunctionDef) and item.name in _TRAINING]
    # A decorator or a default that calls something acts when the class is made, whether the method is used or not.
    plain = all(not item.decorator_list and not _calls(item.args) for item in found)
    # A metaclass, or a hook of a base class of the family, may look at the methods.
    watched = bool(net.keywords or net.decorator_list)
    if any(isinstance(base, ast.Name) and base.id in classes for base in net.bases):
        watched = watched or bool(words & _REGISTERS)
    return found if plain and not watched and len(found) < len(net.body) else []


def _overloads(tree: ast.Module) -> list[ast.stmt]:
    """List the stubs under ``torch.jit._overload_method`` of a source that scripts nothing.

    They matter to TorchScript alone, which refuses two classes of one name with such stubs in one file.
    """
    return [
        item
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for place, item in enumerate(node.body)
        if isinstance(item, ast.FunctionDef)
        and any(ast.unparse(part).endswith("jit._overload_method") for part in item.decorator_list)
        and any(isinstance(later, ast.FunctionDef) and later.name == item.name for later in node.body[place + 1 :])
    ]


def _binds(node: ast.stmt, words: set[str]) -> set[str]:
    """Return what a statement binds if binding is all it does; nothing for any other statement."""
    match node:
        case ast.Import(names=names) | ast.ImportFrom(names=names) if names[0].name != "*":
            return {_bound(alias) for alias in names}
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            evaluated = [node.args, *annotations_of(node)]
            return set() if node.decorator_list or any(map(_calls, evaluated)) else {node.name}
        case ast.ClassDef():
            inside = [item for item in node.body if not isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)]
            methods = [item for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)]
            # Making a class runs its body, its bases and a metaclass; it only binds where none of these calls anything.
            effects = node.keywords or node.decorator_list or words & _REGISTERS
            plain = all(map(_harmless, methods)) and all(map(_only_binds, inside))
            evaluated = [*node.bases, *inside, *(item.args for item in methods)]
            return set() if effects or not plain or any(map(_calls, evaluated)) else {node.name}
        case ast.Assign(targets=targets, value=value) if all(isinstance(item, ast.Name) for item in targets):
            return set() if _calls(value) else {item.id for item in targets if isinstance(item, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name), value=value):
            return set() if value is not None and _calls(value) else {name}
    return set()


def _only_binds(statement: ast.stmt) -> bool:
    """Whether a statement of a class body gives the class an attribute, or does nothing."""
    match statement:
        case ast.Assign(targets=targets):
            return all(isinstance(item, ast.Name) for item in targets)
        case ast.AnnAssign(target=ast.Name()) | ast.Pass() | ast.Expr(value=ast.Constant()):
            return True
    return False


def _harmless(method: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a method has no decorators but Python's and TorchScript's."""
    plain = {"staticmethod", "classmethod", "property"}
    return all(
        ast.unparse(item) in plain or ast.unparse(item).startswith("torch.jit.") for item in method.decorator_list
    )


def _calls(node: ast.AST) -> bool:
    """Whether evaluating an expression may do more than give a value."""
    return any(isinstance(part, ast.Call | ast.Await | ast.NamedExpr | ast.Yield) for part in ast.walk(node))


def _bound(alias: ast.alias) -> str:
    return alias.asname or alias.name.partition(".")[0]


def _words(nodes: Iterable[ast.AST], without: Iterable[ast.AST] = ()) -> set[str]:
    """Collect every name, attribute, keyword, method's name and word of a string; docstrings name nothing."""
    left_out = {id(node) for node in without}
    words: set[str] = set()
    waiting = list(nodes)
    top = {id(node) for node in waiting}
    while waiting:
        node = waiting.pop()
        if id(node) in left_out:
            continue
        match node:
            case ast.Expr(value=ast.Constant()):
                continue
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.keyword(arg=str(name)):
                words.add(name)
            case ast.Constant(value=str(text)):
                words.update(_WORD.findall(text))
            case ast.Global(names=names):
                words.update(names)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if id(node) not in top:
                words.add(name)
        waiting += ast.iter_child_nodes(node)
    return words
