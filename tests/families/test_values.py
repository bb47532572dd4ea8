"""Values for hyperparameters of families, names of families, and similarities, without LEMUR."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from nngen.errors import FamilyError
from nngen.families.catalogue import choose, is_base, make_family
from nngen.families.hyperparameters import DEFAULTS, best_hyperparameters, complete, recorded, supported
from nngen.families.near_duplicates import (
    group_sketches,
    near_twins,
    similarity,
    sketch_text,
    tree_shingles,
    twin_families,
    without_near_twins,
)
from nngen.types import Family, Record

FUNCTION = "def supported_hyperparameters():\n    return "


def best(accuracy: float, **values: object) -> Record:
    return Record(
        model="A",
        dataset="cifar-10",
        epoch=1,
        accuracy=accuracy,
        duration_s=1.0,
        hyperparameters=values,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("lr", [1e-9, 0.1, 10.0, 3], [0, 1e-10, 10.5, -1, math.nan, math.inf, "0.1", True]),
        ("momentum", [0.0, 1.0], [-0.1, 1.1]),
        ("dropout", [0.0, 1.0], [-0.1, 1.1]),
        ("batch", [1, 2**20], [0, 2**20 + 1]),
        ("epoch", [1, 10**6], [0, 10**6 + 1]),
        ("other", [True, -7, 0.5, "x" * 100], [math.nan, math.inf, "x" * 101, "a\nb", None, [1]]),
    ],
)
def test_recorded_values_of_an_impossible_type_or_range_are_not_used(
    name: str, right: list[object], wrong: list[object]
) -> None:
    for values, kept in ((right, True), (wrong, False)):
        for value in values:
            found = recorded(make_family("A", "", best(0.5, **{name: value})))
            assert (name in found) is kept, value
    assert recorded(make_family("A", "")) == {}


def test_each_name_has_a_value() -> None:
    assert DEFAULTS == {"lr": 0.01, "momentum": 0.9, "dropout": 0.2}
    assert complete({"x", "lr", "dropout"}, {"lr": 0.5, "z": 1}) == {"dropout": 0.2, "lr": 0.5, "x": 0.1}
    family = make_family("A", FUNCTION + "{'lr', 'width'}\n", best(0.5, lr=0.3, momentum=0.1))
    assert best_hyperparameters(family) == {"lr": 0.3, "width": 0.1}
    assert best_hyperparameters(family, ["momentum"]) == {"momentum": 0.1}


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("{'lr', 'a'}", {"lr", "a"}),
        ("['a', 3]", {"a"}),
        ("('a',)", {"a"}),
        ("set(['a'])", {"a"}),
        ("frozenset({'a', 'b'})", {"a", "b"}),
        ("'a b'.split()", {"a", "b"}),
        ("'a,b'.split(',')", {"lr", "momentum"}),
        ("list(['a'])", {"lr", "momentum"}),
        ("set()", {"lr", "momentum"}),
        ("set(['a'], x=1)", {"lr", "momentum"}),
        ("'a'.upper()", {"lr", "momentum"}),
        ("NAMES", {"lr", "momentum"}),
    ],
)
def test_names_are_read_where_they_are_spelled_out(value: str, names: set[str]) -> None:
    assert supported(f"{FUNCTION}{value}\n") == names


def test_names_of_sources_that_have_none() -> None:
    fallback = {"lr", "momentum"}
    for source in ("x = (", "x = 1\n", "class A:\n    def supported_hyperparameters(): return {'a'}\n"):
        assert supported(source) == fallback


def test_base_families_are_told_by_their_names() -> None:
    names = {"AirNet": True, "airnet": False, "": False, "Air-0123abcd": False, "Air-0123": True, "MoE4-A": False}
    assert {name: is_base(name) for name in names} == names


def test_families_are_chosen_in_the_order_given() -> None:
    known = {name: make_family(name, "x = 1\n") for name in ("Alpha", "Beta", "Gamma")}
    assert [one.name for one in choose(known, ["Gamma", "Alpha"])] == ["Gamma", "Alpha"]
    with pytest.raises(FamilyError, match="no family is called 'Alpa': did you mean Alpha"):
        choose(known, ["Alpa"])
    with pytest.raises(FamilyError, match="family Beta is named twice"):
        choose(known, ["Beta", "Beta"])


CALLS = "\n".join(f"call_{number}()" for number in range(40))


def families(**sources: str) -> Mapping[str, Family]:
    return {name: make_family(name, source) for name, source in sources.items()}


def test_similarity_is_the_share_of_common_shingles() -> None:
    assert similarity(frozenset(), frozenset()) == 0
    one, other = frozenset({("a",), ("b",), ("c",)}), frozenset({("b",), ("c",), ("d",)})
    assert similarity(one, other) == 0.5
    assert similarity(one, one) == 1


def test_renamed_variables_are_the_same_tree_and_other_calls_are_not() -> None:
    one = "total = 0\nfor item in values:\n    total = total + item\nprint(total)\n"
    assert tree_shingles(one) == tree_shingles(one.replace("total", "t").replace("item", "i"))
    assert tree_shingles(one) != tree_shingles(one.replace("values", "others"))  # it is not bound here
    assert tree_shingles("a = 1\nb = a\n") != tree_shingles("a = 1\nb = b\n")
    for changed in ("x.a", "x.b", "f(a=1)", "f(b=1)", "1", "2", "lambda a: 0", "lambda b: 0"):
        others = {text: tree_shingles(text) for text in ("x.a", "x.b", "f(a=1)", "f(b=1)", "1", "2", "lambda a: 0")}
        assert [text for text, found in others.items() if found == tree_shingles(changed)] in ([changed], [])


def test_the_first_by_name_leads_its_twins_and_the_best_stays() -> None:
    twin, broken = CALLS + "  # the same\n", "def ("
    made = families(B=CALLS, A=twin, C="other = 1\n", D=broken, E=broken)
    assert twin_families({name: one.source for name, one in made.items()}) == {
        "A": "A",
        "B": "A",
        "C": "C",
        "D": "D",
        "E": "E",
    }
    assert near_twins(made.values()) == {"A": ("B",), "B": ("A",)}
    assert without_near_twins(made.values()) == (("A", "C", "D", "E"), {"B": "A"})
    better = replace(made["B"], best=best(0.9))
    assert without_near_twins([made["A"], better, made["C"]]) == (("B", "C"), {"A": "B"})


def test_sketches_estimate_the_share_of_common_runs() -> None:
    text = [f"word{number}" for number in range(400)]
    one = sketch_text(" ".join(text))
    assert one.shape == (128,)
    assert np.array_equal(one, sketch_text("\n".join(text)))
    near = sketch_text(" ".join([*text[:395], *("x" * number for number in range(5))]))
    far = sketch_text(" ".join(reversed(text)))
    assert np.mean(one == near) > 0.9
    assert np.mean(one == far) < 0.1
    assert group_sketches({"a": one, "b": near, "c": far}) == (("a", "b"),)
    assert len(sketch_text("one two")) == 128
