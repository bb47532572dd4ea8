"""The frame of the command line: fast, torch-free help; one line for every mistake."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from nngen.cli import _COMMANDS


def test_help_loads_no_torch():
    code = "import sys, nngen.cli; nngen.cli.run(['--help']); print('torch' in sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "False"
    assert "assemble" in done.stdout


def test_help_takes_under_0_4_seconds():
    """Of processor time: on a busy machine the clock on the wall counts other people's work."""

    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "nngen", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(5)) < 0.4


@pytest.mark.parametrize("command", sorted(_COMMANDS))
def test_every_command_explains_itself(nngen, command):
    result = nngen(command, "--help")
    assert result.code == 0
    assert result.out.startswith(f"Usage: nngen {command}")
    assert "Examples:" in result.out or "Commands" in result.out


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
def test_what_is_missing_or_too_much_is_named(nngen, tokens, line):
    result = nngen(*tokens)
    assert (result.code, result.out, result.err) == (2, "", f"nngen: {line}\n")
