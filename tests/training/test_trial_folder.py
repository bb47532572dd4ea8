"""The folder of a trial without a training: what its records and files say, and what arrives in it."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nngen.isolation import FrameError
from nngen.training.state import checkpoints
from nngen.training.state.checkpoints import FolderSink, Progress, TrialFolder, training_key
from nngen.types import Candidate, EpochResult, Shape, TrialSpec

MIB = 1_048_576
SPEC = TrialSpec(dataset="digits", shape=Shape(1, 8, 8), epochs=3, lr=0.1)
CURVE = tuple(EpochResult(epoch=n, validation_accuracy=n / 4, usage=(0.25, 0.75), samples=9) for n in (1, 2))
FILE = "checkpoint-2.safetensors"
RECORD = {
    "key": "k",
    "epoch": 2,
    "curve": [asdict(point) for point in CURVE],
    "predictions": base64.b64encode(b"\1\0\2\0").decode(),
    "batch": 32,
    "tried": [128, 64],
    "seconds": 7.5,
    "before": 1,
    "file": FILE,
    "bytes": 3,
}


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def folder(tmp_path: Path, notes: list[str]) -> TrialFolder:
    return TrialFolder(path=tmp_path / "trial-1", note=notes.append)


def fill(path: Path, record: object = None) -> None:
    path.mkdir()
    (path / FILE).write_bytes(b"abc")
    (path / "checkpoint.json").write_text(json.dumps(RECORD if record is None else record))


def names_in(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


@pytest.mark.parametrize(
    ("epochs", "horizon", "foreign", "keep", "names"),
    [
        (1, None, "", False, ()),
        (2, None, "", False, ("checkpoint",)),
        (1, 9, "", False, ("checkpoint",)),
        (2, 9, "of another origin", False, ()),
        (1, None, "", True, ("weights", "logits")),
        (2, None, "", True, ("checkpoint", "weights", "logits")),
        (2, None, "of another origin", True, ("weights", "logits")),
    ],
)
def test_a_checkpoint_is_asked_for_where_a_training_can_go_on(epochs, horizon, foreign, keep, names, folder) -> None:
    spec = replace(SPEC, epochs=epochs, horizon=horizon)
    assert replace(folder, foreign=foreign, keep=keep).names(spec) == names


PROGRESS = {"curve": CURVE, "validation_predictions": b"\1\0\2\0", "batch": 32, "tried": (128, 64)}


def test_a_training_goes_on_where_it_ended(folder: TrialFolder, notes: list[str]) -> None:
    fill(folder.path)
    wanted = Progress(**PROGRESS, seconds=7.5, before=1, file=folder.path / FILE)
    assert folder.progress("k", 3) == wanted
    assert notes == ["goes on after epoch 2"]
    shutil.rmtree(folder.path)
    fill(folder.path, {name: value for name, value in RECORD.items() if name != "before"})
    assert folder.progress("k", 3) == replace(wanted, before=0)
    assert names_in(folder.path) == [FILE, "checkpoint.json"]


@pytest.mark.parametrize("own", [False, True], ids=["new", "finished"])
def test_a_rung_goes_on_from_the_rung_before(own: bool, folder: TrialFolder, notes: list[str], tmp_path: Path) -> None:
    fill(tmp_path / "before")
    if own:
        fill(folder.path, RECORD | {"epoch": 5, "batch": 1})
    found = replace(folder, before=tmp_path / "before").progress("k", 5)
    assert found == Progress(**PROGRESS, seconds=0.0, before=2, file=tmp_path / "before" / FILE)
    assert notes == ["goes on after epoch 2"]


def test_a_rung_that_was_interrupted_goes_on_from_its_own_checkpoint(folder: TrialFolder, tmp_path: Path) -> None:
    fill(folder.path)
    fill(tmp_path / "before", RECORD | {"batch": 1})
    found = replace(folder, before=tmp_path / "before").progress("k", 5)
    assert found is not None
    assert (found.batch, found.seconds, found.before, found.file) == (32, 7.5, 1, folder.path / FILE)


def test_a_rung_without_the_checkpoint_of_the_rung_before_says_so(folder, notes, tmp_path) -> None:
    folder.before = tmp_path / "before"
    assert folder.progress("k", 5) is None
    assert notes == ["starts again at epoch 1: the rung before left no checkpoint"]
    assert folder.before is None


def test_a_finished_training_and_a_new_one_begin_without_a_word(folder: TrialFolder, notes: list[str]) -> None:
    assert folder.progress("k", 2) is None
    fill(folder.path)
    assert folder.progress("k", 2) is None
    assert (notes, names_in(folder.path)) == ([], [FILE, "checkpoint.json"])


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (RECORD | {"reason": "net.rest is\na generator"}, "net.rest is a generator"),
        (RECORD | {"reason": "x" * 400}, "x" * 299 + "…"),
        (RECORD | {"key": "l"}, "its file, its settings, the data or torch have changed"),
        (RECORD | {"bytes": 4}, f"{FILE} is missing or damaged"),
        (RECORD | {"file": "checkpoint-1.safetensors"}, "checkpoint-1.safetensors is missing or damaged"),
        (RECORD | {"curve": [1]}, "checkpoint.json is damaged"),
        (RECORD | {"tried": None}, "checkpoint.json is damaged"),
        ({"key": "k"}, "checkpoint.json is damaged"),
        ([2], "checkpoint.json is damaged"),
    ],
)
def test_a_training_that_cannot_go_on_starts_again_with_the_reason(record, reason, folder, notes) -> None:
    fill(folder.path, record)
    assert folder.progress("k", 3) is None
    assert notes == [f"starts again at epoch 1: {reason}"]
    assert not folder.path.exists()


@pytest.mark.parametrize("known", [False, True])
def test_a_foreign_training_leaves_its_reason_for_the_next_start(known: bool, folder, notes) -> None:
    if known:
        fill(folder.path)
    folder.foreign = "not assembled here"
    assert folder.progress("k", 3) is None
    assert notes == ["starts again at epoch 1: not assembled here"] * known
    assert json.loads((folder.path / "checkpoint.json").read_text()) == {"reason": "not assembled here"}


KEPT = ["config.json", "logits.safetensors", "weights.safetensors"]
STATE = [FILE, "checkpoint.json"]


@pytest.mark.parametrize(
    ("keep", "checkpoint", "left"),
    [(True, False, KEPT), (False, True, STATE), (True, True, sorted(KEPT + STATE)), (False, False, None)],
)
def test_only_what_is_kept_stays(keep, checkpoint, left, folder: TrialFolder) -> None:
    fill(folder.path)
    for name in (*KEPT, ".weights.part", ".checkpoint.part"):
        (folder.path / name).write_bytes(b"")
    folder.clear(keep=keep, checkpoint=checkpoint)
    assert (names_in(folder.path) if folder.path.exists() else None) == left


def test_the_use_of_weights_is_described_where_they_are_kept(folder: TrialFolder, notes, monkeypatch) -> None:
    folder.path.mkdir()
    replace(folder, keep=True).describe({"a": "é"})
    (folder.path / "weights.safetensors").write_bytes(b"w")
    folder.describe({"a": "é"})
    assert names_in(folder.path) == ["weights.safetensors"]
    folder.keep = True
    folder.describe({"a": "é"})
    assert (folder.path / "config.json").read_text(encoding="utf-8") == '{"a": "é"}'

    def fail(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "write_atomically", fail)
    folder.describe({})
    assert notes == [f"weights not stored in {folder.path}: No space left on device"]
    assert not folder.path.exists()


def test_a_record_removes_the_checkpoints_before_it(folder: TrialFolder) -> None:
    fill(folder.path)
    (folder.path / "checkpoint-1.safetensors").write_bytes(b"")
    folder.store({"file": FILE})
    assert names_in(folder.path) == STATE
    assert (folder.path / "checkpoint.json").read_text() == json.dumps({"file": FILE})
    folder.store({"reason": "x"})
    assert names_in(folder.path) == ["checkpoint.json"]


def test_the_key_of_a_training_is_all_that_its_course_depends_on() -> None:
    def key(source: str = "x", fingerprint: str = "d", versions: str = "2", **changes: Any) -> str:
        candidate = Candidate(id="any", source=source, canonical="any")
        return training_key(candidate, replace(SPEC, **changes), fingerprint, {"torch": versions})

    assert len(key()) == 64
    limits: dict[str, Any] = {"time_limit_s": 1.0, "memory_mib": 999}
    assert key() == key(**limits) == key(epochs=1, horizon=3)
    others = [
        {"source": "y"},
        {"source": "\ud800"},
        {"fingerprint": "e"},
        {"versions": "3"},
        {"epochs": 4},
        {"lr": 1.0},
    ]
    assert len({key(), *(key(**other) for other in others)}) == 7  # type: ignore[arg-type]


@pytest.fixture
def sink(folder: TrialFolder) -> Callable[..., FolderSink]:
    def make(epochs: tuple[int, ...] = (2, 3), limit: int = 10) -> FolderSink:
        progress = iter([{"epoch": epoch, "key": "k"} for epoch in epochs])
        names = ("checkpoint", "weights")
        return FolderSink(folder=folder, names=names, limit=limit, progress=lambda: next(progress))

    return make


def announced(name: str, size: object, event: str = "file") -> dict[str, Any]:
    return {"event": event, "name": name, "bytes": size}


def test_files_appear_whole_and_a_checkpoint_with_its_record(sink, folder: TrialFolder, monkeypatch) -> None:
    synced: list[tuple[int, list[str]]] = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append((os.fstat(number).st_size, names_in(folder.path))))
    one = sink()
    one.announce(announced("weights", 3))
    one.append(b"ab")
    assert names_in(folder.path) == [".weights.part"]
    one.append(b"c")
    assert names_in(folder.path) == ["weights.safetensors"]
    for epoch, size in ((2, 10), (3, 1)):
        one.announce(announced("checkpoint", size))
        one.append(b"x" * size)
        file = f"checkpoint-{epoch}.safetensors"
        record = {"epoch": epoch, "key": "k", "file": file, "bytes": size}
        assert json.loads((folder.path / "checkpoint.json").read_text()) == record
        assert names_in(folder.path) == [file, "checkpoint.json", "weights.safetensors"]
        assert (folder.path / file).read_bytes() == b"x" * size
    assert (folder.path / "weights.safetensors").read_bytes() == b"abc"
    # Whole on the disk while it has not its name yet, nor a record that refers to it.
    own = [(size, files) for size, files in synced if ".weights.part" in files or ".checkpoint.part" in files]
    state = ["checkpoint-2.safetensors", "checkpoint.json", "weights.safetensors"]
    assert (3, [".weights.part"]) in own
    assert (10, [".checkpoint.part", "weights.safetensors"]) in own
    assert (1, [".checkpoint.part", *state]) in own


@pytest.mark.parametrize(
    ("messages", "fault"),
    [
        ([announced("logits", 3)], "a file that was not asked for"),
        ([announced("weights", 3), announced("checkpoint", 3)], "a file that was not asked for"),
        ([announced("weights", 3, "no-file")] * 2, "a file that was not asked for"),
        ([announced("weights", 4 * MIB + 1)], "a file of more than 4 MiB, or of no size"),
        ([announced("weights", 0)], "a file of more than 4 MiB, or of no size"),
        ([announced("weights", True)], "a file of more than 4 MiB, or of no size"),
        ([announced("weights", 3), b""], "a part of a file that was not announced"),
        ([announced("weights", 3), b"abcd"], "a part of a file that was not announced"),
        ([b"a"], "a part of a file that was not announced"),
    ],
)
def test_what_was_not_announced_is_refused(messages, fault: str, sink) -> None:
    one = sink(limit=4 * MIB)
    take = [one.append if isinstance(message, bytes) else one.announce for message in messages]
    for step, message in zip(take[:-1], messages[:-1], strict=True):
        step(message)
    with pytest.raises(FrameError) as caught:
        take[-1](messages[-1])
    one.close()
    assert str(caught.value) == fault


def test_the_reason_against_a_file_is_stored_or_told(sink, folder: TrialFolder, notes: list[str]) -> None:
    one = sink()
    one.announce({"event": "no-file", "name": "checkpoint", "reason": "net.a is\na lock" + "x" * 400})
    stored = json.loads((folder.path / "checkpoint.json").read_text())
    assert stored == {"reason": ("net.a is a lock" + "x" * 284) + "…"}
    assert notes == []
    one.announce({"event": "no-file", "name": "weights", "reason": "none\nfit"})
    assert notes == ["no weights: none fit"]


@pytest.mark.parametrize("missing", [0, 1])
def test_a_quarter_of_a_gibibyte_of_the_disk_is_left_to_others(missing, sink, folder, notes, monkeypatch) -> None:
    free = 256 * MIB + 3 * MIB - missing
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    one = sink(limit=4 * MIB)
    one.announce(announced("weights", 3 * MIB))
    one.append(bytes(3 * MIB))
    told = f"weights not stored in {folder.path}: 3 MiB are needed, and 259 MiB are free"
    assert notes == [told] * missing
    assert names_in(folder.path) == ["weights.safetensors"] * (1 - missing)


def test_a_write_that_fails_costs_the_file_and_one_line(sink, folder: TrialFolder, notes: list[str]) -> None:
    one = sink()
    for name in ("weights", "checkpoint"):
        one.announce(announced(name, 3))
        file = one._file
        one._file = SimpleNamespace(write=_full, close=file.close)
        one.append(b"ab")
        assert names_in(folder.path) == []
        one.append(b"c")
    one.close()
    assert notes == [f"weights not stored in {folder.path}: No space left on device"]
    assert names_in(folder.path) == []


def _full(body: bytes) -> int:
    raise OSError(28, "No space left on device")


def test_a_file_that_is_given_up_is_closed_and_removed(sink, folder: TrialFolder) -> None:
    one = sink()
    one.close()
    one.announce(announced("weights", 3))
    file = one._file
    one.close()
    assert (file.closed, names_in(folder.path)) == (True, [])
    one.append(b"abc")
    assert names_in(folder.path) == []
