"""What a trial may hand over besides its predictions, on the judge's side: trained weights, an ONNX graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from nngen.isolation.protocol import Frame, FrameError, Kind
from nngen.text import one_line

__all__ = ["EXAMPLE", "ONNX", "WEIGHTS", "ArtifactRequest"]

WEIGHTS, ONNX, EXAMPLE = "weights", "onnx", "example"
"""A state dictionary and some images with their logits, both as safetensors; the graph as ONNX's protobuf."""

_MAX_BYTES = 2**33


@dataclass(slots=True)
class ArtifactRequest:
    """What is asked of a trial, and what came of it; nothing in it is trusted, or ever unpickled.

    Attributes:
        names: ``WEIGHTS``, ``ONNX`` (which brings ``EXAMPLE``) or both.
        files: Their bytes, as far as they came.
        reasons: Why one did not come.
    """

    names: tuple[str, ...]
    files: dict[str, bytearray] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    _open: str | None = None

    def forget(self) -> None:
        """Forget what came: the trial begins anew."""
        self.files.clear()
        self.reasons.clear()
        self._open = None

    def before(self, take: Callable[[Frame, float], bool]) -> Callable[[Frame, float], bool]:
        """Take the frames that concern files; leave all others to a trial's judge."""

        def both(frame: Frame, seconds: float) -> bool:
            if frame.kind is Kind.FILE:
                self._part(frame.body)
            elif frame.kind is not Kind.MESSAGE or not self._announced(frame):
                return take(frame, seconds)
            return False

        return both

    def _announced(self, frame: Frame) -> bool:
        message = frame.message()
        event, name = message.get("event"), message.get("name")
        if event not in ("file", "no-file"):
            return False
        if name not in (*self.names, EXAMPLE) or name in self.files or name in self.reasons:
            raise FrameError("a file that was not asked for")
        if event == "file":
            self._open = name
            self.files[name] = bytearray()
        else:
            self.reasons[name] = one_line(str(message.get("reason")), 300)
        return True

    def _part(self, body: bytes) -> None:
        if self._open is None:
            raise FrameError("a part of no file")
        if sum(map(len, self.files.values())) + len(body) > _MAX_BYTES:
            raise FrameError(f"files of more than {_MAX_BYTES:,} bytes")
        self.files[self._open] += body
