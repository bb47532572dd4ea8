"""Options of the commands that ask a rewriter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from nngen.llm.rewriters.base import Options, Rewriter, RewriterEntry
from nngen.llm.rewriters.factory import entry_of, open_rewriter, rewriter_help


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class RewriterOptions:
    """Rewriter that writes the proposals.

    Attributes:
        rewriter: Rewriter to ask.
        adapter: Folder of a tuned adapter, for a model in this process.
        model: Name of the model, for a server; the server's first by default.
    """

    rewriter: Annotated[str, Parameter(help=f"Rewriter to ask: {rewriter_help()}.")]
    adapter: Path | None = None
    model: str = ""

    @property
    def entry(self) -> RewriterEntry:
        """Entry of the registry for the rewriter."""
        return entry_of(self.rewriter)

    def open(self, device: str) -> Rewriter:
        """Open the rewriter; a model in this process runs on ``device``."""
        return open_rewriter(self.rewriter, Options(adapter=self.adapter, model=self.model, device=device))
