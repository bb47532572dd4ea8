"""Options of commands that ask a rewriter for mixtures and run trials of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from nngen.campaign.protocols import CampaignInputs
from nngen.campaign.setup import prepare_inputs
from nngen.campaign_spec import CampaignSpec
from nngen.cli.engine_options import EngineOptions, TrialOptions, settled_spec
from nngen.cli.family_options import FamilyOptions
from nngen.cli.progress import progress_bar
from nngen.lemur.source import open_lemur
from nngen.llm.rewriters.base import Rewriter, RewriterEntry
from nngen.llm.rewriters.factory import entry_of, open_rewriter, rewriter_help
from nngen.training.engine import Engine


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


@contextmanager
def trial_setup(
    name: str,
    stored: CampaignSpec | None,
    options: TrialOptions,
    selection: FamilyOptions,
    machines: EngineOptions,
    data_root: Path | None,
) -> Iterator[tuple[CampaignSpec, CampaignInputs, Engine]]:
    """Settle the settings of trials, prepare their inputs and open their engine.

    Args:
        name: Name of the campaign or the loop.
        stored: Settings that it began with; None for one that begins.
        options: Settings that were typed.
        selection: Pool of families.
        machines: Machines that the trials run on.
        data_root: Folder of torchvision's files.

    Yields:
        The settings, with a size of 1, the inputs and the engine.

    Raises:
        UsageError: If it began with other settings, or settings are not valid.
        FamilyError: If a family is unknown, or fewer than four can be used at the shape.
        DataError: If the data set is missing or broken.
    """
    typed = machines.settle(options, selection)
    with machines.join() as cluster:
        defaults = {"name": name, "size": 1, **machines.defaults(cluster)}
        spec, dataset = settled_spec(stored, typed, defaults, data_root)
        with progress_bar("measuring families") as report:
            inputs = prepare_inputs(
                dataset,
                spec.shape,
                spec.families,
                lemur=open_lemur(),
                families_from=selection.families_from,
                progress=report,
            )
        with machines.open(cluster, spec, inputs) as engine:
            yield spec, inputs, engine
