"""LEMUR as the wheel of nn-dataset, read in place.

Listing its 118,876 members takes most of a second, so it is done at the first use; base families come from the cache
of ``nngen.families.catalogue`` without it.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path

from nngen.errors import LemurError
from nngen.lemur.layout import RESULTS, SOURCES
from nngen.lemur.reader import FileLemur

ZIP_MAGIC = b"PK\x03\x04"


class WheelLemur(FileLemur):
    """A wheel of nn-dataset that contains models (2.1.2)."""

    def __init__(self, path: Path) -> None:
        """Check that the file is a whole zip archive.

        Raises:
            LemurError: If it is missing or truncated.
        """
        super().__init__(path)
        try:
            stat = path.stat()
        except OSError as error:
            raise LemurError(f"{path} cannot be read: {error.strerror}") from error
        # The directory stands at the end of the file: a truncated wheel has none.
        if not zipfile.is_zipfile(path):
            raise LemurError(f"{path} is not a whole wheel: run nngen lemur fetch")
        key = f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}"
        self.identity = hashlib.sha256(key.encode()).hexdigest()

    def _model_names(self) -> Iterable[str]:
        names = (name.removeprefix(f"{SOURCES}/") for name in self._members if name.startswith(f"{SOURCES}/"))
        found = [name.removesuffix(".py") for name in names if name.endswith(".py") and "/" not in name]
        if not found:
            raise LemurError(f"{self.path} holds no models under {SOURCES}: nngen needs nn-dataset 2.1.2")
        return found

    def _folders(self) -> Iterable[str]:
        return self._by_folder

    def _epochs(self, folder: str) -> Iterable[str]:
        return self._by_folder[folder]

    def _read(self, member: str) -> bytes:
        try:
            return self._archive.read(member)
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise LemurError(f"{self.path} is broken ({error}): run nngen lemur fetch") from error

    @cached_property
    def _archive(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except (OSError, zipfile.BadZipFile) as error:
            raise LemurError(f"{self.path} is not a whole wheel ({error}): run nngen lemur fetch") from error

    @cached_property
    def _members(self) -> list[str]:
        return self._archive.namelist()

    @cached_property
    def _by_folder(self) -> Mapping[str, list[str]]:
        """Result files, without their suffix, by folder."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        for name in self._members:
            if name.startswith(f"{RESULTS}/") and name.endswith(".json"):
                folder, _, file = name.removeprefix(f"{RESULTS}/").partition("/")
                found[folder].append(file.removesuffix(".json"))
        return found
