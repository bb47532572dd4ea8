"""LEMUR as the wheel of nn-dataset: read in place, through an index of where each member lies.

The wheel's own directory has 118,876 entries and takes most of a second to read. What matters of
it (sources and results: offset, size, checksum) is kept in the cache, under the wheel's place, size
and time of change.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zipfile
import zlib
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from nngen.errors import LemurError
from nngen.files import write_atomically
from nngen.lemur.fetch import lemur_dir
from nngen.lemur.records import Results, pick, read_trials
from nngen.types import Record

__all__ = ["ZIP_MAGIC", "WheelLemur"]

ZIP_MAGIC = b"PK\x03\x04"

_MODELS = "ab/nn/nn/"
_RESULTS = "ab/nn/stat/train/"
_LOCAL_HEADER = struct.Struct("<4sHHHHHIIIHH")
_VERSION = 1


class _Member(NamedTuple):
    offset: int
    size: int
    crc: int


class WheelLemur:
    """A wheel of nn-dataset that holds models (2.1.2)."""

    def __init__(self, path: Path) -> None:
        """Look at the wheel.

        Raises:
            LemurError: If it is missing, truncated, or holds no models.
        """
        self.path = path
        self.name = path.name
        try:
            stat = path.stat()
        except OSError as error:
            raise LemurError(f"{path} cannot be read: {error.strerror}") from error
        key = f"{_VERSION}\0{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}"
        self.identity: str | None = hashlib.sha256(key.encode()).hexdigest()
        self._models: dict[str, list[int]] = self._index("models")

    def models(self) -> tuple[str, ...]:
        return tuple(self._models)

    def source(self, model: str) -> str:
        if model not in self._models:
            raise LemurError(f"{self.name} holds no model {model!r}")
        with self._open() as file:
            return self._read(file, _Member(*self._models[model])).decode()

    def records(self, model: str, dataset: str = "cifar-10") -> tuple[Record, ...]:
        results = pick(self._of_model.get((model, dataset), ()))
        if results is None:
            return ()
        epochs = sorted((int(epoch), _Member(*member)) for epoch, member in self._epochs["_".join(results)].items())
        found: list[Record] = []
        with self._open() as file:
            for epoch, member in epochs:
                found += read_trials(results, epoch, self._json(file, member, results))
        return tuple(found)

    def recorded_models(self, dataset: str = "cifar-10") -> tuple[str, ...]:
        return tuple(sorted({r.model for r in self._results if r.dataset == dataset and r.classification}))

    def datasets(self, model: str) -> tuple[str, ...]:
        return tuple(sorted({r.dataset for r in self._results if r.model == model}))

    @cached_property
    def _epochs(self) -> dict[str, dict[str, list[int]]]:
        epochs: dict[str, dict[str, list[int]]] = self._index("results")
        return epochs

    @cached_property
    def _results(self) -> tuple[Results, ...]:
        return tuple(results for folder in self._epochs if (results := Results.parse(folder)) is not None)

    @cached_property
    def _of_model(self) -> dict[tuple[str, str], list[Results]]:
        found: dict[tuple[str, str], list[Results]] = {}
        for results in self._results:
            found.setdefault((results.model, results.dataset), []).append(results)
        return found

    def _open(self) -> BinaryIO:
        try:
            return self.path.open("rb")
        except OSError as error:
            raise LemurError(f"{self.path} cannot be read: {error.strerror}") from error

    def _json(self, file: BinaryIO, member: _Member, results: Results) -> Any:
        try:
            return json.loads(self._read(file, member))
        except ValueError as error:
            raise LemurError(f"{self.name} holds broken results for {results.model}: {error}") from error

    def _read(self, file: BinaryIO, member: _Member) -> bytes:
        """Read one member as ``zipfile`` would, with its checksum, but without the directory."""
        file.seek(member.offset)
        head = file.read(_LOCAL_HEADER.size)
        try:
            signature, _, _, method, *_, name_length, extra_length = _LOCAL_HEADER.unpack(head)
            file.seek(name_length + extra_length, 1)
            data = file.read(member.size)
            content = zlib.decompress(data, -zlib.MAX_WBITS) if method == zipfile.ZIP_DEFLATED else data
        except (struct.error, zlib.error) as error:
            raise LemurError(f"{self.path} is broken ({error}): run nngen lemur fetch") from error
        if signature != ZIP_MAGIC or zlib.crc32(content) != member.crc:
            raise LemurError(f"{self.path} is broken (a checksum differs): run nngen lemur fetch")
        return content

    def _index(self, part: str) -> dict[str, Any]:
        """Read one half of the index (``models`` is small, ``results`` is not), made at the first use."""
        try:
            kept: dict[str, Any] = json.loads(self._kept(part).read_bytes())
        except (OSError, ValueError):
            index = self._scan()
            kept = index[part]
            try:
                for name, content in index.items():
                    write_atomically(self._kept(name), json.dumps(content, separators=(",", ":")).encode())
            except OSError:  # a cache that cannot be written only costs the time
                return kept
        return kept

    def _kept(self, part: str) -> Path:
        return lemur_dir() / f"{part}-{self.identity}.json"

    def _scan(self) -> dict[str, dict[str, Any]]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                members = archive.infolist()
        except (OSError, zipfile.BadZipFile) as error:
            raise LemurError(f"{self.path} is not a whole wheel ({error}): run nngen lemur fetch") from error
        models, results = _sort(members)
        if not models:
            raise LemurError(f"{self.path} holds no models under {_MODELS}: nngen needs nn-dataset 2.1.2")
        return {"models": dict(sorted(models.items())), "results": dict(sorted(results.items()))}


def _sort(members: Iterable[zipfile.ZipInfo]) -> tuple[dict[str, _Member], dict[str, dict[str, _Member]]]:
    models: dict[str, _Member] = {}
    results: dict[str, dict[str, _Member]] = {}
    for info in members:
        member = _Member(info.header_offset, info.compress_size, info.CRC)
        if info.filename.startswith(_RESULTS):
            folder, _, file = info.filename.removeprefix(_RESULTS).partition("/")
            if file.removesuffix(".json").isdigit():
                results.setdefault(folder, {})[file.removesuffix(".json")] = member
        elif info.filename.startswith(_MODELS) and info.filename.endswith(".py"):
            name = info.filename.removeprefix(_MODELS).removesuffix(".py")
            if "/" not in name and name != "__init__":
                models[name] = member
    return models, results
