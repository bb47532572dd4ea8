"""A family becomes an expert: its classes and functions under names that no other family has.

Nothing here depends on the mixture: a family is transformed once, and a mixture is a render.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import libcst as cst

from nngen.assembly.identity import statement_digests
from nngen.assembly.imports import ALLOWED, Import, is_shared
from nngen.assembly.naming import Style, assign_names, class_prefix, style_of
from nngen.assembly.reachability import reachable
from nngen.assembly.rename import Renamer, write_body
from nngen.assembly.source import Source, Unit, read_source
from nngen.types import Family, Hyperparameters

__all__ = ["DEFAULTS", "Expert", "transform"]

DEFAULTS: Hyperparameters = {"lr": 0.01, "momentum": 0.9, "dropout": 0.2, "batch": 64, "epoch": 1, "pretrained": 0}
"""Hyperparameters a family asks for where LEMUR recorded none; every other one is ``OTHERWISE``."""

OTHERWISE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Expert:
    """A family's source, ready to stand beside any others in one file.

    Attributes:
        family: The family's name.
        fingerprint: SHA-256 of the family's source.
        network: The class that was ``Net``.
        imports: What the body needs imported, sorted.
        names: Every module-level name the body binds, sorted; all carry the family's prefix.
        body: The source, without imports; ends with a line break.
        hyperparameters: LEMUR's best for the family, defaults where it recorded none; sorted.
        digests: One per statement of the body, for the canonical hash.
        postponed: Whether the source asks for annotations that are not evaluated.
    """

    family: str
    fingerprint: str
    network: str
    imports: tuple[Import, ...]
    names: tuple[str, ...]
    body: str
    hyperparameters: tuple[tuple[str, float | int | str], ...]
    digests: tuple[bytes, ...]
    postponed: bool = False


def transform(family: Family, prefix: str | None = None) -> Expert:
    """Turn a family into an expert.

    Left out is whatever ``Net`` does not reach: its training methods, the factories of pretrained
    weights with the private imports they need, unused imports and definitions.

    Args:
        family: Its source and LEMUR's best result.
        prefix: What its names start with, in CapWords; by default the family's name.

    Raises:
        AssemblyError: If the source does not parse, has no ``Net``, imports ``*`` or something a
            mixture does not bring, or has names that only exist at run time. The message names
            family and line.
    """
    source = read_source(family)
    kept = reachable(source)
    _check_imports(source, kept)
    names, imports = _name(source, kept, prefix or class_prefix(family.name))
    body = write_body(source, kept, Renamer(source, names))
    return Expert(
        family=family.name,
        fingerprint=family.fingerprint,
        network=names["Net"],
        imports=tuple(sorted(imports, key=lambda item: (item.module, item.name or "", item.alias or ""))),
        names=tuple(sorted(names[name] for name in names.keys() & source.own.keys())),
        body=body,
        hyperparameters=tuple(sorted(_hyperparameters(source, kept).items())),
        digests=statement_digests(body),
        postponed=_postpones(source.module),
    )


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
            if is_shared(item):
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
    for node in source.own[name]:
        if isinstance(node, cst.ClassDef):
            return Style.CLASS
        if isinstance(node, cst.FunctionDef):
            return Style.FUNCTION
    style = style_of(name)
    plain = any(isinstance(node, cst.Name) for node in source.own[name])
    return Style.CONSTANT if style is Style.FUNCTION and plain else style


def _check_imports(source: Source, kept: Iterable[Unit]) -> None:
    read = {name for unit in kept for name in unit.reads}
    for unit in kept:
        checker = _ImportChecker(source, read if unit.imports else None)
        unit.node.visit(checker)


class _ImportChecker(cst.CSTVisitor):
    """Raises at an import that a mixture does not bring; one inside ``try`` may fail."""

    def __init__(self, source: Source, read: set[str] | None) -> None:
        super().__init__()
        self.source, self.read = source, read

    def on_visit(self, node: cst.CSTNode) -> bool:
        return id(node) not in self.source.dead and super().on_visit(node) is not False

    def visit_Try(self, node: cst.Try) -> bool:
        return False

    def visit_Import(self, node: cst.Import) -> None:
        for item in node.names:
            bound = item.evaluated_alias or item.evaluated_name.partition(".")[0]
            if self.read is None or bound in self.read:
                self._check(node, item.evaluated_name)

    def visit_ImportFrom(self, node: cst.ImportFrom) -> None:
        if isinstance(node.names, cst.ImportStar):
            raise self.source.error(node, "import * hides which names it binds: name them")
        module = cst.Module(body=[]).code_for_node(node.module) if node.module else ""
        if node.relative:
            raise self.source.error(node, f"imports from its own package (.{module}); a mixture stands alone")
        bound = {item.evaluated_alias or item.evaluated_name for item in node.names}
        if self.read is None or bound & self.read:
            self._check(node, module)

    def _check(self, node: cst.CSTNode, module: str) -> None:
        root = module.partition(".")[0]
        if root not in ALLOWED and root not in sys.stdlib_module_names:
            raise self.source.error(
                node, f"imports {root}; a mixture may only need torch, torchvision, numpy and the standard library"
            )


def _hyperparameters(source: Source, kept: Iterable[Unit]) -> dict[str, float | int | str]:
    """LEMUR's best values for what the family supports or reads; defaults where it recorded none."""
    best: Mapping[str, float | int | str] = source.family.best.hyperparameters if source.family.best else {}
    reads = _PrmReads(source)
    for unit in kept:
        unit.node.visit(reads)
    wanted = _supported(source) | reads.required
    values = {name: best.get(name, DEFAULTS.get(name, OTHERWISE)) for name in wanted}
    values |= {name: best[name] for name in reads.optional if name in best}
    if "pretrained" in values:
        values["pretrained"] = 0  # an expert starts from nothing: weights would have to be downloaded
    return values


def _supported(source: Source) -> set[str]:
    """Evaluate ``supported_hyperparameters`` without running it; empty where that cannot be done."""
    for node in source.own.get("supported_hyperparameters", []):
        if isinstance(node, cst.FunctionDef):
            for statement in ast.walk(ast.parse(cst.Module(body=[node]).code)):
                if isinstance(statement, ast.Return) and isinstance(statement.value, ast.Set):
                    return {str(item.value) for item in statement.value.elts if isinstance(item, ast.Constant)}
    return set()


class _PrmReads(cst.CSTVisitor):
    """Collects the keys that are read from ``prm``, the third argument of ``Net``."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.source = source
        self.prm = _prm_name(source)
        self.required: set[str] = set()
        self.optional: set[str] = set()

    def on_visit(self, node: cst.CSTNode) -> bool:
        return id(node) not in self.source.dead and super().on_visit(node) is not False

    def visit_Subscript(self, node: cst.Subscript) -> None:
        match node:
            case cst.Subscript(
                value=value, slice=[cst.SubscriptElement(slice=cst.Index(value=cst.SimpleString() as key))]
            ) if self._is_prm(value):
                self.required.add(str(key.evaluated_value))

    def visit_Call(self, node: cst.Call) -> None:
        match node:
            case cst.Call(
                func=cst.Attribute(value=value, attr=cst.Name(value="get")),
                args=[cst.Arg(value=cst.SimpleString() as key), *_],
            ) if self._is_prm(value):
                self.optional.add(str(key.evaluated_value))

    def _is_prm(self, node: cst.BaseExpression) -> bool:
        match node:
            case cst.Name(value=name) | cst.Attribute(attr=cst.Name(value=name)):
                return name == self.prm
        return False


def _prm_name(source: Source) -> str:
    for net in source.own.get("Net", []):
        if isinstance(net, cst.ClassDef):
            for method in net.body.body:
                if isinstance(method, cst.FunctionDef) and method.name.value == "__init__":
                    params = method.params.params
                    return params[3].name.value if len(params) > 3 else "prm"
    return "prm"


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
