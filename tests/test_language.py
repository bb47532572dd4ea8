"""Rules for the package: heads, wording, typed values between packages, and paths in pages."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "nngen"
MODULES = sorted(PACKAGE.rglob("*.py"))

RIDDLE = re.compile(r"(What|Who|Whose|Where|How|Which)\b")
BORDERS = {"to_dict", "from_dict", "to_json", "from_json", "to_row", "from_row", "parse_toml", "read_toml"}
"""Functions that turn values into JSON, TOML or rows of SQLite and back."""
BORDER_MODULES = {
    "nngen/archive/records.py": "rows of SQLite",
    "nngen/assembly/plan_toml.py": "TOML",
    "nngen/checks/candidate_net.py": "prm is the dictionary that LEMUR's contract hands to a net",
    "nngen/checks/context.py": "prm, likewise",
    "nngen/checks/prm.py": "prm, likewise",
    "nngen/export/journal.py": "JSON lines",
    "nngen/isolation/launcher.py": "a job is one JSON frame to the worker",
    "nngen/isolation/protocol.py": "frames hold JSON",
    "nngen/isolation/supervisor.py": "a job, read from its frame",
    "nngen/lemur/layout.py": "LEMUR's result files are JSON",
    "nngen/lemur/records.py": "LEMUR's result files, read and written",
    "nngen/training/state/artifacts.py": "messages of the worker are JSON",
    "nngen/training/ray/cluster.py": "options as Ray takes them",
}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_heads_are_noun_or_verb_phrases() -> None:
    heads = {name_of(path): ast.get_docstring(parsed(path)) or "" for path in MODULES}
    assert [name for name, head in heads.items() if not head] == []
    assert [f"{name}: {head.splitlines()[0]}" for name, head in heads.items() if RIDDLE.match(head)] == []


def test_is_not_a_instead_of_is_no() -> None:
    """A thing "is not a" other thing."""
    found = [
        f"{name_of(path)}:{number}: {line.strip()}"
        for path in MODULES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r"\b(is|are) no ", line)
    ]
    assert found == []


def _room(module: str) -> str:
    """Return the package of a dotted module name, as ``nngen.archive``; a top-level module counts as a package."""
    return ".".join(module.split(".")[:2])


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def _shared() -> frozenset[str]:
    """Return the names that a module imports from another package of nngen."""
    return frozenset(
        alias.name
        for path in MODULES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nngen.")
        if _room(node.module or "") != _room(_module(path))
        for alias in node.names
    )


def _signatures(path: Path) -> Iterator[tuple[str, int, list[ast.expr]]]:
    """Yield public functions, methods and fields that other packages import, with their annotations."""
    for node in parsed(path).body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name not in _shared():
            continue
        for part in [node] if isinstance(node, ast.FunctionDef) else node.body:
            if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                yield f"{node.name}.{part.target.id}", part.lineno, [part.annotation]
            elif isinstance(part, ast.FunctionDef) and part.name not in BORDERS and not part.name.startswith("_"):
                taken = [*part.args.posonlyargs, *part.args.args, *part.args.kwonlyargs]
                notes = [arg.annotation for arg in taken if arg.annotation]
                yield part.name, part.lineno, [*notes, *([part.returns] if part.returns else [])]


def test_typed_values_between_packages() -> None:
    """Dictionaries with string keys are used only at the boundaries to JSON, TOML and SQLite."""
    found = [
        f"{name_of(path)}:{line}: {name}"
        for path in MODULES
        if name_of(path) not in BORDER_MODULES
        for name, line, notes in _signatures(path)
        for note in notes
        if re.search(r"(dict|Mapping)\[str, (Any|object)\]", ast.unparse(note))
    ]
    assert found == []


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_pages_name_what_exists(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"(?:nngen|tests|eval|docs|templates|prompts)/[\w./-]+", text)
    assert len(named) > 10
    assert [path for path in named if not (ROOT / path.rstrip(".")).exists()] == []
    for target in re.findall(r"make ([a-z-]+)", text):
        assert f"\n{target}:" in (ROOT / "Makefile").read_text(encoding="utf-8"), target


def test_names_of_test_modules_are_used_once() -> None:
    """Pytest collects modules by their name alone where folders are not packages."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
