"""Folders of a campaign's trials beside its archive: checkpoints of those that train, weights of the best."""

from __future__ import annotations

import math
import re
from bisect import insort
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from nngen.archive.records import StoredTrial, TrialLine, TrialState
from nngen.campaign.successive_halving import planned
from nngen.campaign_spec import CampaignSpec
from nngen.training.state.checkpoints import WEIGHTS, TrialFolder

_FOLDER = re.compile(r"trial-(\d+)")


class WeightFolders:
    """Folders of the trials of one campaign, of which so many keep weights as its ``keep_weights`` says.

    With ``rungs_continue`` the trials that may be promoted keep their checkpoints until the next rung has gone on from
    them: on each rung the best, as many as the next one has.
    """

    def __init__(self, root: Path | None, spec: CampaignSpec, trials: Iterable[TrialLine]) -> None:
        self._root, self._most = root, spec.weights_kept
        self._ranks: list[tuple[int, float, int]] = []
        self._places = planned(spec)[1:] if spec.rungs_continue else ()
        self._waiting: list[list[tuple[float, int, int]]] = [[] for _ in self._places]
        there = {int(found[1]) for path in _folders(root) if (found := _FOLDER.fullmatch(path.name))}
        for trial in trials:
            # A driver that was killed may have left the checkpoint of a trial that is done.
            if trial.id in there and trial.state is TrialState.DONE:
                self.finish(trial, ())
            elif trial.state is TrialState.DONE:
                self._release(trial)

    def folder(self, trial: StoredTrial, *, foreign: str, note: Callable[[str], None]) -> TrialFolder | None:
        """Return the folder of a trial that is to be trained; the arguments are those of ``TrialFolder``."""
        path, before = self._path(trial.id), None
        if self._places and trial.rung and not trial.replicate and path is not None:
            known = (number for _, number, position in self._waiting[trial.rung - 1] if position == trial.position)
            before = self._path(next(known, 0))  # no trial has the number 0: its folder is not there
        if path is None:
            return None
        return TrialFolder(path=path, keep=self._most > 0, before=before, foreign=foreign, note=note)

    def finish(self, trial: StoredTrial | TrialLine, protected: Collection[int]) -> None:
        """Remove the checkpoint of a trial that is done, and weights that others surpass; none of protected trials."""
        self._release(trial)
        path = self._path(trial.id)
        if path is None or not path.is_dir():
            return
        keep = trial.trained and self._most > 0 and (path / f"{WEIGHTS}.safetensors").is_file()
        goes_on = trial.trained and trial.rung < len(self._places) and not trial.replicate
        TrialFolder(path=path).clear(keep=keep, checkpoint=goes_on)
        if goes_on:
            waiting = self._waiting[trial.rung]
            insort(waiting, (-(trial.validation_accuracy or 0.0), trial.id, trial.position))
            for _, number, _ in waiting[self._places[trial.rung] :]:
                self._drop_checkpoint(number)
            del waiting[self._places[trial.rung] :]
        if keep:
            insort(self._ranks, (-trial.rung, -(trial.validation_accuracy or 0.0), trial.id))
            self._prune(protected)

    def settle(self, best: int) -> None:
        """Keep the weights of the campaign's best trial first, now that all are done."""
        self._ranks.sort(key=lambda rank: (rank[-1] != best, rank))
        self._prune(())
        for waiting in self._waiting:
            for _, number, _ in waiting:
                self._drop_checkpoint(number)
            waiting.clear()

    def _release(self, trial: StoredTrial | TrialLine) -> None:
        """Remove the checkpoint from which a trial that is done has gone on."""
        if self._places and trial.rung and not trial.replicate:
            waiting = self._waiting[trial.rung - 1]
            for entry in [entry for entry in waiting if entry[-1] == trial.position]:
                waiting.remove(entry)
                self._drop_checkpoint(entry[1])

    def _drop_checkpoint(self, trial_id: int) -> None:
        path = self._path(trial_id)
        if path is not None and path.is_dir():
            TrialFolder(path=path).clear(keep=(path / f"{WEIGHTS}.safetensors").is_file())

    def _prune(self, protected: Collection[int]) -> None:
        if math.isinf(self._most):
            return
        for rank in [rank for rank in self._ranks[int(self._most) :] if rank[-1] not in protected]:
            self._ranks.remove(rank)
            path = self._path(rank[-1])
            if path is not None and path.is_dir():
                waits = any(rank[-1] == number for waiting in self._waiting for _, number, _ in waiting)
                TrialFolder(path=path).clear(keep=False, checkpoint=waits)

    def _path(self, trial_id: int) -> Path | None:
        return self._root and self._root / f"trial-{trial_id}"


def _folders(root: Path | None) -> Iterable[Path]:
    return root.iterdir() if root is not None and root.is_dir() else ()
