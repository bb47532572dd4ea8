"""Options of commands that ask a rewriter for mixtures, and the families that it chooses from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from nngen.campaign.protocols import CampaignInputs
from nngen.campaign.setup import prepare_inputs
from nngen.campaign_spec import CampaignSpec
from nngen.cli.engine_options import Prepare
from nngen.cli.family_options import FamilyOptions
from nngen.datasets import Dataset
from nngen.lemur.source import open_lemur
from nngen.llm.rewriters.base import Rewriter, RewriterEntry
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
        """Open the rewriter; a model in this process runs on ``device``.

        Raises:
            RewriterError: If it cannot be opened.
            MissingExtraError: If packages that it needs are not installed.
        """
        return open_rewriter(self.rewriter, adapter=self.adapter, model=self.model, device=device)


def usable_pool(selection: FamilyOptions) -> Prepare:
    """Return the preparation of a campaign whose candidates are proposed: its usable families."""

    def prepare(spec: CampaignSpec, dataset: Dataset, /, *, progress: Callable[[int, int], None]) -> CampaignInputs:
        return prepare_inputs(
            dataset,
            spec.shape,
            spec.families,
            lemur=open_lemur(),
            families_from=selection.families_from,
            progress=progress,
        )

    return prepare
