"""What every test may ask for: LEMUR's real families, and a quiet command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from nngen.cli import run
from nngen.lemur.families import load_families
from nngen.lemur.fetch import fetch
from nngen.lemur.source import Lemur, open_lemur
from nngen.types import Family


@dataclass(frozen=True)
class Result:
    """What a command left behind: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def wheel() -> Path:
    """LEMUR's real wheel, fetched once into the user's cache by our own code."""
    return fetch()


@pytest.fixture(scope="session")
def lemur(wheel: Path) -> Lemur:
    return open_lemur(wheel)


@pytest.fixture(scope="session")
def families(lemur: Lemur) -> dict[str, Family]:
    """LEMUR's 34 base families by name."""
    return load_families(lemur)


@pytest.fixture
def nngen(capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run one command in this process: ``nngen("families", "--json")``."""

    def call(*tokens: str | Path) -> Result:
        capfd.readouterr()
        code = run([str(token) for token in tokens])
        out, err = capfd.readouterr()
        return Result(code=code, out=out, err=err)

    return call
