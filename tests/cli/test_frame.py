"""The frame of the command line: fast, torch-free help; one line for every mistake."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from nngen.cli import _COMMANDS


def test_help_loads_no_torch():
    code = "import sys, nngen.cli; nngen.cli.run(['--help']); print('torch' in sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "False"
    assert "assemble" in done.stdout


def test_help_takes_under_half_a_second():
    def seconds() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "nngen", "--help"], capture_output=True, check=True)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) < 0.5  # the others waited for somebody else


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
