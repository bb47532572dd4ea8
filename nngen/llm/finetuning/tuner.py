"""Tunes an adapter between the cycles of a closed loop, on everything that the archive holds by then."""

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

__all__ = ["AdapterTuner"]

_TASKS = ("improve", "summary", "region")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterTuner:
    """Builds a feedback set and tunes an adapter, in one folder for each cycle; continues where it was stopped.

    Attributes:
        tuning: Arguments of the tuning; every cycle starts from the base and uses all data so far.
        folder: Parent of the folders ``cycle-N/data`` and ``cycle-N/tuned``.
        note: Called with one line about each step.
    """

    tuning: Tuning
    folder: Path
    note: Callable[[str], None] = lambda _: None

    def __call__(self, archive: Archive, cycle: int) -> Rewriter | None:
        """Tune after a cycle; None, with a note, if there is too little data to learn from."""
        place = self.folder / f"cycle-{cycle}"
        try:
            if not (place / "data").exists():
                count, limit = counter(self.tuning.base), self.tuning.max_tokens
                build_from_archive(archive, place / "data", count=count, limit=limit, tasks=_TASKS, seed=0)
            tuned = finetune(replace(self.tuning, tasks=()), place / "data", place / "tuned", self.note)
        except RewriterError as error:
            self.note(f"cycle {cycle} is not learned from: {error}")
            return None
        return Local(self.tuning.base, tuned.adapter, device=self.tuning.device)
