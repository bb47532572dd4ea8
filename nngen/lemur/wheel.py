"""LEMUR as the wheel of nn-dataset, read in place.

Listing its 118,876 members takes most of a second, so it is done at the first use; base families come from the cache
of ``nngen.families.catalogue`` without it.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import struct
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path

from nngen.errors import LemurError
from nngen.lemur.layout import RESULTS, SOURCES
from nngen.lemur.reader import MAX_FILE_BYTES, FileLemur
from nngen.text import one_line

_MAX_UNPACKED = 2**30  # bytes of all members of a wheel together; those of 2.1.2 have 237 MiB

# RuntimeError: encrypted, or packed in a way that Python cannot unpack. ValueError: names that are not UTF-8.
_DAMAGE = (
    *(OSError, EOFError, RuntimeError, ValueError, OverflowError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
)

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
        self.identity = hashlib.sha256(os.fsencode(key)).hexdigest()

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
            with self._archive.open(member) as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except _DAMAGE as error:
            raise LemurError(f"{self.path} is broken ({one_line(str(error))}): run nngen lemur fetch") from error
        if len(content) > MAX_FILE_BYTES:
            raise LemurError(f"{self.path}: {one_line(member)} unpacks to more than {MAX_FILE_BYTES // 2**20} MiB")
        return content

    @cached_property
    def _archive(self) -> zipfile.ZipFile:
        try:
            archive = zipfile.ZipFile(self.path)
        except _DAMAGE as error:
            raise LemurError(
                f"{self.path} is not a whole wheel ({one_line(str(error))}): run nngen lemur fetch"
            ) from error
        # zipfile unpacks no more of a member than the directory says.
        if sum(info.file_size for info in archive.infolist()) > _MAX_UNPACKED:
            raise LemurError(f"{self.path} unpacks to more than {_MAX_UNPACKED // 2**30} GiB: it is not LEMUR's wheel")
        return archive

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
