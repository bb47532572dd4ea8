"""Start-up of the package and its command: fast, and without torch."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

LIMIT_S = 0.4
TIMES_BARE = 40
"""On a machine where bare Python takes more than 0.01 s, the limit grows with it."""


def seconds(*arguments: str) -> float:
    """Return the least CPU time of five runs of a Python process; unlike wall time it excludes other processes."""

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return min(once() for _ in range(5))


@pytest.mark.parametrize("arguments", [("-c", "import nngen"), ("-c", "import nngen.cli"), ("-m", "nngen", "--help")])
def test_it_starts_in_under_0_4_seconds(arguments: tuple[str, ...]) -> None:
    assert seconds(*arguments) < max(LIMIT_S, TIMES_BARE * seconds("-c", "pass"))


@pytest.mark.parametrize(
    "statement", ["import nngen", "import nngen.cli", "from nngen.cli import run; run(['--help'])"]
)
def test_it_loads_no_heavy_package(statement: str) -> None:
    heavy = ("torch", "sklearn", "transformers", "matplotlib", "plotly", "ray", "pandas")
    code = f"{statement}\nimport sys\nprint([name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
