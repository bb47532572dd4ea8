"""Hyperparameters that a user asks for, and names of hyperparameters that a source spells out."""

from __future__ import annotations

import pytest

from nngen.errors import UsageError
from nngen.families.catalogue import make_family
from nngen.families.hyperparameters import best_hyperparameters, recorded, supported, with_hyperparameters
from nngen.types import Family, Hyperparameters, Record


def family(name: str, names: str, **values: float) -> Family:
    best = Record(model=name, dataset="cifar-10", epoch=1, accuracy=0.5, duration_s=1.0, hyperparameters=values)
    return make_family(name, f"def supported_hyperparameters():\n    return {names}\n", best)


POOL = (family("Wide", "{'lr', 'width', 'dropout'}", dropout=0.5), family("Deep", "{'lr', 'depth'}", depth=3))


def test_a_family_gets_the_values_that_its_source_names() -> None:
    values = {"width": 0, "dropout": 1.0, "depth": "x"}
    wide, deep = with_hyperparameters(POOL, values)
    assert (wide.asked, deep.asked) == ({"width": 0, "dropout": 1.0}, {"depth": "x"})
    assert (wide.name, wide.source, wide.best) == ("Wide", POOL[0].source, POOL[0].best)
    # In place of the record's.
    assert best_hyperparameters(wide) == {"dropout": 1.0, "lr": 0.01, "width": 0}
    assert recorded(deep) == {"depth": "x"}
    assert with_hyperparameters(iter(POOL), {}) == POOL


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr": 0.1}, "--prm lr: a mixture takes it from --lr"),
        ({"momentum": 0.1}, "--prm momentum: a mixture takes it from --momentum"),
        ({"batch": 2}, "--prm batch: a mixture takes it from --batch"),
        ({"epoch": 2}, "--prm epoch: a mixture takes it from --epochs"),
        ({"transform": "x"}, "--prm transform: a mixture takes it from --augment"),
        ({"widht": 1}, "no family of the pool has a hyperparameter 'widht': did you mean width?"),
        (
            {"width": 1, "zzzzz": 1},
            "no family of the pool has a hyperparameter 'zzzzz': there are depth, dropout, width",
        ),
        ({"dropout": 1.5}, "--prm dropout=1.5: dropout lies between 0.0 and 1.0"),
        ({"dropout": "high"}, "--prm dropout=high: dropout lies between 0.0 and 1.0"),
    ],
)
def test_values_that_no_family_takes_are_refused(values: Hyperparameters, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        with_hyperparameters(POOL, values)
    assert str(refused.value) == message


def test_a_pool_without_hyperparameters_of_its_own_says_so() -> None:
    with pytest.raises(UsageError, match=r"'width': there are none$"):
        with_hyperparameters([family("Plain", "{'lr', 'momentum'}")], {"width": 1})


def test_the_first_return_that_spells_names_out_counts() -> None:
    head = "def other():\n    return {'other'}\n\ndef supported_hyperparameters(x=0):\n"
    assert supported(
        f"{head}    if x:\n        return\n    return ()\n    return ['a', 'b']\n    return 'c'.split()\n"
    ) == {
        "a",
        "b",
    }
    assert supported(head + "    return set(frozenset(('a', 1.5, None, 'b')))\n") == {"a", "b"}
    for call in (
        "sorted({'a'})",
        "set(['a'], ['b'])",
        "x.set(['a'])",
        "'a'.split(sep='a')",
        "x.split()",
        "('a').join()",
    ):
        assert supported(f"{head}    return {call}\n") == {"lr", "momentum"}, call
