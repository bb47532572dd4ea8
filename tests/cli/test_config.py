"""Values of options from ``nngen.toml`` and the environment, and the commands that show and write them."""

import json

import pytest

from nngen.cli import command_app
from nngen.cli.config import PROJECT


@pytest.fixture
def asked(nngen, monkeypatch, tmp_path):
    """Return the sizes and seeds of samples in a folder with the given file."""
    monkeypatch.chdir(tmp_path)

    def run(text, *more):
        PROJECT.write_text(text)
        result = nngen("sample", "--pool", "9", "--json", *more)
        assert result.code == 0, result.err
        return len(json.loads(result.out))

    return run


def test_the_command_line_comes_before_the_environment_and_that_before_the_file(asked, monkeypatch):
    assert asked("[sample]\nsize = 3\n") == 3
    monkeypatch.setenv("NNGEN_SAMPLE_SIZE", "4")
    assert asked("[sample]\nsize = 3\n") == 4
    assert asked("[sample]\nsize = 3\n", "--size", "5") == 5


def test_a_file_of_one_call_comes_before_the_environment(nngen, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    PROJECT.write_text("[campaign.run]\nepochs = 0\n")
    monkeypatch.setenv("NNGEN_CAMPAIGN_RUN_EPOCHS", "0")
    (tmp_path / "own.toml").write_text("epochs = -1\n")
    assert "own.toml: epochs must be" in nngen("campaign", "run", "own.toml", "--size", "1").err
    assert "nngen: NNGEN_CAMPAIGN_RUN_EPOCHS must be" in nngen("campaign", "run", "own", "--size", "1").err
    monkeypatch.delenv("NNGEN_CAMPAIGN_RUN_EPOCHS")
    assert "nngen.toml: epochs must be" in nngen("campaign", "run", "own", "--size", "1").err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[sample]\nsiz = 3\n", "nngen.toml: unknown key siz: did you mean size?"),
        ("[sampel]\nsize = 3\n", "no command is called 'sampel'; did you mean sample"),
        ("size = 3\n", "no command is called 'size'"),
        ("sample = 3\n", "nngen.toml: write a table [sample] of options"),
        ("[sample]\njson = true\n", "nngen.toml: unknown key json"),
        ("[sample\n", "cannot read nngen.toml"),
        ('[sample]\nsize = "many"\n', "nngen.toml: size must be"),
    ],
)
def test_a_file_that_cannot_be_used(text, words, nngen, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    PROJECT.write_text(text)
    result = nngen("sample", "--pool", "9")
    assert result.code == 2
    assert words in result.err
    assert result.err.count("\n") == 1


def test_a_new_file_names_the_options_that_exist_and_sets_none(nngen, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert nngen("config", "init").code == 0
    text = PROJECT.read_text()
    keys = {line[1:].partition(" =")[0] for line in text.splitlines() if line.startswith("#") and line[1] != " "}
    names = {name for command in ("campaign run", "train") for name in flags(command)}
    assert names <= keys
    assert "sets nothing" in nngen("config", "show").err
    assert nngen("config", "init").code == 2
    assert PROJECT.read_text() == text
    # Each commented line is valid TOML where it has a default.
    PROJECT.write_text(text.replace("#seed = 0", "seed = 0"))
    assert {"option": "assemble --seed", "value": 0, "source": "nngen.toml"} in json.loads(
        nngen("config", "show", "--json").out
    )


def flags(command):
    collection = command_app(command).assemble_argument_collection()
    names = {argument.name[2:] for argument in collection if argument.name.startswith("--")}
    return names - {"json", "quiet", "verbose", "config"}


def test_the_environment_is_shown_without_keys(nngen, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NNGEN_API_KEY", "secret")
    monkeypatch.setenv("NNGEN_TRAIN_BATCH", "32")
    shown = nngen("config", "show", "--json").out
    assert {"option": "NNGEN_TRAIN_BATCH", "value": "32", "source": "environment"} in json.loads(shown)
    assert "secret" not in shown
