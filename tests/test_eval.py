"""Every evaluation script can be imported and describes itself with ``--help``; the shared page frame."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

EVAL = Path(__file__).parent.parent / "eval"
SCRIPTS = sorted(path.stem for path in EVAL.glob("*.py") if "__main__" in path.read_text())


@pytest.fixture(autouse=True)
def _on_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The folder on ``sys.path``, as for a script that runs from it; its modules are forgotten afterwards."""
    monkeypatch.syspath_prepend(EVAL)
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        if name in SCRIPTS or name == "_page":
            del sys.modules[name]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EVAL / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_describes_itself(name, capsys):
    with pytest.raises(SystemExit) as left:
        load(name).main(["--help"])
    assert left.value.code == 0
    help_text = capsys.readouterr().out
    assert help_text.startswith(f"usage: {name}.py")
    assert "--write" in help_text


def test_every_results_page_belongs_to_a_script():
    assert {path.stem for path in (EVAL / "results").iterdir()} <= set(SCRIPTS)


def test_the_page_states_the_whole_command_and_is_written_on_request(tmp_path, monkeypatch, capsys):
    page = load("_page")
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    evaluation = page.Evaluation("eval/claim.py", "A claim.")
    given = evaluation.arguments(
        ["--sides", "32", "64", "--work", "/home/someone/work", "--write"],
        seed=0,
        sides=([16], "pixels"),
        work=Path,
        base=str,
        fast=False,
    )
    assert (given.seed, given.sides, given.fast, given.base) == (0, [32, 64], False, None)
    table = page.table(("name", "count"), [("a", 1)], right=("count",))
    text = evaluation.page("A claim", "One run.", table, ["- first", "- second"], "")
    assert text == (
        "# A claim\n\n"
        f"`python eval/claim.py --seed 0 --sides 32 64 --work work --write`, {page.today()}. One run.\n\n"
        "| name | count |\n| --- | ---: |\n| a | 1 |\n\n- first\n- second\n"
    )
    assert evaluation.finish(text, good=False) == 1
    assert (tmp_path / "claim.md").read_text() == text == capsys.readouterr().out


def test_a_step_that_was_done_is_read_again(tmp_path):
    page = load("_page")
    calls = []
    for _ in range(2):
        assert page.kept(tmp_path / "step" / "one.json", lambda: calls.append(1) or [1, 2]) == [1, 2]
    assert len(calls) == 1
