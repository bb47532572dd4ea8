"""Files that a trained net may hand over besides its predictions: weights and an ONNX graph.

The worker sends them in parts (``send_artifacts``); the launching process collects them (``ArtifactRequest``) and never
opens them: another worker does (``open_artifacts``), since the code of a candidate made them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nngen.isolation import Channel, FrameError, JsonObject
from nngen.isolation.limits import MIB
from nngen.text import one_line
from nngen.training.frames import FrameKind
from nngen.training.state.checkpoints import WEIGHTS

if TYPE_CHECKING:  # torch is loaded in the worker alone
    from torch import Tensor, nn

ONNX, EXAMPLE = "onnx", "example"
"""Names of files besides ``WEIGHTS``: the graph as ONNX; some images with their logits, which come with the graph."""

MAX_PART = 2**20
"""Bytes of the longest part of a file."""

_ALTERED = "its metadata are not those that it was given"

_NEAR = 1e-3
"""Largest accepted difference between ONNX and torch logits, relative to the largest logit (float32 rounding)."""


@dataclass(slots=True)
class ArtifactRequest:
    """Files asked of a training, and those that came."""

    names: tuple[str, ...]  # ``WEIGHTS``, ``ONNX`` (which brings ``EXAMPLE``) or both
    files: dict[str, bytearray] = field(default_factory=dict)  # content of each file that came, by name
    reasons: dict[str, str] = field(default_factory=dict)  # reason of each file that could not be made, by name
    _open: str | None = None
    _limit: int = 2**33

    def clear(self, limit_mib: int) -> None:
        """Forget what came, because a training begins that may send ``limit_mib`` MiB in all."""
        self._limit = limit_mib * MIB
        self.files.clear()
        self.reasons.clear()
        self._open = None

    def announce(self, message: JsonObject) -> None:
        """Read a message that begins a file, or gives the reason why there is none.

        Raises:
            FrameError: If the file was not asked for, or came before.
        """
        name = message.get("name")
        if name not in (*self.names, EXAMPLE) or name in self.files or name in self.reasons:
            raise FrameError("a file that was not asked for")
        if message["event"] == "file":
            self._open = name
            self.files[name] = bytearray()
        else:
            self.reasons[name] = one_line(str(message.get("reason")), 300)

    def append(self, body: bytes) -> None:
        """Add a part to the file that was announced last.

        Raises:
            FrameError: If no file was announced, or all files together are longer than the limit.
        """
        if self._open is None:
            raise FrameError("a part of a file that was not announced")
        if sum(map(len, self.files.values())) + len(body) > self._limit:
            raise FrameError(f"files of more than {self._limit // MIB:,} MiB")
        self.files[self._open] += body


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactReport:
    """Faults of files that were opened in a worker; an empty text where there is none."""

    weights: str = ""  # fault of the weights
    onnx: str = ""  # fault of the graph
    # largest difference between the graph's logits and the net's, relative to the largest logit
    difference: float | None = None


def read_report(message: JsonObject) -> ArtifactReport:
    """Read the report that ``open_artifacts`` sent.

    Raises:
        FrameError: If it is not a report.
    """
    weights, onnx, difference = (message.get(name) for name in ("weights", "onnx", "difference"))
    known = difference is None or (type(difference) is float and 0 <= difference <= _NEAR)
    if not isinstance(weights, str) or not isinstance(onnx, str) or not known:
        raise FrameError("a message that is not a report on files")
    return ArtifactReport(weights=one_line(weights, 300), onnx=one_line(onnx, 300), difference=difference)


def open_artifacts(arguments: JsonObject, channel: Channel, files: list[int]) -> None:
    """Open files that were sent, and report on them: the entry point of a worker.

    Args:
        arguments: ``names`` of the files, and the ``metadata`` that they must carry.
        channel: Channel for the report.
        files: Descriptors of the files, in the order of their names.
    """
    content = {}
    for name, number in zip(arguments["names"], files, strict=True):
        with os.fdopen(number, "rb") as file:
            content[name] = file.read()
    metadata = arguments["metadata"]
    report = ArtifactReport(weights=_fault_of_weights(content[WEIGHTS], metadata) if WEIGHTS in content else "")
    if ONNX in content:
        report = replace(report, **_compared(content[ONNX], content[EXAMPLE], metadata))
    channel.send(asdict(report))


def _fault_of_weights(content: bytes, metadata: Mapping[str, str]) -> str:
    from safetensors import SafetensorError, deserialize

    try:
        deserialize(content)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        return str(error)
    # The format: eight bytes with the length of the header, then the header as JSON, which was read by now.
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return "" if header.get("__metadata__") == metadata else _ALTERED


def _compared(graph: bytes, example: bytes, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Compare the graph's logits with the net's; return the fields of a report."""
    import numpy as np
    import onnxruntime
    from safetensors.numpy import load

    try:
        tensors = load(example)
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        if session.get_modelmeta().custom_metadata_map != metadata:
            return {"onnx": _ALTERED}
        # One image fewer than the graph was exported with: the batch dimension must be dynamic.
        found = session.run(None, {session.get_inputs()[0].name: tensors["images"][1:]})[0]
        wanted = tensors["logits"][1:]
        difference = float(np.abs(found - wanted).max() / max(float(np.abs(wanted).max()), 1e-12))
    except Exception as error:  # onnxruntime defines no base class; a graph that it cannot run is not exported
        return {"onnx": f"onnxruntime cannot run it: {str(error).partition(chr(10))[0][:200]}"}
    if not difference <= _NEAR:
        reason = f"onnxruntime's logits differ by {difference:.1e} of the largest (a net that draws at random?)"
        return {"onnx": reason}
    return {"difference": difference}


def send_artifacts(
    net: nn.Module, names: Collection[str], images: Tensor, metadata: Mapping[str, str], channel: Channel
) -> None:
    """Send files of a trained net (``WEIGHTS``, ``ONNX``) that carry metadata; the net is left in eval mode.

    ``images`` are prepared, ``(N, C, H, W)``, N of at least 2, for the example of the graph.
    """
    import torch

    net.eval()
    if WEIGHTS in names:
        state = {name: value for name, value in net.state_dict().items() if isinstance(value, torch.Tensor)}
        # The format has dense tensors alone; matrices of graphs are sparse ones.
        state |= {name: value.to_dense() for name, value in state.items() if value.layout is not torch.strided}
        send_tensors(channel, WEIGHTS, state, **metadata)
    if ONNX in names:
        try:
            with torch.no_grad():
                outputs = net(images)
            graph = _graph(net, images, metadata)
        except Exception as error:  # raised by the exporter or by the candidate's code: the reason is passed on
            channel.send({"event": "no-file", "name": ONNX, "reason": _reason(error)})
        else:
            _send(channel, ONNX, len(graph), [memoryview(graph)])
            send_tensors(channel, EXAMPLE, {"images": images, "logits": outputs})


def _graph(net: nn.Module, images: Tensor, metadata: Mapping[str, str]) -> bytes:
    """Write a net as ONNX, for any number of images."""
    import torch

    program = torch.onnx.export(
        net,
        (images,),
        dynamo=True,
        verbose=False,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
    )
    assert program is not None
    model = program.model_proto
    del model.metadata_props[:]
    for name, text in metadata.items():
        model.metadata_props.add(key=name, value=text)
    return bytes(model.SerializeToString())


def _reason(error: BaseException) -> str:
    """Return the first line of the error at the bottom of an exporter's chain of causes."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"


def send_tensors(channel: Channel, name: str, tensors: Mapping[str, Tensor], **metadata: str) -> None:
    """Send tensors, with texts beside them, as one file; at no time is there a second copy of all of them."""
    from nngen.training.state.tensor_file import encode

    _send(channel, name, *encode(tensors, metadata))


def _send(channel: Channel, name: str, size: int, parts: Iterable[memoryview]) -> None:
    channel.send({"event": "file", "name": name, "bytes": size})
    for part in parts:
        for start in range(0, len(part), MAX_PART):
            channel.send_bytes(FrameKind.FILE, part[start : start + MAX_PART])
