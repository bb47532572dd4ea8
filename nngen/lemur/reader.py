"""Readers of LEMUR: the interface, the files that the wheel and a checkout share, and the reader of a checkout."""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

from nngen.errors import LemurError, UsageError
from nngen.files import read_regular
from nngen.lemur.layout import RESULTS, SOURCES
from nngen.lemur.records import History, ResultFile, Results, is_name, parse_trials, to_records
from nngen.text import decode_python, did_you_mean
from nngen.types import Record

MAX_FILE_BYTES = 4 * 2**20
"""Bytes of the longest source or result that is read; the longest of 2.1.2 has 178,375."""

_MAX_NAMED = 10
_EPOCH = re.compile(r"0|[1-9][0-9]{0,8}")
_log = logging.getLogger(__name__)


class Lemur(ABC):
    """A database of models and of the accuracies they reached.

    Attributes:
        path: The file or folder that is read.
        identity: Key that changes with the content, under which derived data may be cached; None where the content
            may change without a sign of it.
        skips_damage: Whether a damaged file is named and left out, rather than an error.
    """

    identity: str | None = None
    skips_damage: bool = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self._named: set[str] = set()

    def skip(self, error: LemurError) -> None:
        """Name a damaged file that is left out, once; raise the error where nothing may be left out.

        Raises:
            LemurError: Where ``skips_damage`` is false.
        """
        if not self.skips_damage:
            raise error
        if str(error) not in self._named and len(self._named) <= _MAX_NAMED:
            more = len(self._named) == _MAX_NAMED
            _log.warning("%s", "further damaged files are not named" if more else f"{error}: left out")
            self._named.add(str(error))

    @property
    def name(self) -> str:
        """The file's or the folder's name."""
        return self.path.name

    @abstractmethod
    def models(self) -> tuple[str, ...]:
        """Return the names of all models with a source, sorted."""

    @abstractmethod
    def source(self, model: str) -> str:
        """Return a model's Python source.

        Raises:
            LemurError: If there is none.
        """

    @abstractmethod
    def results(self) -> tuple[Results, ...]:
        """Return the names of all results, sorted."""

    @abstractmethod
    def read_results(
        self, datasets: Collection[str] | None = None, models: Collection[str] | None = None
    ) -> Iterator[ResultFile]:
        """Read, in one pass, the result files of some data sets and models, or of all; empty files are left out.

        Raises:
            LemurError: If one cannot be read, or does not hold a list of trials.
        """

    def records(self, model: str, dataset: str = "cifar-10") -> tuple[Record, ...]:
        """Return every recorded trial, by epoch, best first; empty where there is none.

        If a model is recorded on the data set under several tasks or metrics, the result is its classification
        accuracies, or else the first by name.
        """
        files = list(self.read_results({dataset}, {model}))
        first = min({file.results for file in files}, key=lambda r: (not r.classification, r), default=None)
        wanted = sorted((file for file in files if file.results == first), key=lambda file: file.epoch)
        return tuple(record for file in wanted for record in to_records(file))

    @abstractmethod
    def last_epochs(self) -> Mapping[Results, int]:
        """Return the last epoch of each of the results."""

    def long_trainings(self, epochs: int, dataset: str | None = None) -> Iterator[Record]:
        """Iterate over the classification accuracies of trainings of so many epochs and more, on a data set or all.

        Raises:
            UsageError: If there is none on the data set; the message names the data sets with some.
            LemurError: If one cannot be read.
        """
        every = {r for r, last in self.last_epochs().items() if last >= epochs and r.classification}
        chosen = {results for results in every if dataset in (None, results.dataset)}
        if not chosen:
            known = ", ".join(sorted({results.dataset for results in every})) or "none"
            raise UsageError(
                f"{self.name} has no trainings of {epochs} epochs on {dataset or 'any data set'}; data sets with some:"
                f" {known}"
            )
        files = self.read_results({r.dataset for r in chosen}, {r.model for r in chosen})
        return (record for file in files if file.results in chosen for record in to_records(file))

    def recorded_models(self, dataset: str = "cifar-10") -> tuple[str, ...]:
        """Return the names of the models that have classification accuracies on a data set, sorted."""
        return tuple(sorted({r.model for r in self.results() if r.dataset == dataset and r.classification}))

    def datasets(self, model: str) -> tuple[str, ...]:
        """Return the names of the data sets on which a model has records, sorted."""
        return tuple(sorted({r.dataset for r in self.results() if r.model == model}))

    def history(self, model: str, dataset: str = "cifar-10") -> History:
        """Summarize a model's records on a data set.

        Raises:
            UsageError: If LEMUR has no such model (the message names the nearest), or no record of it on the data set
                (the message names the data sets that have one).
        """
        if model not in self.models():
            near = did_you_mean(model, self.models(), otherwise="nngen families lists the base families")
            raise UsageError(f"LEMUR has no model {model!r}: {near}")
        epochs: dict[int, float] = {}
        for record in self.records(model, dataset):
            epochs[record.epoch] = max(record.accuracy, epochs.get(record.epoch, record.accuracy))
        if not epochs:
            others = ", ".join(self.datasets(model)) or "none"
            raise UsageError(f"LEMUR has no records of {model} on {dataset!r}; data sets with records of it: {others}")
        final = max(epochs)
        best = max(epochs, key=lambda epoch: (epochs[epoch], -epoch))
        return History(
            model=model,
            dataset=dataset,
            final_epoch=final,
            final_accuracy=epochs[final],
            best_epoch=best,
            best_accuracy=epochs[best],
        )


class FileLemur(Lemur):
    """LEMUR as files: sources under ``ab/nn/nn``, one folder of JSON files for each ``Results``."""

    def models(self) -> tuple[str, ...]:
        return tuple(self._models)

    def source(self, model: str) -> str:
        if model not in self._models:
            raise LemurError(f"{self.path} has no model {model!r}")
        try:
            return decode_python(self._read(f"{SOURCES}/{model}.py"))
        except ValueError as error:
            raise LemurError(f"{self.path}: {model}.py is not text: {error}") from error

    def results(self) -> tuple[Results, ...]:
        return self._results

    def last_epochs(self) -> Mapping[Results, int]:
        numbers = (
            (r, [int(name) for name in self._epochs("_".join(r)) if _EPOCH.fullmatch(name)]) for r in self._results
        )
        return {results: max(found) for results, found in numbers if found}

    def read_results(
        self, datasets: Collection[str] | None = None, models: Collection[str] | None = None
    ) -> Iterator[ResultFile]:
        for results in self._results:
            if (datasets is None or results.dataset in datasets) and (models is None or results.model in models):
                folder = "_".join(results)
                for epoch in sorted(int(name) for name in self._epochs(folder) if _EPOCH.fullmatch(name)):
                    file = f"{folder}/{epoch}.json"
                    try:
                        trials = parse_trials(f"{self.name}: {file}", self._read(f"{RESULTS}/{file}"))
                    except LemurError as error:
                        self.skip(error)
                        continue
                    if trials:
                        yield ResultFile(results, epoch, trials)

    @abstractmethod
    def _model_names(self) -> Iterable[str]:
        """Name every file of sources, without its suffix."""

    @abstractmethod
    def _folders(self) -> Iterable[str]:
        """Name every folder of results."""

    @abstractmethod
    def _epochs(self, folder: str) -> Iterable[str]:
        """Name every file of a folder of results, without its suffix."""

    @abstractmethod
    def _read(self, member: str) -> bytes:
        """Read one file by its path below the root.

        Raises:
            LemurError: If it cannot be read.
        """

    @cached_property
    def _models(self) -> Mapping[str, None]:
        return dict.fromkeys(sorted(name for name in self._model_names() if is_name(name)))

    @cached_property
    def _results(self) -> tuple[Results, ...]:
        return tuple(sorted(r for r in map(Results.parse, self._folders()) if r is not None))


class CheckoutLemur(FileLemur):
    """A folder that may change at any time, so nothing derived from it is cached; no link in it is followed."""

    skips_damage = True

    def __init__(self, path: Path) -> None:
        """Check that the folder is a checkout.

        Raises:
            LemurError: If it is not a checkout of nn-dataset.
        """
        super().__init__(path)
        for needed in (SOURCES, RESULTS):
            folders = [path.joinpath(*Path(needed).parts[:count]) for count in range(1, len(Path(needed).parts) + 1)]
            if links := [folder for folder in folders if folder.is_symlink()]:
                raise LemurError(f"{path} is not a checkout of nn-dataset: {links[0]} is a link")
            if not folders[-1].is_dir():
                raise LemurError(f"{path} is not a checkout of nn-dataset: it has no {needed}")

    def _model_names(self) -> Iterable[str]:
        return (file.stem for file in (self.path / SOURCES).glob("*.py"))

    def _folders(self) -> Iterable[str]:
        found = (self.path / RESULTS).iterdir()
        return (folder.name for folder in found if folder.is_dir() and not folder.is_symlink())

    def _epochs(self, folder: str) -> Iterable[str]:
        return (file.stem for file in (self.path / RESULTS / folder).glob("*.json"))

    def _read(self, member: str) -> bytes:
        file = self.path / member
        try:
            content = read_regular(file, MAX_FILE_BYTES + 1, root=self.path)
        except OSError as error:
            raise LemurError(f"{file} cannot be read: {error.strerror}") from error
        if len(content) > MAX_FILE_BYTES:
            raise LemurError(f"{file} is longer than {MAX_FILE_BYTES // 2**20} MiB, which no file of LEMUR is")
        return content
