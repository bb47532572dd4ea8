"""Folders of a campaign's trials beside its archive: checkpoints of those that train, weights of the best."""

from __future__ import annotations

import math
import re
from bisect import insort
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from nngen.archive.records import StoredTrial, TrialLine, TrialState
from nngen.campaign_spec import CampaignSpec
from nngen.training.state.checkpoints import WEIGHTS, TrialFolder

_FOLDER = re.compile(r"trial-(\d+)")


class WeightFolders:
    """Folders of the trials of one campaign, of which so many keep weights as its ``keep_weights`` says.

    Args:
        root: Folder of the archive's weights (``Archive.weights``); None where nothing is kept.
        spec: Specification of the campaign.
        trials: Its trials so far.
    """

    def __init__(self, root: Path | None, spec: CampaignSpec, trials: Iterable[TrialLine]) -> None:
        self._root, self._most = root, spec.weights_kept
        self._ranks: list[tuple[int, float, int]] = []
        there = {int(found[1]) for path in _folders(root) if (found := _FOLDER.fullmatch(path.name))}
        for trial in trials:
            # A driver that was killed may have left the checkpoint of a trial that is done.
            if trial.id in there and trial.state is TrialState.DONE:
                self.finish(trial, ())

    def folder(self, trial: StoredTrial, *, foreign: str, note: Callable[[str], None]) -> TrialFolder | None:
        """Return the folder of a trial that is to be trained; the arguments are those of ``TrialFolder``."""
        path = self._path(trial.id)
        return None if path is None else TrialFolder(path=path, keep=self._most > 0, foreign=foreign, note=note)

    def finish(self, trial: StoredTrial | TrialLine, protected: Collection[int]) -> None:
        """Remove the checkpoint of a trial that is done, and weights that others surpass.

        Args:
            trial: The trial.
            protected: Ids of trials whose weights stay for now, whatever their rank.
        """
        path = self._path(trial.id)
        if path is None or not path.is_dir():
            return
        keep = trial.trained and self._most > 0 and (path / f"{WEIGHTS}.safetensors").is_file()
        TrialFolder(path=path).clear(keep=keep)
        if keep:
            insort(self._ranks, (-trial.rung, -(trial.validation_accuracy or 0.0), trial.id))
            self._prune(protected)

    def settle(self, best: int) -> None:
        """Keep the weights of the campaign's best trial first, now that all are done."""
        self._ranks.sort(key=lambda rank: (rank[-1] != best, rank))
        self._prune(())

    def _prune(self, protected: Collection[int]) -> None:
        if math.isinf(self._most):
            return
        for rank in [rank for rank in self._ranks[int(self._most) :] if rank[-1] not in protected]:
            self._ranks.remove(rank)
            if path := self._path(rank[-1]):
                TrialFolder(path=path).clear(keep=False)

    def _path(self, trial_id: int) -> Path | None:
        return self._root and self._root / f"trial-{trial_id}"


def _folders(root: Path | None) -> Iterable[Path]:
    return root.iterdir() if root is not None and root.is_dir() else ()
