"""Named regions of an assembled file: extracted, printed and replaced as syntax trees.

A region is one class or function of the file. A rewriter is shown the region alone, without
docstrings and comments, to save tokens. Its answer replaces the node; every byte of the rest of the
file stays.
"""

from __future__ import annotations

import ast
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from nngen.llm.proposals.parsing import Fault, ReplyError
from nngen.text import parse_python

Definition: TypeAlias = ast.FunctionDef | ast.ClassDef


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A part of an assembled file that a rewriter may replace."""

    path: tuple[str, ...]  # names of the nodes that enclose it and its own name, outermost first
    purpose: str  # its task, as a clause for a prompt


REGIONS: Mapping[str, Region] = {
    "gate": Region(path=("Gate",), purpose="looks at an image and weighs the experts; rows of weights sum to 1"),
    "mixing": Region(path=("Net", "blend"), purpose="blends the experts' logits with the gate's weights"),
    "loss": Region(path=("importance_loss",), purpose="grows when the gate uses experts unevenly"),
    "optimizer": Region(path=("build_optimizer",), purpose="builds the optimizer of experts and gate"),
    "schedule": Region(path=("set_rates",), purpose="sets the learning rates for the share of training behind it"),
    "augmentation": Region(path=("mixup",), purpose="changes a batch of images and labels before a training step"),
    "step": Region(path=("Net", "take_step"), purpose="updates the weights once"),
}


def present(source: str) -> tuple[str, ...]:
    """List the regions of a file, in the order of ``REGIONS``; none of a file that cannot be parsed."""
    try:
        tree = parse_python(source)
    except SyntaxError:
        return ()
    return tuple(name for name, region in REGIONS.items() if _locate(tree.body, region.path) is not None)


def find(source: str, region: str) -> str:
    """Return the code of a region as a rewriter is shown it: unindented, without docstrings and comments.

    Raises:
        ReplyError: If the region is unknown, or the file lacks it.
    """
    return show(_node(source, region))


def show(node: ast.AST) -> str:
    """Print a tree without its docstrings."""
    for inner in ast.walk(node):
        body = getattr(inner, "body", None)
        if isinstance(body, list) and len(body) > 1 and _is_docstring(body[0]):
            del body[0]
    return ast.unparse(node)


def splice(source: str, region: str, code: str) -> str:
    """Replace a region by Python that defines its one class or function, with the same parameters.

    Returns:
        The new file; every byte outside of the region is unchanged.

    Raises:
        ReplyError: If the code defines anything else, or the file lacks the region.
    """
    old = _node(source, region)
    new = _same_head(ast.parse(code).body, old)
    # Decorators stand above the line of the definition, in the old code and in the new.
    first, begin = (min(item.lineno for item in (node, *node.decorator_list)) for node in (old, new))
    lines, written = _lines(source), _lines(code)[begin - 1 : new.end_lineno]
    fresh = _indented(written, " " * old.col_offset, _inside_strings(new, begin))
    if not fresh[-1].endswith("\n"):
        fresh[-1] += "\n"
    return "".join([*lines[: first - 1], *fresh, *lines[old.end_lineno :]])


def _node(source: str, region: str) -> Definition:
    if region not in REGIONS:
        raise ReplyError(Fault.REGION, f"no region is called {region!r}: choose {', '.join(REGIONS)}")
    try:
        node = _locate(parse_python(source).body, REGIONS[region].path)
    except SyntaxError as error:
        raise ReplyError(Fault.REGION, f"this file cannot be parsed: {error.msg}") from None
    if node is None:
        raise ReplyError(Fault.REGION, f"this file has no region {region}")
    return node


def _locate(body: Sequence[ast.stmt], path: Sequence[str]) -> Definition | None:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == path[0]:
            return node if len(path) == 1 else _locate(node.body, path[1:])
    return None


def _same_head(body: Sequence[ast.stmt], old: Definition) -> Definition:
    """Return the one definition of new code; refuse it unless it can replace the old one."""
    new = body[0] if len(body) == 1 else None
    if not isinstance(new, ast.FunctionDef | ast.ClassDef) or type(new) is not type(old) or new.name != old.name:
        form = "class" if isinstance(old, ast.ClassDef) else "function"
        raise ReplyError(Fault.REGION, f"the code must be the {form} {old.name} and nothing else")
    if isinstance(old, ast.FunctionDef) and isinstance(new, ast.FunctionDef):
        before, after = ([argument.arg for argument in node.args.args] for node in (old, new))
        if before != after:
            raise ReplyError(Fault.REGION, f"{old.name} takes ({', '.join(before)}), not ({', '.join(after)})")
    return new


def _lines(source: str) -> list[str]:
    """Split into lines as Python counts them: form feeds and Unicode separators do not end a line."""
    return io.StringIO(source, newline="").readlines()


def _inside_strings(node: ast.stmt, begin: int) -> set[int]:
    """Return the lines, counted from ``begin``, that start inside of a string: indenting them would change it."""
    strings = (item for item in ast.walk(node) if isinstance(item, ast.Constant | ast.JoinedStr))
    return {line - begin for item in strings for line in range(item.lineno + 1, (item.end_lineno or item.lineno) + 1)}


def _indented(lines: Sequence[str], indent: str, kept: set[int]) -> list[str]:
    return [line if number in kept or not line.strip() else indent + line for number, line in enumerate(lines)]


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
