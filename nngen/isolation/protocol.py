"""The frames that a worker sends: JSON messages of bounded size, and raw bytes. Nothing is ever unpickled.

A frame is a kind (one byte), three zero bytes, a length (four bytes, little-endian), then the body. Kind 1 is a JSON
message; a job declares the other kinds that it sends, with the lengths of their bodies.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MESSAGE = 1
"""Kind of a frame whose body is a JSON object."""

MAX_MESSAGE = 65_536
"""Bytes of the longest message."""

_HEAD = struct.Struct("<B3xI")


class FrameError(Exception):
    """The bytes are not a frame, or not one that was expected."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame."""

    kind: int  # ``MESSAGE``, or a kind that the job declared
    body: bytes  # JSON for a message, else bytes of a length that the job declared

    def message(self) -> dict[str, Any]:
        """Read the body of a message.

        Raises:
            FrameError: If the frame is of another kind, or its body is not a JSON object.
        """
        if self.kind != MESSAGE:
            raise FrameError(f"a frame of kind {self.kind} where a message was expected")
        try:
            # NaN and Infinity, which JSON does not have, become None. Deep nesting ends in a RecursionError.
            value = json.loads(self.body, parse_constant=lambda _: None)
        except (ValueError, RecursionError) as error:
            raise FrameError("a message that is not JSON") from error
        if not isinstance(value, dict):
            raise FrameError("a message that is not a JSON object")
        return value


class FrameReader:
    """Splits a stream into frames; a body of a length that its kind does not allow is refused before it is read.

    Args:
        lengths: Lengths in bytes that the bodies of each kind may have; messages need no entry.
    """

    def __init__(self, lengths: Mapping[int, range]) -> None:
        self._lengths = {**lengths, MESSAGE: range(MAX_MESSAGE + 1)}
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Add bytes and yield the frames that they complete.

        Raises:
            FrameError: If a head has an unknown kind, or a length that its kind does not allow.
        """
        self._buffer += data
        while len(self._buffer) >= _HEAD.size:
            kind, length = _HEAD.unpack_from(self._buffer)
            # Decided by the head alone: a worker must not make this process buffer what nobody wants.
            if kind not in self._lengths:
                raise FrameError(f"a frame of unknown kind {kind}")
            if length not in self._lengths[kind]:
                raise FrameError(f"a frame of kind {kind} with {length} bytes")
            end = _HEAD.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_HEAD.size : end])
            del self._buffer[:end]
            yield Frame(kind, body)


class Channel:
    """The worker's end of its result pipe."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message."""
        self.send_bytes(MESSAGE, json.dumps(message, allow_nan=False).encode())

    def send_bytes(self, kind: int, body: bytes | memoryview) -> None:
        """Send one frame, blocking until all of it is in the pipe."""
        data = memoryview(b"".join((_HEAD.pack(kind, len(body)), body)))
        while data:
            # A pipe may take a part of it only.
            data = data[os.write(self._descriptor, data) :]
