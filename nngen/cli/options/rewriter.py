"""Options of the commands that ask a rewriter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from nngen.cli.options import Count, Flag
from nngen.llm.rewriters.base import Options, Rewriter
from nngen.llm.rewriters.factory import open_rewriter, rewriter_help


@Parameter(name="*", group="Rewriter")
@dataclass(frozen=True, slots=True, kw_only=True)
class RewriterOptions:
    """Rewriter that writes the proposals.

    Attributes:
        rewriter: Rewriter to ask.
        adapter: Folder of a tuned adapter, for a model in this process.
        model: Name of the model, for a server; by default the first that the server lists and that answers chats.
        max_reply_tokens: Longest reply; by default 512 tokens for a plan or a region and 24,000 for a file, and
            more for a model in a server that reasons before it answers.
        chat_template: File with a Jinja chat template, for a model in this process that has none.
        quantize: Load a model in this process in 4 bits, as finetune --quantize does (CUDA only).
        pool: Plans to draft in each turn; of the new ones a ranker fitted to the archive picks the proposals. There are
            up to four turns, until as many proposals as wanted are new.
    """

    rewriter: Annotated[str, Parameter(help=f"Rewriter to ask: {rewriter_help()}.")]
    adapter: Path | None = None
    model: str = ""
    max_reply_tokens: Count | None = None
    chat_template: Path | None = None
    quantize: Flag = False
    pool: Count | None = None

    def open(self, device: str) -> Rewriter:
        """Open the rewriter; a model in this process runs on ``device``."""
        options = Options(
            adapter=self.adapter,
            model=self.model,
            device=device,
            quantize=self.quantize,
            chat_template=self.template,
        )
        return open_rewriter(self.rewriter, options)

    @property
    def template(self) -> str:
        """Name of the file with the chat template; "" where none was typed."""
        return str(self.chat_template or "")
