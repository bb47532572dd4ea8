"""Size and structure of a package: modules, lengths, comments, import chain, duplicate blocks.

    python eval/measure_code.py                                  # this package (make measure)
    python eval/measure_code.py --package OLD/nngen nngen         # two versions, compared

Lengths are physical lines; a function's are counted from ``def`` to its last line, its docstring included. The import
chain is the longest path of imports at module level between modules of the package, its length the number of modules;
imports under ``if TYPE_CHECKING`` and inside functions do not count. A duplicate block is a run of at least six equal
lines (white space, blank lines, comments, imports and docstrings apart) at two places.
"""

from __future__ import annotations

import ast
import io
import statistics
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from _page import Evaluation, table

BLOCK = 6
EVALUATION = Evaluation(__file__, __doc__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One parsed source file.

    Attributes:
        name: Dotted name; that of the package for ``__init__.py``.
        code: Numbers of the lines with code, without blank lines, comments and docstrings.
        comments: Comments other than directives for tools.
    """

    name: str
    is_package: bool
    text: str
    tree: ast.Module
    code: frozenset[int]
    comments: int

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()


def main(argv: Sequence[str] | None = None) -> int:
    """Measure each package and print the measures as columns of one table."""
    given = EVALUATION.arguments(
        argv, package=([str(Path(__file__).parent.parent / "nngen")], "folders of packages"), chain=False
    )
    read = [read_package(Path(folder)) for folder in given.package]
    columns = [measures(modules) for modules in read]
    rows = [(name, *(column[name] for column in columns)) for name in columns[0]]
    heads = (
        ["measure", *(str(number) for number in range(1, len(columns) + 1))] if len(columns) > 1 else ["measure", ""]
    )
    chains = ["Chain: " + " > ".join(longest_chain(modules)) for modules in read] if given.chain else []
    text = EVALUATION.page("Size and structure of the code", "", table(heads, rows, right=heads[1:]), chains)
    return EVALUATION.finish(text, good=True)


def measures(modules: Mapping[str, Module]) -> dict[str, object]:
    """Return the measures of one package by their labels."""
    lengths = [len(module.lines) for module in modules.values()]
    functions = [
        node.end_lineno - node.lineno + 1
        for module in modules.values()
        for node in ast.walk(module.tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno is not None
    ]
    code = sum(len(module.code) for module in modules.values())
    folders = Counter(
        module.name if module.is_package else module.name.rpartition(".")[0] for module in modules.values()
    )
    largest = ", ".join(f"{folder.partition('.')[2] or folder} {count}" for folder, count in folders.most_common(3))
    blocks, repeated = duplicates(modules)
    return {
        "modules": len(modules),
        "lines": f"{sum(lengths):,}",
        "lines of code (no blanks, comments, docstrings)": f"{code:,}",
        "lines a module: median, 90th percentile, most": _spread(lengths),
        "lines a function: median, 90th percentile, most": _spread(functions),
        "functions": f"{len(functions):,}",
        "comments per 100 lines of code": f"{100 * sum(m.comments for m in modules.values()) / code:.1f}",
        "longest chain of imports, modules": len(longest_chain(modules)),
        f"duplicate blocks of {BLOCK} lines or more (lines in them)": f"{blocks} ({repeated})",
        "modules in the largest folders": largest,
    }


def _spread(values: Sequence[int]) -> str:
    return f"{statistics.median(values):.0f}, {sorted(values)[int(0.9 * (len(values) - 1))]}, {max(values)}"


def read_package(folder: Path) -> dict[str, Module]:
    """Parse every module of a package, by dotted name."""
    modules = {}
    for path in sorted(folder.rglob("*.py")):
        parts = (folder.name, *path.relative_to(folder).with_suffix("").parts)
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        code, comments = _count(text, tree)
        modules[name] = Module(
            name=name, is_package=is_package, text=text, tree=tree, code=frozenset(code), comments=comments
        )
    return modules


def _count(text: str, tree: ast.Module) -> tuple[set[int], int]:
    """Return the numbers of the lines of code, and the number of comments."""
    code: set[int] = set()
    comments = 0
    layout = {tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            comments += not token.string.startswith(("# noqa", "# type:", "#!"))
        elif token.type not in layout:
            code.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):
        # Docstrings, and strings below fields that document them.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            code.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return code, comments


def imports(module: Module, modules: Mapping[str, Module]) -> set[str]:
    """Return the modules of the package that a module imports when it is loaded."""
    found: set[str] = set()
    for node in _statements(module.tree.body):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.name.split(".")[: None if module.is_package else -1]
                parts = parts[: len(parts) - node.level + 1]
                base = ".".join([*parts, *([node.module] if node.module else [])])
            # ``from package import module`` loads the module; any other name comes from the package itself.
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                found.add(whole if whole in modules else base)
    return {name for name in found if name in modules and name != module.name}


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements that run when the module is loaded, including those under ``if`` and ``try``."""
    for node in body:
        yield node
        if isinstance(node, ast.If):
            if "TYPE_CHECKING" not in ast.unparse(node.test):
                yield from _statements(node.body)
            yield from _statements(node.orelse)
        elif isinstance(node, ast.Try):
            yield from _statements([*node.body, *node.orelse, *node.finalbody])


def longest_chain(modules: Mapping[str, Module]) -> tuple[str, ...]:
    """Return the longest path in the graph of imports; a repeated module ends a path."""
    edges = {name: sorted(imports(module, modules)) for name, module in modules.items()}
    open_: set[str] = set()

    @cache
    def longest(name: str) -> tuple[str, ...]:
        open_.add(name)
        paths = [longest(other) for other in edges[name] if other not in open_]
        open_.discard(name)
        return (name, *max(paths, key=len, default=()))

    return max((longest(name) for name in edges), key=len)


def duplicates(modules: Mapping[str, Module]) -> tuple[int, int]:
    """Count maximal runs of at least ``BLOCK`` equal lines at two places, and the lines that lie in them."""
    texts: dict[str, list[str]] = {}
    for name, module in modules.items():
        skipped = {
            number
            for node in ast.walk(module.tree)
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
        }
        lines = module.lines
        texts[name] = [" ".join(lines[number - 1].split()) for number in sorted(module.code - skipped)]
    places: dict[tuple[str, ...], list[tuple[str, int]]] = defaultdict(list)
    for name, lines in texts.items():
        for start in range(len(lines) - BLOCK + 1):
            window = tuple(lines[start : start + BLOCK])
            # Closing brackets alone do not count as a line.
            if sum(len(line) > 4 for line in window) >= BLOCK - 1:
                places[window].append((name, start))
    pairs = {
        (first, second)
        for found in places.values()
        for number, first in enumerate(found)
        for second in found[number + 1 :]
        if first[0] != second[0] or second[1] - first[1] >= BLOCK
    }
    # A longer run is found once per window; only its first window has no equal line before it.
    blocks = sum(((a, i - 1), (b, j - 1)) not in pairs for (a, i), (b, j) in pairs)
    lines = {(name, start + offset) for pair in pairs for name, start in pair for offset in range(BLOCK)}
    return blocks, len(lines)


if __name__ == "__main__":
    sys.exit(main())
