"""Turns a family's source into one function that returns the family's ``Net``.

The body of the function is the source itself, indented. Names are local to it, so that no two families of a file can
meet, and every name stays what its author wrote. Only what Python or PyTorch accepts at a module's top level alone is
changed; ``docs/design/0017-families-verbatim.md`` lists it.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import io
import re
import symtable
import sys
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nngen.errors import AssemblyError
from nngen.families.family_scopes import Unfit, annotations_of, check_scopes, dotted, top_level_names
from nngen.families.hyperparameters import best_hyperparameters
from nngen.families.locals import own_nodes
from nngen.families.needed_code import needed_code
from nngen.text import parse_python
from nngen.types import Family

_ALLOWED = frozenset({"numpy", "torch", "torchvision"}) | sys.stdlib_module_names  # packages that a mixture may import

_STAR = frozenset(
    """
    abc collections copy dataclasses enum functools itertools math numpy operator random torch torch.autograd torch.nn
    torch.nn.functional torch.nn.init torch.nn.modules torch.optim torchvision torchvision.models torchvision.ops typing
    """.split()  # noqa: SIM905  # words read better than a column of quotes
)
"""Modules of which ``import *`` is understood: importing them to learn their names has no other effect."""

_TRACERS = frozenset({"symbolic_trace", "Tracer", "create_feature_extractor", "get_graph_node_names"})
_BUILTINS = frozenset(dir(builtins))
_OF_EVERY_MODULE = frozenset(
    f"__{name}__"
    for name in ("annotations builtins doc file loader module name package path qualname spec".split())  # noqa: SIM905
)
_EVALUATED = frozenset({"ClassVar", "InitVar", "KW_ONLY"})
"""Annotations that a dataclass looks for; in quotes it would look for them among the module's names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyFunction:
    """A family as the text of a function; the function's name is chosen per file."""

    family: str
    fingerprint: str  # SHA-256 of the family's source, in hex
    parameters: tuple[str, ...]  # builtins that the source binds anew; until then they are what they were
    body: str  # the indented source and ``return Net``; ends with a line break
    # LEMUR's best for the family, defaults where it recorded none; sorted
    hyperparameters: tuple[tuple[str, float | int | str], ...]

    def text(self, name: str) -> str:
        """Write the function under a name."""
        defaults = ", ".join(f"{item}={item}" for item in self.parameters)
        # As with a module, the body runs once, however many experts are built of it.
        return f"@cache\ndef {name}({defaults}):\n{self.body}"


def function_name(family: str) -> str:
    """Return a family's name as that of a function: ``BayesianNet-1`` becomes ``bayesiannet_1``."""
    name = re.sub(r"[^a-z0-9]+", "_", family.lower()).strip("_")
    return name if name[:1].isalpha() else f"family_{name}"


def family_function(family: Family, names: Iterable[str] | None = None) -> FamilyFunction:
    """Put a family's source into a function; its hyperparameters are given where only a call tells them.

    Raises:
        AssemblyError: If the source does not parse, has no ``Net``, imports what a mixture does not bring, or needs
            what only a module has. The message names family and line.
    """
    source = family.source.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    try:
        tree = parse_python(source)
        if "Net" not in top_level_names(tree.body):
            raise Unfit(1, "the source has no class Net")
        body = _indented(_Editor(source, tree).edited())
        parameters, declared = _closed(tree, body)
    except Unfit as error:
        raise AssemblyError(f"{family.name}: line {error.line}: {error}") from None
    except (SyntaxError, tokenize.TokenError) as error:
        line = error.lineno if isinstance(error, SyntaxError) else error.args[1][0]
        raise AssemblyError(f"{family.name}: line {line or 1}: not Python: {error.args[0]}") from None
    except (ValueError, RecursionError) as error:
        raise AssemblyError(f"{family.name}: line 1: not Python: {error}") from None
    return FamilyFunction(
        family=family.name,
        fingerprint=family.fingerprint,
        parameters=parameters,
        body=declared + body,
        hyperparameters=tuple(sorted(best_hyperparameters(family, names).items())),
    )


class _Editor:
    """Edits of one source, by position; whatever no edit touches keeps its characters."""

    def __init__(self, source: str, tree: ast.Module) -> None:
        self.source, self.tree = source, tree
        self.lines = source.split("\n")
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line) + 1)
        self.edits: list[tuple[int, int, str]] = []
        self.evaluated: set[str] = set()
        names = [(node.module, item) for node in tree.body if isinstance(node, ast.ImportFrom) for item in node.names]
        self.postponed = any(module == "__future__" and item.name == "annotations" for module, item in names)
        fx = [item for module, item in names if module in ("torch.fx", "torch.fx._symbolic_trace")]
        self.wraps = {item.asname or item.name for item in fx if item.name == "wrap"}

    def edited(self) -> str:
        """Return the source as a function's body, not yet indented; ``Unfit`` if it needs what only a module has."""
        # What only a module's top level may hold leaves first: what it mentions is not needed because of it.
        leaving = [node for node in self.tree.body if self._is_of_the_module(node)]
        gone = {id(node) for node in leaving}
        needed = needed_code(
            ast.Module(body=[node for node in self.tree.body if id(node) not in gone], type_ignores=[])
        )
        leaving += needed.unneeded
        gone |= {id(node) for node in leaving}
        if needed.scripts:
            self.evaluated |= _BUILTINS | top_level_names(
                node for node in self.tree.body if isinstance(node, ast.Import | ast.ImportFrom)
            )
        kept = list(_walk(self.tree, gone))
        for statement in leaving:
            self._remove(statement)
        for imports, names in needed.imports:
            self._replace(imports, ast.unparse(type(imports)(**{**vars(imports), "names": names})))
        check_scopes(self.tree, kept, self.postponed)
        self._check_imports(kept)
        self._check_tracing(kept)
        top = {id(node) for statement in self.tree.body for node in own_nodes(statement)}
        for node in kept:
            match node:
                case ast.ImportFrom(names=[ast.alias(name="*")]):
                    self._name_star(node, kept)
                case ast.Global() if id(node) in top:
                    self._replace(node, "pass")  # at a module's top level it changes nothing
                case ast.Global():
                    # What was a name of the module is one of the function around: the same sharing, by nonlocal.
                    start = self._offset(node.lineno, node.col_offset)
                    self.edits.append((start, start + len("global"), "nonlocal"))
                case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                    self._edit_definition(node)
        parts, done = [], 0
        # Of edits that begin together the longest comes first, so that it covers the others.
        for start, end, new in sorted(self.edits, key=lambda edit: (edit[0], -edit[1])):
            if start >= done:  # what lies inside of what leaves, leaves with it
                parts += [self.source[done:start], new]
                done = end
        return "".join([*parts, self.source[done:]])

    def _is_of_the_module(self, node: ast.stmt) -> bool:
        """Whether a statement has a meaning in a module run by itself, or to ``torch.fx`` alone."""
        match node:
            case ast.ImportFrom(module="__future__"):
                return True
            case ast.If(test=ast.Compare(left=left, ops=[ast.Eq()], comparators=[right]), orelse=[]):
                sides = {ast.unparse(left), ast.unparse(right)}
                return "__name__" in sides and bool(sides & {"'__main__'"})
            case ast.Expr(value=ast.Call(func=func)):
                # It insists on a module's top level, and matters to symbolic tracing alone.
                return self._is_fx_wrap(func)
        return False

    def _is_fx_wrap(self, node: ast.expr) -> bool:
        return dotted(node) in self.wraps or dotted(node).endswith("fx.wrap")

    def _check_tracing(self, kept: list[ast.AST]) -> None:
        """Refuse a source that needs ``torch.fx.wrap``, which leaves, because it traces its own modules."""
        calls = [node.func for node in ast.walk(self.tree) if isinstance(node, ast.Call)]
        decorators = [item for node in kept for item in getattr(node, "decorator_list", [])]
        if any(self._is_fx_wrap(node) for node in (*calls, *decorators)):
            for node in kept:
                if (isinstance(node, ast.Attribute) and node.attr in _TRACERS) or (
                    isinstance(node, ast.Name) and node.id in _TRACERS
                ):
                    raise Unfit(node.lineno, "traces what torch.fx.wrap marks, in a module alone")

    def _edit_definition(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        for decorator in node.decorator_list:
            if self._is_fx_wrap(decorator):
                # The tree gives the place of the name; the sign before it leaves too.
                start = self._offset(decorator.lineno, decorator.col_offset)
                self.edits.append((self.source.rindex("@", 0, start), self._end(decorator), ""))
        if not self.postponed:
            return
        if isinstance(node, ast.ClassDef):
            inside = (part for statement in node.body for part in own_nodes(statement))
            annotations = [part.annotation for part in inside if isinstance(part, ast.AnnAssign)]
        else:
            annotations = [item for item in annotations_of(node) if not self._is_evaluated(item)]
        for annotation in annotations:
            self._quote(annotation)

    def _is_evaluated(self, annotation: ast.expr) -> bool:
        """Whether an annotation stays as it is: TorchScript looks those in quotes up among a module's names."""
        parts = list(ast.walk(annotation))
        quoted = any(isinstance(part, ast.Constant) and isinstance(part.value, str) for part in parts)
        names = {part.id for part in parts if isinstance(part, ast.Name)}
        return bool(self.evaluated) and not quoted and names <= self.evaluated

    def _quote(self, annotation: ast.expr) -> None:
        """Put an annotation in quotes, as ``from __future__ import annotations`` does."""
        subscript = annotation if isinstance(annotation, ast.Subscript) else None
        head = dotted(subscript.value if subscript else annotation).rpartition(".")[2]
        # A dataclass recognizes these by value; in quotes it would look them up in the file's module, in vain.
        if head not in _EVALUATED:
            self._replace(annotation, repr(ast.unparse(annotation)))
        elif subscript is not None:
            self._replace(subscript.slice, repr(ast.unparse(subscript.slice)))

    def _name_star(self, node: ast.ImportFrom, kept: list[ast.AST]) -> None:
        if node.level or node.module not in _STAR:
            raise Unfit(node.lineno, "import * hides which names it binds: name them")
        module = importlib.import_module(node.module)
        exported = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
        used = sorted({part.id for part in kept if isinstance(part, ast.Name)} & set(exported))
        # Python forbids the star inside functions; the names that the source reads are imported one by one.
        self._replace(node, f"from {node.module} import {', '.join(used)}" if used else "pass")

    def _check_imports(self, kept: list[ast.AST]) -> None:
        """Refuse imports that a mixture does not bring, but in ``try``, where they may fail, and for type checkers."""
        passed = [
            node
            for node in kept
            if isinstance(node, ast.Try | ast.TryStar)
            or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        ]
        tried = {id(inner) for node in passed for inner in ast.walk(node)}
        for node in kept:
            if id(node) in tried or not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            if isinstance(node, ast.ImportFrom) and node.level:
                raise Unfit(node.lineno, "imports from its own package; a mixture stands alone")
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            for root in (name.partition(".")[0] for name in names):
                if root not in _ALLOWED:
                    needs = "a mixture may only need torch, torchvision, numpy and the standard library"
                    raise Unfit(node.lineno, f"imports {root}: {needs}")

    def _replace(self, node: ast.stmt | ast.expr, new: str) -> None:
        self.edits.append((self._offset(node.lineno, node.col_offset), self._end(node), new))

    def _remove(self, node: ast.stmt) -> None:
        """Remove a statement with its lines, or leave ``pass`` where it shares them."""
        first = min([node.lineno, *(item.lineno for item in getattr(node, "decorator_list", []))])
        start, end = self._offset(node.lineno, node.col_offset), self._end(node)
        line_start, line_end = self.starts[first - 1], self.starts[node.end_lineno or node.lineno]
        before = self.source[self.starts[node.lineno - 1] : start]
        after = self.source[end : line_end - 1].strip()
        # Alone on its lines it leaves with them; beside another statement, or after a colon, ``pass`` takes its place.
        if not before.strip() and (not after or after.startswith("#")):
            # The blank lines that set it apart leave with it.
            last = node.end_lineno or node.lineno
            while last < len(self.lines) and not self.lines[last].strip():
                last += 1
            self.edits.append((line_start, min(self.starts[last], len(self.source)), ""))
        else:
            self.edits.append((start, end, "pass"))

    def _offset(self, line: int, column: int) -> int:
        """Turn a position of ``ast``, whose columns count bytes, into one of the text."""
        text = self.lines[line - 1]
        return self.starts[line - 1] + (column if text.isascii() else len(text.encode()[:column].decode()))

    def _end(self, node: ast.stmt | ast.expr) -> int:
        assert node.end_lineno is not None and node.end_col_offset is not None  # every parsed node has them
        return self._offset(node.end_lineno, node.end_col_offset)


def _walk(root: ast.AST, gone: set[int]) -> Iterator[ast.AST]:
    """Walk a tree in the source's order without the nodes that are gone."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) not in gone:
            yield node
            waiting.extend(reversed(list(ast.iter_child_nodes(node))))


def _indented(text: str) -> str:
    """Indent a module's text and add ``return Net``; lines that begin inside a string keep their characters."""
    openings = {getattr(tokenize, name) for name in ("FSTRING_START", "TSTRING_START") if hasattr(tokenize, name)}
    endings = {getattr(tokenize, name) for name in ("FSTRING_END", "TSTRING_END") if hasattr(tokenize, name)}
    # Lines that continue a string; from Python 3.12 on, f-strings come as tokens of their own, which may be nested.
    inside: set[int] = set()
    open_at: list[int] = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.STRING:
            inside.update(range(token.start[0] + 1, token.end[0] + 1))
        elif token.type in openings:
            open_at.append(token.start[0])
        elif token.type in endings:
            inside.update(range(open_at.pop() + 1, token.end[0] + 1))
    # A line that begins inside a string is part of its value: an indent would change what the family prints or hashes.
    lines: list[str] = []
    for number, line in enumerate(text.rstrip().split("\n"), 1):
        if number in inside:
            lines.append(line)
        elif line.strip():
            lines.append("    " + line.lstrip("\f"))
        elif lines and lines[-2:] != ["", ""]:  # what left its blank lines behind needs none of them
            lines.append("")
    return "\n".join(lines) + "\n\n    return Net\n"


def _closed(tree: ast.Module, body: str) -> tuple[tuple[str, ...], str]:
    """Make sure that the function finds no name in the file around it.

    Returns:
        Builtins that become its parameters, because the source binds them anew; and statements that declare names
        which no statement of the function binds: ``global`` in a function of the source may, or nothing does.
    """
    function = ast.parse(f"def family():\n{body}").body[0]
    assert isinstance(function, ast.FunctionDef)
    later = {name for node in ast.walk(function) if isinstance(node, ast.Nonlocal) for name in node.names}
    later &= {name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names}
    bound = top_level_names(function.body) | later
    parameters = tuple(sorted(bound & _BUILTINS))
    declared = later - top_level_names(function.body) - _BUILTINS  # nonlocal needs a binding around it
    head = f"def family({', '.join(parameters)}):\n"
    # The compiler's own tables tell which names would be looked up in the file around the function.
    table = symtable.symtable(head + _declarations(declared) + body, "family", "exec")
    declared |= set(_from_outside(table.get_children()[0])) - _BUILTINS - _OF_EVERY_MODULE
    return parameters, _declarations(declared)


def _declarations(names: set[str]) -> str:
    return "".join(f"    {name}: object  # bound later, if at all\n" for name in sorted(names))


def _from_outside(table: symtable.SymbolTable) -> Iterator[str]:
    """Yield the names that a function, or one inside it, reads from the module."""
    if isinstance(table, symtable.Function):
        yield from table.get_globals()  # a symbol by itself takes time for each function inside
    else:
        yield from (
            symbol.get_name() for symbol in table.get_symbols() if symbol.is_global() and symbol.is_referenced()
        )
    for child in table.get_children():
        yield from _from_outside(child)
