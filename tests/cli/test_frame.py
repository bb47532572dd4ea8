"""Errors of the command line: one line per mistake, with a remedy."""

from __future__ import annotations

import pytest


def test_an_unknown_command_gets_the_nearest_names(nngen):
    result = nngen("asemble")
    assert result.code == 2
    assert result.err.startswith("nngen: no command is called 'asemble': did you mean assemble")


def test_an_unknown_option_is_a_usage_error(nngen):
    result = nngen("families", "--shap", "3x32x32")
    assert result.code == 2
    assert "--shap" in result.err
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("tokens", "line"),
    [
        (("assemble", "--size", "2"), "assemble needs --out: see nngen assemble --help"),
        (("assemble", "--out"), "assemble needs a value after --out: see nngen assemble --help"),
        (("campaign", "status"), "campaign status needs CAMPAIGN: see nngen campaign status --help"),
        (("sample", "--size", "1", "2", "3"), "sample: unexpected argument 2 3: see nngen sample --help"),
    ],
)
def test_missing_and_extra_arguments_are_named(nngen, tokens, line):
    result = nngen(*tokens)
    assert (result.code, result.out, result.err) == (2, "", f"nngen: {line}\n")


def test_a_mistyped_subcommand_is_compared_with_its_group(nngen):
    result = nngen("campaign", "rnu")
    assert (result.code, result.err) == (2, "nngen: no command of campaign is called 'rnu': did you mean run?\n")
