"""The file imports."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import ClassVar

from nngen.checks.context import CheckContext
from nngen.checks.guard import border
from nngen.checks.rule import Invalid
from nngen.checks.rules.sample_nets import net_source
from nngen.types import Outcome

__all__ = ["Import", "load_module"]

_NAME = "candidate"


class Import:
    """Refuses a file whose top level raises."""

    name: ClassVar[str] = "import"
    VALID: ClassVar[tuple[str, ...]] = (net_source(), "import os\nimport torchvision\n" + net_source())
    INVALID: ClassVar[tuple[Invalid, ...]] = (
        Invalid(source="import no_such_package\n", message="no_such_package", outcome=Outcome.IMPORT, line=1),
        Invalid(source="x = 1\ny = x / 0\n", message="ZeroDivisionError", outcome=Outcome.IMPORT, line=2),
        Invalid(source="x = (\n", message="never closed", outcome=Outcome.SYNTAX, line=1),
        Invalid(source="raise SystemExit(3)\n", message="sys.exit(3)", outcome=Outcome.CRASHED, line=1),
        Invalid(source="raise MemoryError\n", message="MemoryError", outcome=Outcome.MEMORY, line=1),
    )

    def check(self, bench: CheckContext) -> None:
        bench.module = load_module(bench.path)


def load_module(path: Path) -> ModuleType:
    """Import a candidate's file under the name ``candidate``.

    Raises:
        CheckFailed: If it does not parse (``syntax``) or raises (``import``).
    """
    spec = importlib.util.spec_from_file_location(_NAME, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Pickle, dataclasses and torch.jit look the module up by its name.
    sys.modules[_NAME] = module
    with border(Import.name, Outcome.IMPORT, path, "the file was imported"):
        spec.loader.exec_module(module)
    return module
