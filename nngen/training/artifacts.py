"""Files that a trained net may hand over besides its predictions: weights and an ONNX graph.

The worker sends them in parts (``send_artifacts``); the launching process collects them (``ArtifactRequest``) and never
unpickles them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nngen.isolation import Channel, FrameError, JsonObject
from nngen.text import one_line
from nngen.training.frames import FrameKind

if TYPE_CHECKING:  # torch is loaded in the worker alone
    from torch import Tensor, nn

WEIGHTS, ONNX, EXAMPLE = "weights", "onnx", "example"
"""Names of the files: the state dictionary as safetensors; the graph as ONNX; some images with their logits, as
safetensors, which come with the graph."""

MAX_PART = 2**20
"""Bytes of the longest part of a file."""

_MAX_BYTES = 2**33


@dataclass(slots=True)
class ArtifactRequest:
    """Files asked of a training, and those that came.

    Attributes:
        names: ``WEIGHTS``, ``ONNX`` (which brings ``EXAMPLE``) or both.
        files: Content of each file that came, by name.
        reasons: Reason of each file that could not be made, by name.
    """

    names: tuple[str, ...]
    files: dict[str, bytearray] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    _open: str | None = None

    def clear(self) -> None:
        """Forget what came, because the training begins anew."""
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
            FrameError: If no file was announced, or all files together are longer than 8 GiB.
        """
        if self._open is None:
            raise FrameError("a part of a file that was not announced")
        if sum(map(len, self.files.values())) + len(body) > _MAX_BYTES:
            raise FrameError(f"files of more than {_MAX_BYTES:,} bytes")
        self.files[self._open] += body


def send_artifacts(net: nn.Module, names: Collection[str], images: Tensor, channel: Channel) -> None:
    """Send files of a trained net.

    Args:
        net: The net; left in eval mode.
        names: ``WEIGHTS``, ``ONNX`` or both.
        images: ``(N, C, H, W)`` prepared images for the example; N of at least 2.
        channel: The worker's channel.
    """
    import torch
    from safetensors.torch import save

    net.eval()
    if WEIGHTS in names:
        state = {name: value.detach().cpu().contiguous().clone() for name, value in net.state_dict().items()}
        _send(channel, WEIGHTS, save(state))
    if ONNX in names:
        try:
            with torch.no_grad():
                outputs = net(images)
            graph = _graph(net, images)
        except Exception as error:  # raised by the exporter or by the candidate's code: the reason is passed on
            channel.send({"event": "no-file", "name": ONNX, "reason": _reason(error)})
        else:
            _send(channel, ONNX, graph)
            _send(channel, EXAMPLE, save({"images": images.cpu().contiguous(), "logits": outputs.cpu().contiguous()}))


def _graph(net: nn.Module, images: Tensor) -> bytes:
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
    return bytes(program.model_proto.SerializeToString())


def _reason(error: BaseException) -> str:
    """Return the first line of the error at the bottom of an exporter's chain of causes."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"


def _send(channel: Channel, name: str, content: bytes) -> None:
    channel.send({"event": "file", "name": name})
    for start in range(0, len(content), MAX_PART):
        channel.send_bytes(FrameKind.FILE, content[start : start + MAX_PART])
