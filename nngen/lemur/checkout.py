"""LEMUR as a checkout of nn-dataset: the folder that contains ``ab/nn``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from nngen.errors import LemurError
from nngen.lemur.layout import RESULTS, SOURCES
from nngen.lemur.reader import FileLemur


class CheckoutLemur(FileLemur):
    """A folder that may change at any time, so nothing derived from it is cached."""

    def __init__(self, path: Path) -> None:
        """Check that the folder is a checkout.

        Raises:
            LemurError: If it is not a checkout of nn-dataset.
        """
        super().__init__(path)
        for needed in (SOURCES, RESULTS):
            if not (path / needed).is_dir():
                raise LemurError(f"{path} is not a checkout of nn-dataset: it has no {needed}")

    def _model_names(self) -> Iterable[str]:
        return (file.stem for file in (self.path / SOURCES).glob("*.py"))

    def _folders(self) -> Iterable[str]:
        return (folder.name for folder in (self.path / RESULTS).iterdir() if folder.is_dir())

    def _epochs(self, folder: str) -> Iterable[str]:
        return (file.stem for file in (self.path / RESULTS / folder).glob("*.json"))

    def _read(self, member: str) -> bytes:
        try:
            return (self.path / member).read_bytes()
        except OSError as error:
            raise LemurError(f"{self.path / member} cannot be read: {error.strerror}") from error
