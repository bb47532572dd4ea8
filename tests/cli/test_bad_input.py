"""Arguments, files of arguments and plans that make no sense: one clear line and exit code 2, never a traceback."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from fuzzing import fuzz
from hypothesis import given
from hypothesis import strategies as st

from nngen.archive import Archive
from nngen.assembly.plan_toml import from_toml, to_toml
from nngen.assembly.plan_validation import check_plan
from nngen.assembly.registries import LOSSES
from nngen.cli.options.engine import EngineOptions
from nngen.errors import PlanError, SomeFailedError
from nngen.testing.fakes import fake_campaign
from nngen.text import parse_toml

DEEP = "[" * 3000 + "]" * 3000
TEXTS = {
    "deep arrays": (f"a = {DEEP}", "nested more than 50 deep"),
    "deep tables": ("a = " + "{a = " * 3000 + "1" + "}" * 3000, "nested more than 50 deep"),
    "deep keys": (".".join("a" * 600) + " = 1", "nested more than 50 deep"),
    "many dots": (".".join("a" * 60_000) + " = 1", "more than 1000 dots"),
    "long number": (f"size = {'9' * 5000}", "whole number of more than 64 bits"),
    "long hexadecimal": (f"size = 0x{'f' * 5000}", "whole number of more than 64 bits"),
    "65 bits": (f"size = {2**64}", "whole number of more than 64 bits"),
    "long file": ("# " + "x" * 200_000, "longer than 128 KiB"),
    "not text": ("size = \udcff", "not UTF-8 text"),
    "not TOML": ("size = ", "not valid TOML"),
    "null bytes": ('dataset = "a\\u0000b"', "dataset holds a null byte"),
    "infinity": ("lr = inf", "lr must be a number above 0, not"),
    "not a number": ("lr = nan", "lr must be a number above 0, not"),
    "name": ("name = [1]", "name must be a text in quotes"),
    "long name": (f'name = "{"x" * 300}"\nsize = 1', "at most 200 characters"),
    "lone surrogate": ("sampler = '\\ud800'", ""),
}


def write(file: Path, text: str) -> Path:
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    return file


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """End ``campaign run`` where all arguments are read."""

    def settle(*_: object, **__: object) -> dict[str, Any]:
        raise SomeFailedError("all arguments were read")

    monkeypatch.setattr(EngineOptions, "settle", settle)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("case", [name for name in TEXTS if name not in ("long name", "lone surrogate")])
def test_a_file_of_arguments_that_makes_no_sense_is_one_line(nngen, settled, case):
    text, words = TEXTS[case]
    done = nngen("campaign", "run", write(Path("a.toml"), text))
    assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1)
    assert "a.toml" in done.err and words in done.err
    assert len(done.err) < 500


@pytest.mark.parametrize("case", TEXTS)
def test_a_plan_that_makes_no_sense_is_one_line(nngen, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    done = nngen("assemble", "--plan", write(Path("p.toml"), TEXTS[case][0]), "--out", "o")
    assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1)
    assert "p.toml" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["p.toml"]


def test_a_key_that_no_plan_has_is_named_with_the_nearest(nngen, tmp_path):
    experts = 'experts = ["ICNet", "ShuffleNet", "MobileNetV3", "SqueezeNet-1"]'
    for key, words in (("repeat", "did you mean repeats"), ("lr", "a plan has experts, kind,")):
        file = write(tmp_path / "p.toml", f"{experts}\n{key} = 1\n")
        done = nngen("assemble", "--plan", file, "--out", tmp_path / "o")
        assert (done.code, len(done.err.splitlines())) == (2, 1)
        assert f"unknown key {key}: {words}" in done.err and "p.toml" in done.err


def test_a_plan_without_experts_needs_them_on_the_command_line(nngen, tmp_path):
    file = write(tmp_path / "p.toml", "[recipe]\nmixup = 0.0\n")
    done = nngen("assemble", "--plan", file, "--out", tmp_path / "o")
    assert (done.code, done.out) == (2, "") and "p.toml names no experts: add them there" in done.err
    assert not (tmp_path / "o").exists()


def test_a_configuration_of_a_tuning_that_makes_no_sense_is_one_line(nngen, tmp_path):
    for text in (f"base = {DEEP}", f"epochs = {'9' * 5000}"):
        file = write(tmp_path / "t.toml", text)
        done = nngen("finetune", "--data", tmp_path, "--out", tmp_path / "o", "--config", file)
        assert done.code in (1, 2) and "t.toml" in done.err and len(done.err.splitlines()) == 1


@pytest.mark.parametrize("command", [("campaign", "run"), ("assemble", "--out", "o", "--plan"), ("coverage", ".")])
@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_a_file_that_never_ends_is_not_waited_for(nngen, settled, command, kind):
    if kind == "fifo":
        os.mkfifo("a.toml")
    else:
        Path("a.toml").symlink_to("/dev/zero")
    tokens = command if command[0] == "coverage" else (*command, "a.toml")
    done = nngen(*tokens)
    assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1)
    assert "a.toml" in done.err and ("not a regular file" in done.err or "is a link" in done.err)


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (("campaign", "run", "x", "--size", "9" * 5000), "--size must be a whole number"),
        (("campaign", "run", "x", "--seed", str(2**63)), "--seed must be a whole number below 2**63"),
        (("campaign", "run", "x", "--seed", hex(2**70)), "--seed must be a whole number below 2**63"),
        (("campaign", "run", "x", "--lr", "inf"), "--lr must be a number above 0, not"),
        (
            ("campaign", "run", "x", "--time-limit", "nan"),
            "--time-limit must be a number above 0 and up to 100,000,000",
        ),
        (("campaign", "run", "x", "--rungs", "1," + "9" * 5000), "--rungs takes whole numbers"),
        (("campaign", "run", "x", "--shape", f"3x{'9' * 5000}x3"), "is not a shape"),
        (("campaign", "run", "x", "--families", "a\udcff"), "--families is not UTF-8 text"),
        (("campaign", "run", "x", "--families", "A", "B", "C", "D"), "a list has commas: --families A,B,C,D"),
        (("sample", "--size", "1", "--include", "A", "B"), "a list has commas: --include A,B"),
        (("campaign", "rnu", "x"), "no command of campaign is called 'rnu': did you mean run"),
        (("campaign", "run", "x", "--shape", "32x32x3"), "did you mean 3x32x32?"),
        (("train", "a.py", "--shape", "32x32x3"), "did you mean 3x32x32?"),
        (("train", "a.py", "--epochs", "1.5"), "--epochs must be a whole number from 1 to 1,000,000, not '1.5'"),
        (("train", "a.py", "--batch", "31.5"), "--batch must be a whole number from 2 to 65,536, not '31.5'"),
        (("train", "a.py", "--batch", "1000000000"), "--batch must be a whole number from 2 to 65,536"),
        (("train", "a.py", "--lr", "-1"), "--lr must be a number above 0, not '-1'"),
        (("train", "a.py", "--threads", "-3"), "--threads must be a whole number from 1 to 1,024, not '-3'"),
        (("train", "a.py", "--momentum", "7"), "--momentum must be a number of at least 0 and below 1, not '7'"),
        (("train", "a.py", "--augment", "mirror"), "no augmentation is called 'mirror': there are none, flip"),
        (("train", "a.py", "--dataset", "cifar11"), "did you mean cifar-1"),
        (("check", "a.py", "--classes", "1"), "--classes must be a whole number from 2 to 65,536"),
        (("evolve", "x", "--judges", "1", "--rewriter", "random"), "--judges must be a whole number from 2"),
        (("leaderboard", "--top", "8.5"), "--top must be a whole number from 1 to 1,000,000,000, not '8.5'"),
        (("leaderboard", "x" * 10_000), "no campaign"),
        (("train", "a.py", "--prm", "dropout=nan"), "--prm takes numbers below 2**63"),
        (("train", "a.py", "--prm", f"dropout={'9' * 5000}"), "--prm takes numbers below 2**63"),
        (("train", "x" * 300 + ".py"), "no file or folder"),
        (("plans", "show", "x" * 10_000), "no preset is called"),
        (("check", "a.py", "--isolation", "sandbxo"), "unknown isolation 'sandbxo'"),
        (("campaign", "run", "\x1b[31mred\u202e\x07"), "cannot be a campaign's name"),
    ],
)
def test_an_argument_that_makes_no_sense_is_one_bounded_line(nngen, tmp_path, monkeypatch, tokens, words):
    monkeypatch.chdir(tmp_path)
    write(Path("a.py"), "x = 1")
    if tokens[0] == "leaderboard":
        Archive.open(tmp_path / "nngen.db").close()
    done = nngen(*tokens, *(("--size", "1") if tokens[-1].startswith("\x1b") else ()))
    assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1), done.err
    assert words in done.err
    assert len(done.err) < 4100 and done.err.rstrip("\n").isprintable()


@pytest.mark.parametrize("name", ["x" * 300 + ".db", "x" * 250 + ".db", "a/" * 3000 + "a.db", "b.db/b.db", "."])
@pytest.mark.parametrize("command", ["leaderboard", "campaign run t --size 1", "show abc", "campaign status one"])
def test_an_archive_whose_name_no_file_can_have_is_one_line(nngen, tmp_path, monkeypatch, name, command):
    monkeypatch.chdir(tmp_path)
    Path("b.db").write_text("")
    done = nngen(*command.split(), "--archive", name)
    assert done.code in (1, 2) and done.out == ""
    assert len(done.err.splitlines()) == 1 and done.err.startswith("nngen: ")


@pytest.mark.parametrize(
    "tokens",
    [
        ("assemble", "--families", "ICNet,AirNet,VGG,ResNet", "--out", "{}/o"),
        ("report", "one", "--out", "{}.html"),
        ("report", "one", "--figures", "{}"),
        ("coverage", "--sampler", "random", "--size", "2", "--pool", "9", "--out", "{}.html"),
        ("coverage", "{}"),
        ("plans", "cp", "moev7", "{}.toml"),
        ("campaign", "run", "{}.toml"),
        ("campaign", "run", "x", "--size", "1", "--data-root", "{}", "--dataset", "mnist"),
        ("families", "--families-from", "{}"),
        ("lemur", "fetch", "--from", "{}"),
        ("lemur", "import", "--from", "{}"),
        ("feedback", "build", "--out", "{}"),
        ("export", "one", "--out", "{}"),
        ("finetune", "--data", "{}", "--out", "o", "--base", "b"),
        ("finetune", "--config", "{}", "--data", "d", "--out", "o"),
        ("train", "a.py", "--dataset", "folder:{}"),
        ("predict-accuracy", "--plan", "{}"),
        ("llm-propose", "--rewriter", "{}.gguf"),
    ],
)
def test_a_name_of_300_characters_is_one_line_everywhere(nngen, tmp_path, monkeypatch, wheel, tokens):
    monkeypatch.chdir(tmp_path)
    write(Path("a.py"), "x = 1")
    with Archive.open(Path("nngen.db")) as archive:
        fake_campaign(archive).run()
    done = nngen(*(token.format("x" * 300) for token in tokens))
    assert done.code in (1, 2), done
    assert len([line for line in done.err.splitlines() if "isolation" not in line]) == 1, done.err


VALUES = st.recursive(
    st.one_of(
        st.integers(-(2**65), 2**65),
        st.floats(),
        st.booleans(),
        st.text(max_size=8),
        st.sampled_from(["A", "top-k", "hetero", "3x32x32", "a,b", ""]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text("abk_", min_size=1, max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


def toml(value: Any) -> str:
    """Write a value as TOML, also where TOML does not allow its number."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return '"' + "".join(f"\\U{ord(char):08x}" for char in value) + '"'
        case dict():
            return "{" + ", ".join(f"{toml(key)} = {toml(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case _:
            return str(value)


def document(table: dict[str, Any]) -> str:
    return "\n".join(f"{toml(key)} = {toml(value)}" for key, value in table.items())


ARGUMENTS = ["size", "families", "rungs", "lr", "shape", "dataset", "name", "skip_known", "archive", "seed", "engine"]
PARTS = st.dictionaries(
    st.one_of(
        st.sampled_from(["width", "noise", "routing", "network", "clip", "optimizer", *LOSSES]), st.text(max_size=3)
    ),
    VALUES,
    max_size=3,
)
PLANS = st.fixed_dictionaries(
    {},
    optional={
        "experts": st.one_of(VALUES, st.just(["A", "B", "C", "D"])),
        "kind": st.one_of(VALUES, st.sampled_from(["hetero", "homogeneous", "alexnet"])),
        "repeats": VALUES,
        "gate": st.one_of(VALUES, PARTS),
        "losses": st.one_of(VALUES, PARTS),
        "recipe": st.one_of(VALUES, PARTS),
        "other": VALUES,
    },
)


@pytest.mark.long
@fuzz(60)
@given(table=st.dictionaries(st.one_of(st.sampled_from(ARGUMENTS), st.text(max_size=4)), VALUES, max_size=4))
def test_any_file_of_arguments_is_read_or_refused_in_one_line(nngen, settled, table):
    done = nngen("campaign", "run", write(Path("a.toml"), document(table)))
    assert done.code in (2, SomeFailedError.exit_code), done.err
    assert done.out == "" and len(done.err.splitlines()) == 1 and done.err.startswith("nngen: ")


@fuzz(100)
@given(table=PLANS)
def test_any_plan_is_refused_or_written_and_read_again(table):
    try:
        plan = from_toml(document(table))
        check_plan(plan)
    except PlanError as error:
        assert str(error)
    else:
        assert from_toml(to_toml(plan)) == plan


@fuzz(100)
@given(text=st.one_of(st.text(max_size=60), st.text("[]{}=.\"'#\n ab1_-", max_size=60)))
def test_any_text_is_toml_or_refused_with_a_phrase(text):
    try:
        assert isinstance(parse_toml(text), dict)
    except ValueError as error:
        assert str(error).startswith(("it ", "one of "))
