"""Options of the commands that ask a rewriter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from nngen.archive import CampaignRecord
from nngen.assembly.provenance import source_level
from nngen.campaign.budget import Budget
from nngen.cli.options import ArchiveOptions, Count, Flag, ShareOption
from nngen.cli.options.dry_run import foresee
from nngen.cli.options.engine import BudgetOptions, EngineOptions, TrialOptions, usable_pool
from nngen.cli.options.family import FamilyOptions, note_levels
from nngen.errors import UsageError
from nngen.llm.rewriters.base import Kind, Options, Rewriter
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
        model_share: Share of requests that the model of hybrid:MODEL answers, tpe the others; half by default.
    """

    rewriter: Annotated[str, Parameter(help=f"Rewriter to ask: {rewriter_help()}.")]
    adapter: Path | None = None
    model: str = ""
    max_reply_tokens: Count | None = None
    chat_template: Path | None = None
    quantize: Flag = False
    pool: Count | None = None
    model_share: ShareOption | None = None

    def open(self, device: str) -> Rewriter:
        """Open the rewriter; a model in this process runs on ``device``."""
        options = Options(
            adapter=self.adapter,
            model=self.model,
            device=device,
            quantize=self.quantize,
            chat_template=self.template,
            model_share=self.model_share,
        )
        return open_rewriter(self.rewriter, options)

    @property
    def template(self) -> str:
        """Name of the file with the chat template; "" where none was typed."""
        return str(self.chat_template or "")


def read_kinds(names: Sequence[str] | None, rewriter: str, isolation: str) -> tuple[Kind, ...]:
    """Read kinds of proposals, and refuse code where it cannot be run, before a model is loaded.

    Raises:
        UsageError: If a kind is unknown, or code would be written and bubblewrap is missing.
    """
    from nngen.llm.proposals.requests import require_sandbox

    for name in names or ():
        if name not in list(Kind):
            raise UsageError(f"no kind of proposal is called {name!r}: choose {', '.join(Kind)}")
    kinds = tuple(map(Kind, names or ()))
    for kind in kinds:
        require_sandbox(rewriter, kind, isolation)
    if set(kinds) - {Kind.PLAN}:
        note_levels([source_level("", isolation)], "proposals")  # code that a rewriter writes
    return kinds


def foresee_proposals(
    trials: int,
    name: str,
    options: TrialOptions,
    *,
    machines: EngineOptions,
    selection: FamilyOptions,
    budget: BudgetOptions,
    output: ArchiveOptions,
    table: Path | None = None,
) -> None:
    """Print the estimate of so many trainings of mixtures that are not proposed yet."""
    from nngen.campaign.estimate import Work

    typed = machines.settle(options, selection, table=table)
    with (
        output.peek() as archive,
        machines.session(name, None, typed, usable_pool(selection)) as (spec, inputs, engine),
    ):
        foresee(
            CampaignRecord(spec=spec, pool=inputs.fingerprints, data_fingerprint=inputs.dataset.fingerprint),
            [Work(experts=(), epochs=spec.epochs)] * trials,
            archive=archive,
            inputs=inputs,
            engine=engine,
            budget=budget.change(Budget()),
            isolation=machines.isolation,
            output=output,
            note="every proposal is counted as valid and new; the time of the rewriter is not counted",
        )
