from __future__ import annotations

import hashlib
import re

from hypothesis import given
from hypothesis import strategies as st

from nngen.assembly.identity import canonical_hash, lemur_id

SOURCE = '''
"""A module."""
import torch


def f(x, scale=1.0):
    """Scale."""
    return x * scale  # a comment
'''


@given(st.text())
def test_lemur_id_is_what_lemur_computes(text: str) -> None:
    # ab.nn.util.Util.uuid4 of nn-dataset 2.1.2
    assert lemur_id(text) == hashlib.md5(re.sub("\\s", "", text).encode()).hexdigest()


def test_comments_docstrings_and_layout_do_not_count() -> None:
    same = "import torch\ndef f(x, scale = 1.0,):\n  return (x\n    * scale)"
    assert canonical_hash(same) == canonical_hash(SOURCE)


def test_what_changes_behaviour_counts() -> None:
    changes = [("1.0", "1"), ("1.0", "2.0"), ("x * scale", "scale * x"), ("torch", "math"), ("def f", "def g")]
    hashes = {canonical_hash(SOURCE.replace(old, new, 1)) for old, new in changes}
    assert len(hashes | {canonical_hash(SOURCE)}) == len(changes) + 1


def test_twins_that_lemur_confuses_are_told_apart() -> None:
    one = "def f(xs):\n    n = 0\n    for x in xs:\n        n += x\n    return n\n"
    other = "def f(xs):\n    n = 0\n    for x in xs:\n        n += x\n        return n\n"
    assert lemur_id(one) == lemur_id(other)
    assert canonical_hash(one) != canonical_hash(other)


def test_the_hash_is_the_same_on_every_version_of_python() -> None:
    source = (
        "@d\nclass A(B, m=1):\n    x: int = {**y, 'a': None}\n"
        "    async def f(self, *a, k=f'{x!r:>4}', **kw):\n        yield -1\n"
    )
    assert canonical_hash(source) == "ce29347309cf4cdbbacd984a32dddd2d99932878123a32f91d141e61d81e8b24"
