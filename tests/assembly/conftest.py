"""Fixtures that assemble tiny families and import the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from assembly_toys import GOLDEN, INTERFACES, TINY, import_source, tiny_families

from nngen.assembly.assemble import Assembler
from nngen.plan import Plan
from nngen.types import Candidate, Family


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny() -> dict[str, Family]:
    return tiny_families()


@pytest.fixture(scope="session")
def assembler() -> Assembler:
    return Assembler()


@pytest.fixture
def mix(tiny: dict[str, Family], assembler: Assembler) -> Callable[..., Candidate]:
    """Assemble the tiny families: ``mix(gate=Gate(noise=0))``."""

    def assembled(experts: tuple[str, ...] = TINY, **parts: object) -> Candidate:
        plan = Plan(experts=experts, **parts)  # type: ignore[arg-type]
        return assembler.assemble(plan, [(tiny[name], INTERFACES[name]) for name in experts])

    return assembled


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], ModuleType]:
    return lambda source: import_source(source, tmp_path)


@pytest.fixture(scope="session")
def golden(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """Golden mixture, imported once, for tests that do not change it."""
    return import_source((GOLDEN / "hetero.py").read_text(), tmp_path_factory.mktemp("golden"))
