"""Weights and graphs of trained nets: sent in parts, collected within a limit, and compared by another worker."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, save
from torch import Tensor, nn

from nngen.isolation import FrameError
from nngen.training.frames import FrameKind
from nngen.training.state import artifacts
from nngen.training.state.artifacts import (
    ArtifactReport,
    ArtifactRequest,
    open_artifacts,
    read_report,
    send_artifacts,
    send_tensors,
)

MIB = 1_048_576
METADATA = {"model": "one", "epochs": "3"}
ALTERED = "its metadata are not those that it was given"


class Recorder:
    """Channel of a worker that keeps messages and frames in their order."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, message: Mapping[str, Any]) -> None:
        self.sent.append(message)

    def send_bytes(self, kind: int, body: bytes) -> None:
        assert kind == FrameKind.FILE
        self.sent.append(bytes(body))

    def files(self) -> dict[str, bytes]:
        """Return the content of each file; its announcement says its size."""
        found: dict[str, bytes] = {}
        sizes, name = {}, ""
        for item in self.sent:
            if isinstance(item, bytes):
                found[name] += item
            elif item["event"] == "file":
                name = item["name"]
                found[name], sizes[name] = b"", item["bytes"]
        assert {name: len(content) for name, content in found.items()} == sizes
        return found


def test_files_are_collected_by_name_until_a_training_begins_anew() -> None:
    request = ArtifactRequest(names=("weights", "onnx"))
    for _ in range(2):
        request.announce({"event": "file", "name": "weights"})
        request.append(b"ab")
        request.append(b"c")
        request.announce({"event": "no-file", "name": "onnx", "reason": "no\noperator " + "x" * 400})
        request.announce({"event": "file", "name": "example"})
        request.append(b"d")
        assert request.files == {"weights": b"abc", "example": b"d"}
        assert request.reasons == {"onnx": "no operator " + "x" * 287 + "…"}
        request.clear(1)
        assert (request.files, request.reasons) == ({}, {})
        with pytest.raises(FrameError, match=r"^a part of a file that was not announced$"):
            request.append(b"e")


@pytest.mark.parametrize(
    ("before", "name"),
    [([], "onnx"), ([], None), (["weights"], "weights"), (["example"], "weights"), (["example"], "example")],
)
def test_a_file_is_taken_once_and_only_if_it_was_asked_for(before: list[str], name: str | None) -> None:
    request = ArtifactRequest(names=("weights",))
    for known in before:
        request.announce({"event": "file" if known == name else "no-file", "name": known, "reason": "none"})
    message = {"event": "file", "name": name}
    if name == "weights" and before == ["example"]:
        request.announce(message)  # another one than came
        return
    with pytest.raises(FrameError, match=r"^a file that was not asked for$"):
        request.announce(message)


def test_a_reason_ends_the_wait_for_a_file() -> None:
    request = ArtifactRequest(names=("weights",))
    request.announce({"event": "no-file", "name": "weights", "reason": "none"})
    with pytest.raises(FrameError, match=r"^a file that was not asked for$"):
        request.announce({"event": "file", "name": "weights"})


class Large(bytearray):
    """Bytes that say to be more than they are."""

    said = 0

    def __len__(self) -> int:
        return self.said

    def __iadd__(self, body: Iterable[int]) -> Large:  # type: ignore[override, misc]
        self.said += len(bytes(body))
        return self


@pytest.mark.parametrize("limit_mib", [3, None])
def test_files_together_stay_within_the_limit(limit_mib: int | None) -> None:
    request = ArtifactRequest(names=("weights",))
    if limit_mib is not None:
        request.clear(limit_mib)
    request.announce({"event": "file", "name": "example"})
    request.append(bytes(MIB))
    request.announce({"event": "file", "name": "weights"})
    large = request.files["weights"] = Large()
    large.said = (limit_mib or 8192) * MIB - MIB - 2
    request.append(b"ab")
    with pytest.raises(FrameError, match=f"^files of more than {limit_mib or '8,192'} MiB$"):
        request.append(b"c")


@pytest.mark.parametrize("difference", [None, 0.0, 5e-4, 1e-3])
def test_a_report_is_read(difference: float | None) -> None:
    message = {"weights": "w\n" * 200, "onnx": "o" * 400, "difference": difference}
    found = read_report(message)
    assert found.difference == difference
    assert (found.weights, found.onnx) == ("w " * 149 + "w…", "o" * 299 + "…")
    assert read_report(asdict(ArtifactReport())) == ArtifactReport()


@pytest.mark.parametrize(
    "change",
    [
        *({"difference": value} for value in (-1e-9, 1.1e-3, 1, 0, True, "0", float("nan"))),
        {"weights": None},
        {"onnx": 3},
    ],
)
def test_what_is_not_a_report_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(FrameError, match=r"^a message that is not a report on files$"):
        read_report({"weights": "", "onnx": "", "difference": 0.0} | change)


@pytest.fixture
def opened(tmp_path: Path):
    """Return the report of the worker that opens files with given contents."""

    def call(**contents: bytes) -> dict[str, Any]:
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
        numbers = [os.open(tmp_path / name, os.O_RDONLY) for name in contents]
        channel: Any = Recorder()
        open_artifacts({"names": [*contents], "metadata": METADATA}, channel, numbers)
        (message,) = channel.sent
        return message

    return call


WEIGHTS = {"a": torch.arange(3.0)}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (save(WEIGHTS, METADATA), ""),
        (save(WEIGHTS, METADATA | {"epochs": "4"}), ALTERED),
        (save(WEIGHTS), ALTERED),
    ],
)
def test_weights_carry_the_metadata_of_their_training(content: bytes, fault: str, opened) -> None:
    assert opened(weights=content) == {"weights": fault, "onnx": "", "difference": None}


def test_weights_of_no_format_are_a_fault(opened) -> None:
    report = opened(weights=save(WEIGHTS, METADATA)[:-1])
    assert report["weights"]
    assert report["weights"] != ALTERED


IMAGES = torch.arange(3.0 * 2).reshape(3, 2)
LOGITS = torch.tensor([[9.0, 9.0], [1.0, -4.0], [0.5, 2.0]])


def session(found: np.ndarray | Exception, metadata: Mapping[str, str] = METADATA) -> SimpleNamespace:
    """Fake of the module ``onnxruntime`` whose graph gives ``found`` for all images but the first."""

    class Session:
        def __init__(self, graph: bytes, providers: list[str]) -> None:
            assert (graph, providers) == (b"graph", ["CPUExecutionProvider"])

        def get_modelmeta(self) -> SimpleNamespace:
            return SimpleNamespace(custom_metadata_map=dict(metadata))

        def get_inputs(self) -> list[SimpleNamespace]:
            return [SimpleNamespace(name="images"), SimpleNamespace(name="more")]

        def run(self, outputs: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
            assert list(inputs) == ["images"]
            assert np.array_equal(inputs["images"], IMAGES.numpy()[1:])
            if isinstance(found, Exception):
                raise found
            return [found, np.zeros(1)]

    return SimpleNamespace(InferenceSession=Session)


@pytest.mark.parametrize(
    ("logits", "found", "fault", "difference"),
    [
        (LOGITS, [[1.0, -4.0], [0.5, 2.0]], "", 0.0),
        (LOGITS, [[1.0, -4.0], [0.5, 2.001953125]], "", 0.001953125 / 4),
        (LOGITS, [[1.0, -4.0], [0.5, 2.03125]], "7.8e-03", None),
        (LOGITS / 1024, [[1 / 1024, -4 / 1024], [0.5 / 1024, 2.03125 / 1024]], "7.8e-03", None),
        (LOGITS * 0, [[0.0, 0.0], [0.0, 0.0]], "", 0.0),
        (LOGITS, [[1.0, -4.0], [0.5, float("nan")]], "nan", None),
    ],
)
def test_a_graph_is_compared_with_the_net(logits, found, fault, difference, opened, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", session(np.array(found, np.float32)))
    wanted = fault and f"onnxruntime's logits differ by {fault} of the largest (a net that draws at random?)"
    example = save({"images": IMAGES, "logits": logits})
    assert opened(onnx=b"graph", example=example) == {"weights": "", "onnx": wanted, "difference": difference}


def test_a_difference_at_the_bound_is_accepted(opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "_NEAR", 0.25)
    monkeypatch.setitem(sys.modules, "onnxruntime", session(LOGITS.numpy()[1:] + 1))
    assert opened(onnx=b"graph", example=save({"images": IMAGES, "logits": LOGITS}))["difference"] == 0.25


@pytest.mark.parametrize(
    ("graph", "fault"),
    [
        (session(LOGITS.numpy()[1:], {"model": "two"}), ALTERED),
        (session(ValueError("no operator\nof this name")), "onnxruntime cannot run it: no operator"),
        (session(ValueError("x" * 300)), "onnxruntime cannot run it: " + "x" * 200),
    ],
)
def test_a_graph_that_cannot_be_used_is_a_fault(graph, fault: str, opened, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", graph)
    contents = {"weights": save(WEIGHTS, METADATA), "onnx": b"graph"}
    example = save({"images": IMAGES, "logits": LOGITS})
    assert opened(**contents, example=example) == {"weights": "", "onnx": fault, "difference": None}


class Net(nn.Module):
    """A net with a sparse buffer and a state that is not a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.register_buffer("graph", torch.eye(2).to_sparse())

    def get_extra_state(self) -> dict[str, int]:
        return {"calls": 3}

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        return images * 2


def test_weights_are_sent_dense_with_their_metadata(tmp_path: Path) -> None:
    net, channel = Net(), Recorder()
    send_artifacts(net, (), IMAGES, METADATA, channel)  # type: ignore[arg-type]
    assert (channel.sent, net.training) == ([], False)
    send_artifacts(net, ("weights",), IMAGES, METADATA, channel)  # type: ignore[arg-type]
    (tmp_path / "file").write_bytes(channel.files()["weights"])
    with safe_open(tmp_path / "file", "pt") as file:
        assert file.metadata() == METADATA
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    wanted = {"layer.weight": net.layer.weight, "layer.bias": net.layer.bias, "graph": torch.eye(2)}
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


def test_a_graph_comes_with_images_and_their_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(artifacts, "_graph", lambda *given: asked.append(given) or b"graph")
    net, channel = Net(), Recorder()
    send_artifacts(net, ("onnx",), IMAGES, METADATA, channel)  # type: ignore[arg-type]
    files = channel.files()
    assert (list(files), files["onnx"], asked) == (["onnx", "example"], b"graph", [(net, IMAGES, METADATA)])
    example = load(files["example"])
    assert torch.equal(example["images"], IMAGES)
    assert torch.equal(example["logits"], IMAGES * 2)


def test_the_reason_against_a_graph_is_the_first_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        try:
            try:
                raise KeyError("inner") from ValueError("  no operator \nof this name")
            except KeyError as error:
                raise RuntimeError("export failed") from error
        except RuntimeError as error:
            raise OSError("outer") from error

    monkeypatch.setattr(artifacts, "_graph", fail)
    channel = Recorder()
    send_artifacts(Net(), ("onnx",), IMAGES, METADATA, channel)  # type: ignore[arg-type]
    assert channel.sent == [{"event": "no-file", "name": "onnx", "reason": "ValueError: no operator "}]


def test_a_graph_is_exported_for_any_number_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    class Properties(list[Any]):
        def add(self, key: str, value: str) -> None:
            self.append((key, value))

    model = SimpleNamespace(metadata_props=Properties([("old", "text")]))
    model.SerializeToString = lambda: bytearray(repr(model.metadata_props).encode())
    given: dict[str, Any] = {}

    def export(net: nn.Module, images: tuple[Tensor], **options: Any) -> SimpleNamespace:
        given.update(options, images=images)
        return SimpleNamespace(model_proto=model)

    monkeypatch.setattr(torch.onnx, "export", export)
    assert artifacts._graph(Net(), IMAGES, METADATA) == b"[('model', 'one'), ('epochs', '3')]"
    ((dimensions,), images) = given.pop("dynamic_shapes"), given.pop("images")
    assert images[0] is IMAGES
    assert [(place, size.__name__, size.min) for place, size in dimensions.items()] == [(0, "batch", 1)]
    assert given == {"dynamo": True, "verbose": False, "input_names": ["images"], "output_names": ["logits"]}


def test_a_file_is_sent_in_parts_of_a_mebibyte() -> None:
    channel: Any = Recorder()
    large, small = torch.arange(5 * MIB // 2, dtype=torch.int64).to(torch.uint8), torch.tensor([7], dtype=torch.uint8)
    send_tensors(channel, "weights", {"large": large, "small": small}, a="b")
    announcement, head, *parts = channel.sent
    assert [len(part) for part in parts] == [MIB, MIB, MIB // 2, 1]
    size = 5 * MIB // 2 + 1 + len(head)
    assert announcement == {"event": "file", "name": "weights", "bytes": size}
    found = load(channel.files()["weights"])
    assert torch.equal(found["large"], large)
    assert torch.equal(found["small"], small)
