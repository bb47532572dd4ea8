"""Checkpoints and weights of trials: files that a worker sends, kept in one folder for each trial.

The folder of a trial contains

``checkpoint.json``              progress of the training: written here, by the process that has the labels
``checkpoint-N.safetensors``     state of the net after epoch N (``nngen.training.state.net_state``), which it refers to
``weights.safetensors``          weights after the last epoch, where they are kept
``config.json``                  settings of the training and preprocessing of images, with the weights
``logits.safetensors``           logits of the validation images as float16, with the weights

Tensor files are made by the candidate's process and are never opened here.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Protocol

from nngen.files import load_json, write_atomically
from nngen.isolation import FrameError, JsonObject
from nngen.isolation.limits import MIB
from nngen.text import one_line
from nngen.types import Candidate, EpochResult, TrialSpec

CHECKPOINT, WEIGHTS, LOGITS = "checkpoint", "weights", "logits"
"""Names of the files that a worker sends."""

CONFIG = "config.json"
"""File beside the weights that says how to use them."""

_RECORD = "checkpoint.json"
_RESERVE = 256 * MIB  # bytes of the disk that are left to others, such as the archive


class FileSink(Protocol):
    """Receives the files of a training.

    Attributes:
        names: Names of the files that the worker is to send.
    """

    @property
    def names(self) -> tuple[str, ...]: ...

    def announce(self, message: JsonObject) -> None:
        """Read a message that begins a file, or gives the reason why there is none.

        Raises:
            FrameError: If the file was not asked for, or came before.
        """
        ...

    def append(self, body: bytes) -> None:
        """Add a part to the file that was announced last.

        Raises:
            FrameError: If no file was announced, or it is longer than that.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Progress of a training that ended before its last epoch."""

    curve: tuple[EpochResult, ...]  # points of the epochs that are done
    validation_predictions: bytes  # class per validation image after the last of them, as ``Trial`` keeps them
    batch: int  # samples per step
    tried: tuple[int, ...]  # larger batches for which memory did not suffice
    seconds: float  # seconds that the training took so far, over all attempts
    before: int  # epochs of them that belong to the rung before
    file: Path  # state of the net


@dataclass(slots=True, kw_only=True)
class TrialFolder:
    """The folder of one trial's checkpoint and weights."""

    path: Path  # the folder; it is made when the first file comes
    keep: bool = False  # whether the weights after the last epoch are kept
    # folder of the trial of the rung before, from which a new training goes on; None where it begins anew
    before: Path | None = None
    foreign: str = ""  # reason why the state of the net cannot be known; empty for files that nngen assembles
    note: Callable[[str], None] = lambda _: None  # receives lines for the user

    def names(self, spec: TrialSpec) -> tuple[str, ...]:
        """Return the names of the files that a training is to send."""
        # After the last epoch a checkpoint would come too late to be of use, but for a rung that goes on from it.
        checkpoint = (CHECKPOINT,) if (spec.epochs > 1 or spec.horizon) and not self.foreign else ()
        return (*checkpoint, *((WEIGHTS, LOGITS) if self.keep else ()))

    def progress(self, key: str, epochs: int) -> Progress | None:
        """Read the progress of an earlier run of the training with this key; None where it must begin anew."""
        path, record = self.path, load_json(self.path / _RECORD)
        # After its last epoch only the results are missing, which the last epoch gives.
        if record is None or (isinstance(record, dict) and record.get("epoch") == epochs):
            path, record = self.before or self.path, None
            if self.before is not None:
                record = load_json(self.before / _RECORD) or {"reason": "the rung before left no checkpoint"}
        try:
            if record is not None and not (reason := self._obstacle(record, key, path)):
                curve = tuple(EpochResult(**point | {"usage": tuple(point["usage"])}) for point in record["curve"])
                new = path != self.path
                progress = Progress(
                    curve=curve,
                    validation_predictions=base64.b64decode(record["predictions"]),
                    batch=record["batch"],
                    tried=tuple(record["tried"]),
                    seconds=0.0 if new else record["seconds"],
                    before=len(curve) if new else record.get("before", 0),
                    file=path / record["file"],
                )
                self.note(f"goes on after epoch {len(curve)}")
                return progress
        except (LookupError, TypeError, ValueError, AttributeError):
            reason = f"{_RECORD} is damaged"
        if record is not None:
            self.restart(reason)
        if self.foreign:
            # So that it is reported where the training starts again.
            with suppress(OSError):
                self.store({"reason": self.foreign})
        return None

    def _obstacle(self, record: JsonObject, key: str, path: Path) -> str:
        """Return the reason why a training cannot go on from stored progress; empty where it can."""
        if reason := self.foreign or record.get("reason"):
            return str(reason)
        if record["key"] != key:
            return "its file, its settings, the data or torch have changed"
        file = path / str(record["file"])
        whole = file.is_file() and file.stat().st_size == record["bytes"]
        return "" if whole else f"{file.name} is missing or damaged"

    def restart(self, reason: str = "") -> None:
        """Forget the progress; a reason is reported."""
        if reason:
            self.note(f"starts again at epoch 1: {one_line(reason, 300)}")
        self.before = None
        self.clear(keep=False)

    def clear(self, *, keep: bool, checkpoint: bool = False) -> None:
        """Remove what is not kept of weights and checkpoint."""
        if not keep and not checkpoint:
            shutil.rmtree(self.path, ignore_errors=True)
            return
        for file in self.path.iterdir():
            if not (checkpoint if file.name.startswith(CHECKPOINT) else keep) or file.suffix == ".part":
                file.unlink(missing_ok=True)

    def describe(self, config: JsonObject) -> None:
        """Store how the weights are used, if they are kept."""
        if self.keep and (self.path / f"{WEIGHTS}.safetensors").is_file():
            try:
                write_atomically(self.path / CONFIG, json.dumps(config, ensure_ascii=False).encode())
            except OSError as error:
                self.note(f"weights not stored in {self.path}: {error.strerror or error}")
                self.clear(keep=False)

    def store(self, record: JsonObject) -> None:
        """Store the progress, or the reason why there is none.

        Raises:
            OSError: If it cannot be written.
        """
        write_atomically(self.path / _RECORD, json.dumps(record).encode())
        for file in self.path.glob(f"{CHECKPOINT}-*"):
            if file.name != record.get("file"):
                file.unlink(missing_ok=True)


def training_key(candidate: Candidate, spec: TrialSpec, fingerprint: str, versions: Mapping[str, str]) -> str:
    """Identify a training by all that its course depends on, wherever it ends; limits are left out."""
    same = asdict(replace(spec, time_limit_s=0.0, memory_mib=0, epochs=spec.horizon or spec.epochs))
    del same["horizon"]
    text = json.dumps([candidate.source, same, fingerprint, dict(versions)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(slots=True, kw_only=True)
class FolderSink:
    """Receives the files of one attempt of a training into its folder.

    A file that cannot be written is reported and skipped: the training goes on, and the file before it stays.
    """

    folder: TrialFolder  # the folder
    names: tuple[str, ...]  # names of the files that the worker is to send
    limit: int  # bytes that one file may have
    progress: Callable[[], JsonObject]  # returns the progress as ``TrialFolder.store`` takes it, without the file
    _name: str = ""
    _left: int = 0
    _size: int = 0
    _file: BinaryIO | None = None
    _failed: bool = False
    _record: JsonObject = field(default_factory=dict)
    _came: set[tuple[str, object]] = field(default_factory=set)

    def announce(self, message: JsonObject) -> None:
        name, size = message.get("name"), message.get("bytes")
        if name == CHECKPOINT:
            self._record = self.progress()
        came = (str(name), self._record.get("epoch") if name == CHECKPOINT else None)
        if name not in self.names or self._left or came in self._came:
            raise FrameError("a file that was not asked for")
        self._came.add(came)
        if message["event"] == "no-file":
            reason = one_line(str(message.get("reason")), 300)
            if name == CHECKPOINT:
                # Later the training would start again; then it is reported why.
                self._try(lambda: self.folder.store({"reason": reason}))
            else:
                self.folder.note(f"no {name}: {reason}")
            return
        if type(size) is not int or not 0 < size <= self.limit:
            raise FrameError(f"a file of more than {self.limit // MIB:,} MiB, or of no size")
        self._name, self._left, self._size = name, size, size
        self._try(self._open)

    def append(self, body: bytes) -> None:
        if not 0 < len(body) <= self._left:
            raise FrameError("a part of a file that was not announced")
        self._left -= len(body)
        file = self._file
        if file is None:
            return
        self._try(lambda: file.write(body))
        if not self._left and self._file is not None:
            self._try(self._complete)

    def close(self) -> None:
        """Give up a file that did not come to its end."""
        if self._file is not None:
            self._file.close()
            self._part.unlink(missing_ok=True)
            self._file = None

    @property
    def _part(self) -> Path:
        return self.folder.path / f".{self._name}.part"

    def _open(self) -> None:
        self.folder.path.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.folder.path).free
        if free < self._size + _RESERVE:
            raise OSError(f"{self._size / MIB:,.0f} MiB are needed, and {free / MIB:,.0f} MiB are free")
        self._file = self._part.open("wb")

    def _complete(self) -> None:
        assert self._file is not None
        # On disk before the record refers to it: after a power failure the record is never ahead.
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._file = None
        if self._name != CHECKPOINT:
            self._part.replace(self.folder.path / f"{self._name}.safetensors")
            return
        file = f"{CHECKPOINT}-{self._record['epoch']}.safetensors"
        self._part.replace(self.folder.path / file)
        self.folder.store({**self._record, "file": file, "bytes": self._size})

    def _try(self, step: Callable[[], object]) -> None:
        try:
            step()
        except OSError as error:
            with suppress(OSError):
                self.close()
            if not self._failed:
                self._failed = True
                self.folder.note(f"{self._name} not stored in {self.folder.path}: {error.strerror or error}")
