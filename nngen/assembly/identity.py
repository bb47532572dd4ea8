"""Identity of sources: a hash that ignores what does not change a program, and the version of the templates."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Mapping

from nngen.families.locals import local_names
from nngen.text import MAX_PARSED

TEMPLATE_VERSION = 1
"""Raised whenever a template, a snippet or the transformation of families changes the bytes of a file.

Candidates from before versions were kept, whose families were renamed and tidied, have none."""


def canonical_hash(source: str) -> str:
    """Return the SHA-256 of a source's tree, in hex.

    Comments, docstrings, ``pass`` in a body, layout and the names of locals do not count; everything else does. It is
    the same on every version of Python, and is made of one digest per statement, so that a mixture's hash follows from
    its experts' without parsing them again. A source longer than ``MAX_PARSED`` is not parsed: its bytes are hashed.

    Raises:
        SyntaxError: If the source does not parse, or is nested too deep.
    """
    if len(source) > MAX_PARSED:
        return hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()
    try:
        return combine(statement_digests(source))
    except (ValueError, RecursionError, MemoryError) as error:
        raise SyntaxError(str(error) or "nested too deep") from None


def combine(digests: Iterable[str]) -> str:
    """Make one canonical hash of the digests of a module's statements, in order."""
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def statement_digests(source: str) -> tuple[str, ...]:
    """Return the SHA-256 of each statement of a module, in hex; docstring left out.

    Raises:
        SyntaxError: If the source does not parse.
    """
    tree = ast.parse(source)
    local = local_names(tree)
    return tuple(hashlib.sha256(_form(node, local).encode()).hexdigest() for node in _meaningful(tree.body))


_UNSEEN = frozenset({"ctx", "kind", "type_comment"})
_SPELL = frozenset({"id", "name", "names", "rest"})


def _form(value: object, local: Mapping[int, Mapping[str, str]]) -> str:
    """Write a tree so that equal text means equal trees; what is absent is not written."""
    if isinstance(value, ast.AST):
        parts = []
        stand_ins = local.get(id(value), {})
        for name in value._fields:
            child = getattr(value, name, None)
            if name == "body" and isinstance(child, list):
                child = _meaningful(child)
            if stand_ins and name in _SPELL:
                child = (
                    [stand_ins.get(item, item) for item in child] if isinstance(child, list) else stand_ins[str(child)]
                )
            # Fields that later versions of Python add are empty for what earlier ones can say.
            if name in _UNSEEN or (child is None and not isinstance(value, ast.Constant)) or child == []:
                continue
            parts.append(f"{name}={_form(child, local)}")
        return f"{type(value).__name__}({','.join(parts)})"
    if isinstance(value, list):
        return f"[{','.join(_form(item, local) for item in value)}]"
    return f"{type(value).__name__}:{value!r}"


def _meaningful(body: list[ast.stmt]) -> list[ast.stmt]:
    """Leave out what does nothing: bare strings and ``pass``."""
    return [
        node
        for node in body
        if not isinstance(node, ast.Pass)
        and not (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        )
    ]
