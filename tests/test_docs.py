"""README and the Python page: every command and every block runs, in order, in one folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nngen

ROOT = Path(__file__).parent.parent
README, PYTHON = ROOT / "README.md", ROOT / "docs" / "python.md"


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a page in one language."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def run(command: list[str], place: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_block_of_the_readme_runs(tmp_path, wheel):
    found = blocks(README, "bash")
    assert len(found) >= 9
    for block in found:
        done = run(["bash", "-euo", "pipefail", "-c", block], tmp_path)
        assert done.returncode == 0, f"{block}\n{done.stderr}"
    assert (tmp_path / "report.html").stat().st_size > 10_000
    assert len(list((tmp_path / "generated" / "four").glob("*.py"))) == 4


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_python_page_runs_from_top_to_bottom(tmp_path, wheel):
    (tmp_path / "page.py").write_text("\n".join(blocks(PYTHON, "python")), encoding="utf-8")
    done = run([sys.executable, "page.py"], tmp_path)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "True valid" in done.stdout
    assert "did you mean" in done.stdout


def test_the_python_page_shows_every_public_name():
    shown = "\n".join(blocks(PYTHON, "python"))
    for name in nngen.__all__:
        assert name == "__version__" or re.search(rf"\b{name}\b", shown), f"{PYTHON.name} does not show {name}"


def test_each_public_name_is_the_one_of_its_module():
    for name in nngen.__all__:
        assert getattr(nngen, name) is not None
    assert set(nngen.__all__) <= set(dir(nngen))
    with pytest.raises(AttributeError, match="module 'nngen' has no attribute 'nothing'"):
        _ = nngen.nothing
