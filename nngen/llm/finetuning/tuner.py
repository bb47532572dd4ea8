"""Tunes a model between the cycles of a loop, on all that the archive holds by then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from nngen.archive import Archive
from nngen.errors import RewriterError
from nngen.llm.finetuning.config import Tuning
from nngen.llm.finetuning.dataset import build_from_archive, counter
from nngen.llm.finetuning.finetune import finetune
from nngen.llm.rewriters.base import Rewriter
from nngen.llm.rewriters.transformers_local import Local

__all__ = ["AdapterTeacher"]

_TASKS = ("improve", "summary", "region")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterTeacher:
    """Builds a feedback set and tunes an adapter, one folder a cycle; each goes on where it stopped.

    Attributes:
        tuning: Every argument; each cycle begins from the base anew, on all data so far.
        folder: Gets ``cycle-N/data`` and ``cycle-N/tuned``.
    """

    tuning: Tuning
    folder: Path
    note: Callable[[str], None] = lambda _: None

    def __call__(self, archive: Archive, cycle: int) -> Rewriter | None:
        """Tune after a cycle; None where there is too little to learn from yet, which is said."""
        place = self.folder / f"cycle-{cycle}"
        try:
            if not (place / "data").exists():
                limit = self.tuning.max_tokens
                build_from_archive(
                    archive, place / "data", count=counter(self.tuning.base), limit=limit, tasks=_TASKS, seed=0
                )
            tuned = finetune(replace(self.tuning, tasks=()), place / "data", place / "tuned", self.note)
        except RewriterError as error:
            self.note(f"cycle {cycle} is not learned from: {error}")
            return None
        return Local(self.tuning.base, tuned.adapter, device=self.tuning.device)
