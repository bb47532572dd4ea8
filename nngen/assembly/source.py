"""A family's source, read once: its statements, what each binds, reads and imports.

Built on libcst's scope analysis, so that a local, an attribute or a keyword argument that is spelled
like a module-level name is never taken for it.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import libcst as cst
from libcst.helpers import get_full_name_for_node
from libcst.metadata import (
    Access,
    Assignment,
    BuiltinAssignment,
    ClassScope,
    ComprehensionScope,
    GlobalScope,
    ImportAssignment,
    MetadataWrapper,
    PositionProvider,
    Scope,
    ScopeProvider,
)

from nngen.assembly.imports import Import
from nngen.assembly.strings import NAMESPACES, Role, StringReader
from nngen.assembly.training import training_methods
from nngen.assembly.walk import walk
from nngen.errors import AssemblyError
from nngen.types import Family

__all__ = ["Source", "Unit", "read_source"]

_MODULE_NAMES = frozenset(dir(builtins)) | {
    "__annotations__",
    "__builtins__",
    "__class__",
    "__doc__",
    "__file__",
    "__module__",
    "__name__",
    "__package__",
    "__qualname__",
    "__spec__",
}
"""Names that every module, class body or method finds without binding them."""

_UNREADABLE = frozenset({"eval", "exec"})


@dataclass(eq=False)
class Unit:
    """One statement of a module: a definition, an import, or something done to one.

    Attributes:
        node: The small or compound statement.
        binds: Module-level names it binds.
        reads: Module-level names it reads, in code or in strings that name them.
        imports: What it imports into the module, if it is a plain import statement.
        problems: Why it cannot be part of a mixture, each with the node it is about.
    """

    node: cst.BaseSmallStatement | cst.BaseCompoundStatement
    binds: set[str] = field(default_factory=set)
    reads: set[str] = field(default_factory=set)
    imports: tuple[Import, ...] = ()
    problems: list[tuple[cst.CSTNode, str]] = field(default_factory=list)

    def refuse(self, node: cst.CSTNode, message: str) -> None:
        """Note why the statement cannot be part of a mixture; it matters only if it is needed."""
        self.problems.append((node, message))

    @property
    def defines(self) -> bool:
        """Whether all it does is bind names; anything else may change what others bound."""
        match self.node:
            case cst.FunctionDef() | cst.ClassDef() | cst.Import() | cst.ImportFrom() | cst.AnnAssign():
                return True
            case cst.Assign(targets=targets):
                return all(isinstance(target.target, cst.Name | cst.Tuple | cst.List) for target in targets)
            case _:
                return type(self.node).__name__ == "TypeAlias"


@dataclass(eq=False)
class Source:
    """A family's module with everything known of its names.

    Attributes:
        units: Its statements in order, without what never takes part (docstrings, ``__main__``).
        own: Module-level names the family defines itself; name to the nodes that define it.
        imported: Module-level names that only plain imports bind; one import each.
        names: Every ``Name`` node that means a module-level name, by identity, with that name.
        strings: Every string that names a module-level name, by identity.
        bound_here: Names of imports that stay where they stand (inside ``try``, say), by identity.
        dead: Methods of ``Net`` that only training uses, by identity.
        identifiers: Every identifier the source spells anywhere.
    """

    family: Family
    module: cst.Module
    units: list[Unit]
    own: dict[str, list[cst.CSTNode]]
    imported: dict[str, Import]
    names: dict[int, str]
    strings: Mapping[int, Role]
    dead: frozenset[int]
    bound_here: set[int]
    identifiers: frozenset[str]
    wrapper: MetadataWrapper

    def line(self, node: cst.CSTNode) -> int:
        """The line a node starts on, from 1."""
        return int(self.wrapper.resolve(PositionProvider)[node].start.line)

    def error(self, node: cst.CSTNode, message: str) -> AssemblyError:
        """An error that names family and line."""
        return AssemblyError(f"{self.family.name}: line {self.line(node)}: {message}")


def read_source(family: Family) -> Source:
    """Read a family's source.

    Raises:
        AssemblyError: If it does not parse, has no ``Net``, imports ``*``, or leaves a name
            to be found at run time; the message names family and line.
    """
    return _Reader(family).read()


class _Reader:
    """Builds a ``Source``; one use."""

    def __init__(self, family: Family) -> None:
        self.family = family
        module = _parse(family)
        self.wrapper = MetadataWrapper(module, unsafe_skip_copy=True)
        self.module = self.wrapper.module
        self.scopes: Mapping[cst.CSTNode, Scope | None] = self.wrapper.resolve(ScopeProvider)
        scope = self.scopes[self.module]
        if not isinstance(scope, GlobalScope):
            raise AssemblyError(f"{family.name}: line 1: the source is empty")
        self.scope = scope
        self.units: list[Unit] = []
        self.owner: dict[int, Unit] = {}
        self.identifiers: set[str] = set()
        self.captured: dict[Scope, set[str]] = {}

    def read(self) -> Source:
        self.source = Source(
            family=self.family,
            module=self.module,
            units=self.units,
            own={},
            imported={},
            names={},
            strings={},
            dead=training_methods(self.module),
            bound_here=set(),
            identifiers=frozenset(),
            wrapper=self.wrapper,
        )
        for node in _statements(self.module):
            self._add_unit(node)
        self._read_bindings()
        if "Net" not in self.source.own and "Net" not in self.source.imported:
            raise AssemblyError(f"{self.family.name}: line 1: the source has no class Net")
        self.source.identifiers = frozenset(self.identifiers)
        self._read_accesses()
        self._read_strings()
        return self.source

    def _add_unit(self, node: cst.BaseSmallStatement | cst.BaseCompoundStatement) -> None:
        unit = Unit(node)
        self.units.append(unit)
        for child in walk(node, skip=self._is_dead):
            self.owner[id(child)] = unit
            match child:
                case cst.Name(value=name):
                    self.identifiers.add(name)
                case cst.Global(names=items):
                    self.source.names.update((id(item.name), item.name.value) for item in items)
                case cst.NamedExpr(target=cst.Name(value=name)) if isinstance(
                    self.scopes.get(child), ComprehensionScope
                ):
                    self._capture(unit, child, name)
                case cst.MatchAs(name=cst.Name(value=name)) | cst.MatchStar(name=cst.Name(value=name)):
                    self._capture(unit, child, name)
                case cst.MatchMapping(rest=cst.Name(value=name)):
                    self._capture(unit, child, name)

    def _is_dead(self, node: cst.CSTNode) -> bool:
        return id(node) in self.source.dead

    def _capture(self, unit: Unit, node: cst.CSTNode, name: str) -> None:
        """Note a name bound by a pattern, or by ``:=`` inside a comprehension, which libcst does not."""
        scope = self.scopes.get(node) or self.scope
        while isinstance(scope, ComprehensionScope):
            scope = scope.parent
        if isinstance(scope, GlobalScope):
            unit.refuse(node, f"{name!r} is bound inside an expression at module level: use a statement")
        self.captured.setdefault(scope, set()).add(name)

    def _read_bindings(self) -> None:
        """Sort the module's names into the family's own and those that only plain imports bind."""
        for unit in self.units:
            unit.imports = self._plain_imports(unit)
        bindings = list(self._bindings())
        for assignment, unit in bindings:
            unit.binds.add(assignment.name)
        while self._demote(bindings):
            pass
        for assignment, unit in bindings:
            if unit.imports or self._is_whole_module(assignment):
                continue
            self.source.own.setdefault(assignment.name, []).append(assignment.node)
            if isinstance(assignment, ImportAssignment):
                self.source.bound_here.update(id(item) for item in _aliases(assignment.node))
        for unit in self.units:
            self.source.imported.update((item.bound, item) for item in unit.imports)

    def _bindings(self) -> Iterator[tuple[Assignment, Unit]]:
        for assignment in self.scope.assignments:
            if isinstance(assignment, Assignment) and "." not in assignment.name:
                unit = self.owner.get(id(assignment.node))
                if unit is not None:
                    yield assignment, unit

    def _demote(self, bindings: list[tuple[Assignment, Unit]]) -> bool:
        """Leave one import where it stands, because what it binds is bound in another way as well."""
        targets: dict[str, set[str]] = {}
        for unit in self.units:
            for item in unit.imports:
                targets.setdefault(item.bound, set()).add(item.target)
        taken = {item.name for item, unit in bindings if not unit.imports and not self._is_whole_module(item)}
        taken |= {name for name, found in targets.items() if len(found) > 1}
        for unit in self.units:
            if any(item.bound in taken for item in unit.imports):
                if any(item.name is None and item.alias is None for item in unit.imports):
                    raise self.source.error(unit.node, "binds a module's name that the source binds to something else")
                unit.imports = ()
                return True
        return False

    @staticmethod
    def _is_whole_module(assignment: Assignment) -> bool:
        """Whether it is ``import a.b``, which binds ``a`` to ``a`` whoever writes it."""
        return isinstance(assignment.node, cst.Import) and any(
            item.asname is None and item.evaluated_name.partition(".")[0] == assignment.name
            for item in assignment.node.names
        )

    def _plain_imports(self, unit: Unit) -> tuple[Import, ...]:
        match unit.node:
            case cst.Import(names=names):
                return tuple(Import(_dotted(item.name), None, _alias(item)) for item in names)
            case cst.ImportFrom(names=cst.ImportStar()):
                raise self.source.error(unit.node, "import * hides which names it binds: name them")
            case cst.ImportFrom(module=module, names=names, relative=relative) if not isinstance(names, cst.ImportStar):
                if relative or module is None:
                    return ()
                if _dotted(module) == "__future__":
                    return ()
                return tuple(Import(_dotted(module), _dotted(item.name), _alias(item)) for item in names)
        return ()

    def _read_accesses(self) -> None:
        for name, nodes in self.source.own.items():
            for node in nodes:
                target = node if isinstance(node, cst.Name) else getattr(node, "name", None)
                if isinstance(target, cst.Name):
                    self.source.names[id(target)] = name
        for scope in {scope for scope in self.scopes.values() if scope is not None}:
            for access in scope.accesses:
                self._read_access(access)

    def _read_access(self, access: Access) -> None:
        node: cst.CSTNode = access.node
        while isinstance(node, cst.Attribute):
            node = node.value
        unit = self.owner.get(id(node))
        if not isinstance(node, cst.Name) or unit is None:
            return  # a string, read with the strings, or code that was left out
        name, scope = node.value, access.scope
        if self._is_captured(name, scope):
            return
        # A class body that reads a name before it binds it reads the module's, so there the order counts.
        found = (access.referents if isinstance(scope, ClassScope) else ()) or scope[name]
        if any(isinstance(assignment.scope, GlobalScope) for assignment in found):
            unit.reads.add(name)
            self.source.names[id(node)] = name
        elif not found and name not in _MODULE_NAMES:
            unit.refuse(node, f"the name {name!r} is bound nowhere in the source: a mixture cannot wait for run time")
        elif name in _UNREADABLE and all(isinstance(assignment, BuiltinAssignment) for assignment in found):
            unit.refuse(node, f"{name}() runs code that only exists at run time")

    def _is_captured(self, name: str, scope: Scope) -> bool:
        """Whether the scope, or one around it, binds the name in a way libcst does not record."""
        while not isinstance(scope, GlobalScope):
            if name in self.captured.get(scope, ()):
                return True
            scope = scope.parent
        return False

    def _read_strings(self) -> None:
        known = self.source.own.keys() | self.source.imported.keys()
        roles: dict[int, Role] = {}
        defined = {
            name
            for name, nodes in self.source.own.items()
            if any(isinstance(node, cst.ClassDef | cst.FunctionDef) for node in nodes)
        }
        for unit in self.units:
            if not self._looks_up(unit):
                continue
            reader = StringReader(
                known=known, defined=defined, qualified=self._qualified, skip=self._is_dead, refuse=unit.refuse
            )
            unit.node.visit(reader)
            for node, role in reader.roles:
                roles[id(node)] = role
                unit.reads |= role.reads
        self.source.strings = roles

    def _looks_up(self, unit: Unit) -> bool:
        """Whether a string or a namespace is anywhere in it; few statements have either, and visits are slow."""
        for node in walk(unit.node, skip=self._is_dead):
            if isinstance(node, cst.SimpleString) or (isinstance(node, cst.Name) and node.value in NAMESPACES):
                return True
        return False

    def _qualified(self, node: cst.CSTNode) -> set[str]:
        scope = self.scopes.get(node)
        return {name.name for name in scope.get_qualified_names_for(node)} if scope is not None else set()


def _parse(family: Family) -> cst.Module:
    try:
        ast.parse(family.source)  # Python's own parser says best what is wrong
        return cst.parse_module(family.source)
    except SyntaxError as error:
        line, reason = error.lineno or 1, error.msg
    except ValueError as error:
        line, reason = 1, str(error)
    except cst.ParserSyntaxError as error:
        line, reason = error.raw_line, "libcst cannot read it"
    raise AssemblyError(f"{family.name}: line {line}: not Python: {reason}")


def _statements(module: cst.Module) -> Iterator[cst.BaseSmallStatement | cst.BaseCompoundStatement]:
    """Yield a module's statements, one by one, without bare strings and the ``__main__`` block."""
    for statement in module.body:
        if isinstance(statement, cst.SimpleStatementLine):
            yield from (small for small in statement.body if not _is_bare_string(small))
        elif isinstance(statement, cst.BaseCompoundStatement) and not _is_main_block(statement):
            yield statement


def _is_bare_string(statement: cst.BaseSmallStatement) -> bool:
    return isinstance(statement, cst.Expr) and isinstance(statement.value, cst.SimpleString | cst.ConcatenatedString)


def _is_main_block(statement: cst.BaseCompoundStatement) -> bool:
    match statement:
        case cst.If(test=cst.Comparison(left=left, comparisons=[cst.ComparisonTarget(comparator=right)])):
            return any(isinstance(side, cst.Name) and side.value == "__name__" for side in (left, right))
    return False


def _aliases(node: cst.CSTNode) -> Iterator[cst.ImportAlias]:
    if isinstance(node, cst.Import | cst.ImportFrom) and not isinstance(node.names, cst.ImportStar):
        yield from node.names


def _dotted(node: cst.CSTNode) -> str:
    return get_full_name_for_node(node) or ""


def _alias(item: cst.ImportAlias) -> str | None:
    return item.evaluated_alias
