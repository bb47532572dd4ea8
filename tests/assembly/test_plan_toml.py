"""Plans as TOML."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from fuzzing import fuzz
from hypothesis import given
from hypothesis import strategies as st

from nngen.assembly.plan_toml import (
    find_plan,
    from_toml,
    plan_of,
    preset,
    preset_file,
    preset_names,
    preset_purpose,
    read_plan,
    to_toml,
)
from nngen.assembly.plan_validation import check_plan
from nngen.errors import PlanError, UsageError
from nngen.plan import Gate, Losses, Plan, Recipe, changes

numbers = st.floats(min_value=0, max_value=1e6, allow_nan=False)
plans = st.builds(
    Plan,
    experts=st.lists(st.text(max_size=12), max_size=6).map(tuple),
    gate=st.builds(Gate, width=st.integers(1, 512), depth=st.integers(1, 8), temperature=numbers, noise=numbers),
    losses=st.builds(Losses, label_smoothing=numbers, balance=numbers),
    recipe=st.builds(Recipe, gate_rate=numbers, weight_decay=numbers, mixup=numbers, warmup=numbers, clip=numbers),
    rates=st.lists(st.tuples(st.text(max_size=9), numbers), max_size=3).map(tuple),
)


@given(plans)
def test_any_plan_reads_back(plan: Plan) -> None:
    assert from_toml(to_toml(plan)) == plan


def test_equal_plans_are_written_alike() -> None:
    assert to_toml(Plan(experts=("A",), gate=Gate(temperature=1))) == to_toml(Plan(experts=("A",)))


def test_rates_are_those_of_the_experts() -> None:
    text = '[rates]\nICNet = 1\n"a.b" = 0.1\nAirNext = 3\n'
    plan = from_toml(f"experts = []\n{text}")
    assert plan.rates == (("AirNext", 3), ("a.b", 0.1))
    assert replace(plan, experts=("ICNet", "a.b")).rates == (("a.b", 0.1),)
    assert to_toml(plan).endswith('\n\n[rates]\nAirNext = 3.0\n"a.b" = 0.1')
    with pytest.raises(PlanError, match="rates names AirNext, which is not among the experts"):
        from_toml(f'experts = ["ICNet", "a.b"]\n{text}')
    assert changes(Plan(experts=("a.b",)), replace(plan, experts=("a.b",))) == {"rates.a.b": (1.0, 0.1)}


def test_missing_fields_take_their_defaults() -> None:
    assert from_toml('experts = ["A", "B"]') == Plan(experts=("A", "B"))


@pytest.mark.parametrize("text", ["experts = [", "kind = 'hetero'", "experts = ['A']\n[gate]\nwidht = 3\n"])
def test_invalid_plans_are_refused(text: str) -> None:
    with pytest.raises(PlanError, match="not a plan"):
        from_toml(text)


@pytest.mark.parametrize("source", ["x = 1\n", '"""A module."""\n', "def f(:\n", ""])
def test_a_source_without_a_plan_has_none(source: str) -> None:
    assert plan_of(source) is None


def test_only_regular_files_of_bounded_length_are_read_as_plans(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "long").write_text("# " + "x" * 2**20)
    (tmp_path / "latin").write_bytes(b"experts = ['\xe9']")
    for name, reason in {
        "fifo": "not a regular file",
        "long": "longer than 128 KiB",
        "latin": "not UTF-8 text",
        "missing": "No such file",
        "n" * 300: "File name too long",
        "null\0byte": "a name with a null byte",
    }.items():
        with pytest.raises(PlanError, match=reason):
            read_plan(tmp_path / name)
    with pytest.raises(PlanError, match="not a regular file"):
        read_plan(Path("/dev/zero"))


@pytest.mark.parametrize(
    "text",
    [
        "experts = " + "[" * 3_000 + "]" * 3_000,
        "experts = ['A', 'B']\n[gate]\nwidth = " + "9" * 5_000,
        "experts = ['A', 'B']\ngate = 3",
        "experts = [['A'], ['B']]",
        "experts = ['A', 'B']\nkind = []",
        "experts = ['A', 'B']\n[losses]\nbalance = 1\n'' = 1",
        "experts = ['A', 'B']\nrates = 3",
        "experts = ['A', 'B']\n[rates]\nC = 0.1",
    ],
)
def test_plans_of_any_shape_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(PlanError) as refused:
        from_toml(text)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 400


tree = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from(["width", "k", "network", "balance", "z", "ema", "x"])
parts = st.fixed_dictionaries(
    {"experts": tree | st.lists(st.sampled_from(["A", "Dense", "ICNet"]), max_size=4)},
    optional={"kind": tree | st.sampled_from(["hetero", "homogeneous"])}
    | {part: tree | st.dictionaries(fields, tree, max_size=3) for part in ("gate", "losses", "recipe")}
    | {"rates": tree | st.dictionaries(st.sampled_from(["A", "ICNet"]), tree | st.floats(0, 9), max_size=2)},
)


@fuzz(100)
@given(parts)
def test_any_data_is_a_plan_or_is_refused(data: dict[str, object]) -> None:
    try:
        plan = Plan.from_dict(data)
        check_plan(plan)
    except UsageError:
        return
    assert from_toml(to_toml(plan)) == plan


# Presets

NAMES = ("moe-hetero4", "moev7", "moev9-alexnetv3", "single")


def test_presets_are_found_by_name_and_described_by_their_first_line() -> None:
    assert preset_names() == NAMES
    for name in NAMES:
        file = preset_file(name)
        assert (file.parent.name, file.name) == ("plans", f"{name}.toml")
        assert file.read_text().startswith(f"# {preset_purpose(name)}\n")
        assert preset(name) == find_plan(name) == read_plan(file)
    assert preset_purpose("single").startswith("One family alone, trained with the recipe of mixtures")
    assert preset("single").experts == ("ResNet",)
    assert preset("moev7").experts == ("Dense",) * 8


@pytest.mark.parametrize(("name", "hint"), [("moev8", "did you mean moev7? there"), ("qqqq", "there")])
def test_an_unknown_preset_is_refused_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(PlanError) as refused:
        preset(name)
    assert str(refused.value) == f"no preset is called '{name}': {hint} are {', '.join(NAMES)}"


def test_a_file_of_a_presets_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text('experts = ["A", "B"]\n')
    assert find_plan("mine.toml") == Plan(experts=("A", "B"))
    (tmp_path / "moev7").write_text('experts = ["C", "D"]\n')
    assert find_plan("moev7") == Plan(experts=("C", "D"))
    assert find_plan("single") == preset("single")
    with pytest.raises(PlanError) as refused:
        find_plan("moev8")
    reason = "No such file or directory; nngen plans ls names the presets"
    assert str(refused.value) == f"cannot read the plan moev8: {reason}"


def test_a_file_may_leave_out_the_experts_and_holds_no_other_keys(tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text("[gate]\nwidth = 64\n")
    assert read_plan(file) == Plan(experts=(), gate=Gate(width=64))
    known = "experts, kind, gate, losses, recipe, repeats and rates"
    for text, reason in (
        ("expert = []\n", "unknown key expert: did you mean experts or repeats or recipe?"),
        ("qqqq = 1\n", f"unknown key qqqq: a plan has {known}"),
        ("zzzz = 1\nqqqq = 1\n", f"unknown key qqqq: a plan has {known}"),
        ("[losses]\nbalence = 1\n", "no loss is called 'balence': did you mean balance?"),
    ):
        file.write_text(text)
        with pytest.raises(PlanError) as refused:
            read_plan(file)
        assert str(refused.value) == f"{file}: {reason}"


def test_values_are_written_as_toml_has_them() -> None:
    plan = Plan(
        experts=('a "b" \x7f', "ü"), gate=Gate(width=8, noise=0, learned_noise=True), recipe=Recipe(frozen=True)
    )
    lines = to_toml(plan).splitlines()
    assert lines[0] == 'experts = ["a \\"b\\" \\u007f", "ü"]'
    for line in ("width = 8", "noise = 0.0", "learned_noise = true", "frozen = true", "label_smoothing = 0.1"):
        assert lines.count(line) == 1
    assert lines[1:3] == ['kind = "hetero"', ""] and lines.count("") == 3
    repeated = Plan(experts=("A", "A"), repeats=True)
    assert "repeats = true" in to_toml(repeated) and from_toml(to_toml(repeated)) == repeated


def test_what_toml_has_no_word_for_is_refused() -> None:
    with pytest.raises(PlanError, match="None cannot be written in a plan"):
        to_toml(Plan(experts=(None,)))  # type: ignore[arg-type]
