"""Regions of generated files."""

from __future__ import annotations

import ast
from random import Random

import pytest

from nngen.llm.proposals.parsing import Fault, ReplyError
from nngen.llm.proposals.regions import REGIONS, find, present, splice
from nngen.llm.rewriters.mutations import GROUPS, mutate_region, redraw_region, skeleton
from nngen.types import Candidate


def test_an_assembled_file_has_every_region(parent: Candidate) -> None:
    assert present(parent.source) == tuple(REGIONS)


@pytest.mark.parametrize("region", REGIONS)
def test_outside_of_a_region_every_byte_stays(parent: Candidate, region: str) -> None:
    changed = mutate_region(find(parent.source, region), Random(0))
    assert changed is not None
    new = splice(parent.source, region, changed)
    assert ast.dump(ast.parse(find(new, region))) == ast.dump(ast.parse(changed))
    before, after = parent.source.splitlines(keepends=True), new.splitlines(keepends=True)
    head = next(number for number, (one, two) in enumerate(zip(before, after, strict=False)) if one != two)
    tail = next(
        number for number, pair in enumerate(zip(before[::-1], after[::-1], strict=False)) if pair[0] != pair[1]
    )
    node = _node(parent.source, region)
    assert head >= node.lineno - 1
    assert len(before) - tail <= (node.end_lineno or 0)


def _node(source: str, region: str) -> ast.FunctionDef | ast.ClassDef:
    body = ast.parse(source).body
    for name in REGIONS[region].path:
        found = next(item for item in body if isinstance(item, ast.FunctionDef | ast.ClassDef) and item.name == name)
        body = found.body
    return found


def test_code_shown_has_no_docstring_and_no_comment(parent: Candidate) -> None:
    for region in REGIONS:
        code = find(parent.source, region)
        assert '"""' not in code
        assert "#" not in code


@pytest.mark.parametrize(
    ("region", "code", "message"),
    [
        ("loss", "def other(weights):\n    return weights.sum()", "must be the function importance_loss"),
        ("loss", "import os\ndef importance_loss(weights):\n    return weights.sum()", "and nothing else"),
        ("loss", "def importance_loss(w):\n    return w.sum()", r"takes \(weights\), not \(w\)"),
        ("gate", "def Gate():\n    pass", "must be the class Gate"),
        ("engine", "x = 1", "no region is called 'engine'"),
    ],
)
def test_code_that_does_not_define_the_region_is_refused(
    parent: Candidate, region: str, code: str, message: str
) -> None:
    with pytest.raises(ReplyError, match=message) as caught:
        splice(parent.source, region, code)
    assert caught.value.fault is Fault.REGION


def test_a_file_without_regions() -> None:
    with pytest.raises(ReplyError, match="this file has no region gate"):
        find("x = 1", "gate")
    assert present("x = 1") == ()


@pytest.mark.parametrize("source", ["x = (", "a;" * 150_000, "x = " + "-" * 150_000 + "1", "'\ud800'"])
def test_a_file_that_cannot_be_parsed_has_no_regions(source: str) -> None:
    assert present(source) == ()
    with pytest.raises(ReplyError, match="cannot be parsed"):
        find(source, "loss")


@pytest.mark.parametrize("region", REGIONS)
def test_mutations_change_the_region_and_redraws_vary(parent: Candidate, region: str) -> None:
    code = find(parent.source, region)
    singles = {mutate_region(code, Random(seed)) for seed in range(50)}
    draws = {redraw_region(code, Random(seed)) for seed in range(50)}
    assert code not in singles
    assert len(singles) > 1
    assert len(draws) > 1
    for text in sorted(map(str, singles | draws))[:8]:
        splice(parent.source, region, text)


@pytest.mark.parametrize("region", REGIONS)
def test_a_skeleton_is_left_by_every_mutation_and_by_nothing_else(parent: Candidate, region: str) -> None:
    code = find(parent.source, region)
    for seed in range(20):
        assert skeleton(str(redraw_region(code, Random(seed)))) == skeleton(code)
    first, _, rest = code.partition(":\n")
    assert skeleton(f"{first}:\n    x = 3\n{rest}") != skeleton(code)


def test_code_without_a_site_is_left_alone() -> None:
    assert mutate_region("def f(x):\n    return x", Random(0)) is None
    assert redraw_region("def f(x):\n    return x", Random(0)) is None


def test_every_alternative_is_an_expression_and_stands_in_one_group() -> None:
    normal = [ast.unparse(ast.parse(text, mode="eval")) for group in GROUPS for text in group]
    assert len(normal) == len(set(normal))


def test_form_feeds_and_unicode_separators_do_not_count_as_lines(parent: Candidate) -> None:
    code = find(parent.source, "loss")
    source = f"# \x0c \u2028 \x1c\n{parent.source}"
    new = splice(source, "loss", code.replace("0.", "0.", 1).replace(":\n", ":\n    # \x0c\n", 1))
    assert ast.dump(ast.parse(find(new, "loss"))) == ast.dump(ast.parse(code))


def test_strings_over_several_lines_keep_their_text(parent: Candidate) -> None:
    code = find(parent.source, "mixing")
    head, _, body = code.partition("\n")
    text = f'{head}\n    note = """one\n  two\nthree"""\n{body}'
    new = splice(parent.source, "mixing", text)
    assert '"""one\n  two\nthree"""' in new
    assert ast.dump(ast.parse(find(new, "mixing"))) == ast.dump(ast.parse(text))


def test_code_around_the_region_is_left_out_and_decorators_stay(parent: Candidate) -> None:
    code = find(parent.source, "loss")
    new = splice(parent.source, "loss", f"# a comment\n\n@torch.compile\n{code}\n\n")
    assert find(new, "loss").startswith("@torch.compile\ndef importance_loss")
    assert "# a comment" not in new
