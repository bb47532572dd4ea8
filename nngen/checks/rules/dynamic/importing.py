"""Rule ``import``: the file can be imported."""

from __future__ import annotations

from nngen.checks.candidate_net import load_module
from nngen.checks.context import CheckContext
from nngen.checks.rule import DynamicRule, Invalid
from nngen.checks.rules.sample_nets import net_source
from nngen.types import Outcome


class ImportRule(DynamicRule):
    """Refuses a file whose top level raises."""

    name = "import"
    order = 10
    VALID = (net_source(), "import os\nimport torchvision\n" + net_source())
    INVALID = (
        Invalid(source="import no_such_package\n", message="no_such_package", outcome=Outcome.IMPORT, line=1),
        Invalid(source="x = 1\ny = x / 0\n", message="ZeroDivisionError", outcome=Outcome.IMPORT, line=2),
        Invalid(source="x = (\n", message="never closed", outcome=Outcome.SYNTAX, line=1),
        Invalid(source="raise SystemExit(3)\n", message="sys.exit(3)", outcome=Outcome.CRASHED, line=1),
        Invalid(source="raise MemoryError\n", message="MemoryError", outcome=Outcome.MEMORY, line=1),
    )

    def check(self, context: CheckContext) -> None:
        context.module = load_module(context.path)
        context.imported()
