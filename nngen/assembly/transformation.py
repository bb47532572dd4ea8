"""How a family becomes an expert: what is kept of its source, under which names, with which imports."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator

import libcst as cst

from nngen.assembly.expert import Expert
from nngen.assembly.identity import statement_digests
from nngen.assembly.imports import ALLOWED, Import
from nngen.assembly.naming import Style, assign_names, style_of
from nngen.assembly.reachability import reachable
from nngen.assembly.rename import Renamer, write_body
from nngen.assembly.source import Source, Unit, read_source
from nngen.assembly.tidying.tidy import tidy
from nngen.assembly.walk import walk
from nngen.families.hyperparameters import best_hyperparameters
from nngen.types import Family

__all__ = ["make_expert"]

_WORD = re.compile(r"\w+")


def make_expert(family: Family, prefix: str) -> Expert:
    """Transform a family; see ``nngen.assembly.expert.transform``."""
    source = read_source(family)
    kept = reachable(source)
    _check(source, kept)
    names, imports = _name(source, kept, prefix)
    body = _used(tidy(write_body(source, kept, Renamer(source, names))), names["Net"])
    words = set(_WORD.findall(body))
    return Expert(
        family=family.name,
        fingerprint=family.fingerprint,
        network=names["Net"],
        imports=tuple(
            sorted(
                (item for item in imports if item.bound in words),
                key=lambda item: (item.module, item.name or "", item.alias or ""),
            )
        ),
        names=tuple(sorted(names[name] for name in names.keys() & source.own.keys() if names[name] in words)),
        body=body,
        hyperparameters=tuple(sorted(best_hyperparameters(family).items())),
        digests=statement_digests(body),
        postponed=_postpones(source.module),
    )


def _used(body: str, root: str) -> str:
    """Leave out functions and classes that tidying has left without a use."""
    module = cst.parse_module(body)
    while True:
        often = Counter(_WORD.findall(module.code))
        kept = [
            item
            for item in module.body
            if not isinstance(item, cst.ClassDef | cst.FunctionDef)
            or item.name.value == root
            or item.decorators
            or often[item.name.value] > 1
        ]
        if len(kept) == len(module.body):
            return module.code.strip("\n") + "\n"
        module = module.with_changes(body=kept)


def _name(source: Source, kept: Iterable[Unit], prefix: str) -> tuple[dict[str, str], set[Import]]:
    """Choose the new name of everything kept, and collect the imports it needs."""
    read = {name for unit in kept for name in unit.reads}
    shared: set[Import] = set()
    private: dict[str, Import] = {}
    styles: dict[str, Style] = {}
    for unit in kept:
        for item in unit.imports:
            if item.bound not in read or item.bound not in source.imported:
                continue
            if item.shared:
                shared.add(item.canonical())
            elif item == source.imported[item.bound]:
                private[item.bound] = item
                styles[item.bound] = item.style
        for name in sorted(unit.binds):
            if name in source.own:
                styles.setdefault(name, _style(source, name))
    names = assign_names(prefix, styles, source.identifiers)
    return names, shared | {item.renamed(names[name]) for name, item in private.items()}


def _style(source: Source, name: str) -> Style:
    nodes = source.own[name]
    if any(isinstance(node, cst.ClassDef) for node in nodes):
        return Style.CLASS
    if any(isinstance(node, cst.FunctionDef) for node in nodes):
        return Style.FUNCTION
    style = style_of(name)
    plain = any(isinstance(node, cst.Name) for node in nodes)
    return Style.CONSTANT if style is Style.FUNCTION and plain else style


def _check(source: Source, kept: Iterable[Unit]) -> None:
    """Refuse what is needed but cannot be part of a mixture, at the first line where it is."""
    read = {name for unit in kept for name in unit.reads}
    problems = [problem for unit in kept for problem in (*unit.problems, *_foreign_imports(source, unit, read))]
    if problems:
        raise source.error(*min(problems, key=lambda problem: (source.line(problem[0]), problem[1])))


def _foreign_imports(source: Source, unit: Unit, read: set[str]) -> Iterator[tuple[cst.CSTNode, str]]:
    """Find imports that a mixture does not bring; one inside ``try`` may fail."""
    for node in walk(unit.node, skip=lambda node: id(node) in source.dead or isinstance(node, cst.Try)):
        match node:
            case cst.ImportFrom(names=cst.ImportStar()):
                yield node, "import * hides which names it binds: name them"
            case cst.ImportFrom(relative=[_, *_]):
                yield node, "imports from its own package; a mixture stands alone"
            case cst.ImportFrom(module=cst.CSTNode() as module, names=items) if not isinstance(items, cst.ImportStar):
                used = not unit.imports or any((item.evaluated_alias or item.evaluated_name) in read for item in items)
                yield from _foreign(node, [cst.Module(body=[]).code_for_node(module)] if used else [])
            case cst.Import(names=items):
                yield from _foreign(
                    node,
                    [
                        item.evaluated_name
                        for item in items
                        if not unit.imports or (item.evaluated_alias or item.evaluated_name.partition(".")[0]) in read
                    ],
                )


def _foreign(node: cst.CSTNode, modules: Iterable[str]) -> Iterator[tuple[cst.CSTNode, str]]:
    for module in modules:
        root = module.partition(".")[0]
        if root not in ALLOWED and root not in sys.stdlib_module_names:
            yield node, f"imports {root}: a mixture may only need torch, torchvision, numpy and the standard library"


def _postpones(module: cst.Module) -> bool:
    return any(
        isinstance(small, cst.ImportFrom)
        and isinstance(small.module, cst.Name)
        and small.module.value == "__future__"
        and not isinstance(small.names, cst.ImportStar)
        and any(item.evaluated_name == "annotations" for item in small.names)
        for statement in module.body
        if isinstance(statement, cst.SimpleStatementLine)
        for small in statement.body
    )
