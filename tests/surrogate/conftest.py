"""Fixture of the evaluation script with made-up outputs and the plain loop over mixtures."""

import importlib.util
import sys
from pathlib import Path

import pytest

EVAL = Path(__file__).parents[2] / "eval"


@pytest.fixture(scope="session")
def script():
    """Return ``eval/whole_space.py`` as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EVAL)
        spec = importlib.util.spec_from_file_location("whole_space_script", EVAL / "whole_space.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules.pop("_page", None)
    return module
