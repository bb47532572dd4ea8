from __future__ import annotations

import keyword

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nngen.assembly.naming import Style, assign_names, class_prefix, style_of


@pytest.mark.parametrize(
    ("family", "prefix"),
    [
        ("DenseNet", "DenseNet"),
        ("BayesianNet-1", "BayesianNet1"),
        ("a-b_c", "ABC"),
        ("3Net", "Family3Net"),
        ("é", "Family"),
    ],
)
def test_a_prefix_is_the_family_s_name_as_an_identifier(family: str, prefix: str) -> None:
    assert class_prefix(family) == prefix


@pytest.mark.parametrize(
    ("name", "style", "new"),
    [
        ("_DenseLayer", Style.CLASS, "DenseNetDenseLayer"),
        ("Net", Style.CLASS, "DenseNetNet"),
        ("DenseNetBlock", Style.CLASS, "DenseNetBlock"),
        ("conv_block", Style.CLASS, "DenseNetConvBlock"),
        ("channel_shuffle", Style.FUNCTION, "densenet_channel_shuffle"),
        ("Conv3x3", Style.FUNCTION, "densenet_conv3x3"),
        ("makeLayer", Style.FUNCTION, "densenet_make_layer"),
        ("_BN_MOMENTUM", Style.CONSTANT, "DENSENET_BN_MOMENTUM"),
        ("cfgs", Style.CONSTANT, "DENSENET_CFGS"),
        ("_", Style.CONSTANT, "DENSENET_X"),
    ],
)
def test_names_are_spelled_as_their_kind_asks_for(name: str, style: Style, new: str) -> None:
    assert assign_names("DenseNet", {name: style}, {name}) == {name: new}


@pytest.mark.parametrize(
    ("name", "style"),
    [
        ("Block", Style.CLASS),
        ("MLP", Style.CONSTANT),
        ("BN_EPS", Style.CONSTANT),
        ("relu", Style.FUNCTION),
        ("F", Style.CLASS),
    ],
)
def test_kinds_are_guessed_from_spelling(name: str, style: Style) -> None:
    assert style_of(name) is style


identifiers = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True).filter(
    lambda name: not keyword.iskeyword(name)
)


@given(st.dictionaries(identifiers, st.sampled_from(Style), max_size=12), st.sets(identifiers, max_size=12))
def test_new_names_are_apart_from_each_other_and_from_every_local(styles: dict[str, Style], local: set[str]) -> None:
    used = local | styles.keys()
    names = assign_names("Toy", styles, used)
    assert names.keys() == styles.keys()
    assert len(set(names.values())) == len(names)
    for old, new in names.items():
        assert new.isidentifier()
        assert new.lower().startswith("toy")
        assert new == old or new not in used


@given(st.dictionaries(identifiers, st.sampled_from(Style), max_size=8), st.randoms())
def test_the_order_of_private_names_alone_does_not_matter(styles: dict[str, Style], rng: object) -> None:
    assert assign_names("Toy", styles, styles.keys()) == assign_names("Toy", dict(styles), set(styles))
