"""Start-up of the package and its command: fast, and without torch."""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys

import pytest

from nngen.cli import app, run

LIMIT_S = 0.4
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""Environment of a user: compiled modules are kept."""

TIMES_BARE = 40
"""On a machine where bare Python takes more than 0.01 s, the limit grows with it."""


def seconds(*arguments: str) -> float:
    """Return the least CPU time of five runs of a Python process; unlike wall time it excludes other processes."""

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], capture_output=True, check=True, env=ENVIRONMENT)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return min(once() for _ in range(5))


@pytest.mark.parametrize("arguments", [("-c", "import nngen"), ("-c", "import nngen.cli"), ("-m", "nngen", "--help")])
def test_it_starts_in_under_0_4_seconds(arguments: tuple[str, ...]) -> None:
    assert seconds(*arguments) < max(LIMIT_S, TIMES_BARE * seconds("-c", "pass"))


HEAVY = ("torch", "scipy", "sklearn", "transformers", "matplotlib", "plotly", "ray", "pandas")
EACH_HELP = f"""
import sys
from nngen.cli import app, run

def helps(app, path):
    for name in app:
        if not name.startswith("-"):
            yield from helps(app[name], (*path, name))
    yield path

for path in helps(app, ()):
    run([*path, "--help"])
    found = [name for name in {HEAVY} if name in sys.modules]
    if found:
        sys.exit(f"{{' '.join(path)}} --help loads {{found}}")
"""


def test_no_help_loads_a_heavy_package() -> None:
    done = subprocess.run([sys.executable, "-c", EACH_HELP], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: nngen") > 50


@pytest.mark.parametrize("command", ["evolve", "campaign run", "doctor"])
def test_a_help_with_arguments_assembled_once_is_that_of_cyclopts(command: str, capsys: pytest.CaptureFixture) -> None:
    tokens = [*command.split(), "--help"]
    assert run(tokens) == 0
    quick = capsys.readouterr().out
    app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    assert capsys.readouterr().out == quick
    assert gc.isenabled()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["campaign run", "evolve", "llm-propose", "train", "surrogate gates"])
def test_the_help_of_a_command_takes_under_0_5_seconds(command: str) -> None:
    assert seconds("-m", "nngen", *command.split(), "--help") < max(0.5, 60 * seconds("-c", "pass"))


@pytest.mark.parametrize(
    "statement", ["import nngen", "import nngen.cli", "from nngen.cli import run; run(['--help'])"]
)
def test_it_loads_no_heavy_package(statement: str) -> None:
    code = f"{statement}\nimport sys\nprint([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
