"""What a trial hands over besides its predictions, on the worker's side; see ``nngen.training.artifacts``."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from nngen.isolation.protocol import MAX_CHUNK, Channel, Kind
from nngen.training.artifacts import EXAMPLE, ONNX, WEIGHTS

__all__ = ["hand_over"]


def hand_over(net: nn.Module, names: Collection[str], images: Tensor, channel: Channel) -> None:
    """Send what was asked for of a trained net.

    Args:
        net: Left in eval mode.
        names: ``WEIGHTS``, ``ONNX`` or both.
        images: ``(N, C, H, W)`` prepared images for the example; N of at least 2.
        channel: To the judge.
    """
    from safetensors.torch import save

    net.eval()
    if WEIGHTS in names:
        state = {name: value.detach().cpu().contiguous().clone() for name, value in net.state_dict().items()}
        _send(channel, WEIGHTS, save(state))
    if ONNX in names:
        try:
            logits = _Logits(net)
            with torch.no_grad():
                outputs = logits(images)
            graph = _graph(logits, images)
        except Exception as error:  # the exporter's own, which knows many, or the candidate's: the reason is passed on
            channel.send({"event": "no-file", "name": ONNX, "reason": _reason(error)})
        else:
            _send(channel, ONNX, graph)
            _send(channel, EXAMPLE, save({"images": images.cpu().contiguous(), "logits": outputs.cpu().contiguous()}))


class _Logits(nn.Module):
    """A net without its auxiliary outputs."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        outputs: Any = self.net(images)
        logits: Tensor = outputs[0] if isinstance(outputs, tuple | list) else outputs
        return logits


def _graph(net: nn.Module, images: Tensor) -> bytes:
    """Write a net as ONNX, for any number of images."""
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
    """Give the first line of what lies at the bottom of an exporter's errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"


def _send(channel: Channel, name: str, content: bytes) -> None:
    channel.send({"event": "file", "name": name})
    for start in range(0, len(content), MAX_CHUNK):
        channel.send_bytes(Kind.FILE, content[start : start + MAX_CHUNK])
