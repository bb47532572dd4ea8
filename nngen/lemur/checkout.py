"""LEMUR as a checkout of nn-dataset: the folder that holds ``ab/nn``."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path

from nngen.errors import LemurError
from nngen.lemur.records import Results, pick, read_trials
from nngen.types import Record

__all__ = ["CheckoutLemur"]


class CheckoutLemur:
    """A folder with ``ab/nn/nn`` (sources) and ``ab/nn/stat/train`` (results)."""

    identity: str | None = None
    """A folder changes without its root showing it, so nothing derived from it is kept."""

    def __init__(self, path: Path) -> None:
        """Look at the folder.

        Raises:
            LemurError: If it is not a checkout of nn-dataset.
        """
        self.path = path
        self.name = path.name
        self._models_dir = path / "ab" / "nn" / "nn"
        self._results_dir = path / "ab" / "nn" / "stat" / "train"
        for needed in (self._models_dir, self._results_dir):
            if not needed.is_dir():
                raise LemurError(f"{path} is no checkout of nn-dataset: it has no {needed.relative_to(path)}")

    def models(self) -> tuple[str, ...]:
        return self._models

    def source(self, model: str) -> str:
        if model not in self._models:
            raise LemurError(f"{self.path} holds no model {model!r}")
        return _read(self._models_dir / f"{model}.py")

    def records(self, model: str, dataset: str = "cifar-10") -> tuple[Record, ...]:
        results = pick(r for r in self._results if (r.model, r.dataset) == (model, dataset))
        if results is None:
            return ()
        folder = self._results_dir / "_".join(results)
        found: list[Record] = []
        for epoch in sorted(int(file.stem) for file in folder.glob("*.json") if file.stem.isdigit()):
            file = folder / f"{epoch}.json"
            try:
                found += read_trials(results, epoch, json.loads(_read(file)))
            except ValueError as error:
                raise LemurError(f"{file} is broken: {error}") from error
        return tuple(found)

    def recorded_models(self, dataset: str = "cifar-10") -> tuple[str, ...]:
        return tuple(sorted({r.model for r in self._results if r.dataset == dataset and r.classification}))

    def datasets(self, model: str) -> tuple[str, ...]:
        return tuple(sorted({r.dataset for r in self._results if r.model == model}))

    @cached_property
    def _models(self) -> tuple[str, ...]:
        return tuple(sorted(file.stem for file in self._models_dir.glob("*.py") if file.stem != "__init__"))

    @cached_property
    def _results(self) -> tuple[Results, ...]:
        found = (Results.parse(folder.name) for folder in self._results_dir.iterdir() if folder.is_dir())
        return tuple(sorted(results for results in found if results is not None))


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode()
    except OSError as error:
        raise LemurError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LemurError(f"{file} is not text: {error}") from error
