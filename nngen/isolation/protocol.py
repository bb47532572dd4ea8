"""What a worker may say: JSON of bounded size, and classes as raw numbers. Nothing is ever unpickled.

A frame is a kind (one byte), three zero bytes, a length (four bytes, little-endian), then the body.
"""

from __future__ import annotations

import enum
import json
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["MAX_CHUNK", "MAX_JSON", "Channel", "Frame", "FrameError", "FrameReader", "Kind"]

MAX_JSON = 65_536
"""Bytes of the longest JSON message."""

MAX_CHUNK = 2**20
"""Bytes of the longest part of a file."""

_HEAD = struct.Struct("<B3xI")


class Kind(enum.IntEnum):
    """What a frame's body is."""

    MESSAGE = 1
    VALIDATION = 2
    TEST = 3
    FILE = 4


class FrameError(Exception):
    """The bytes are no frame, or one that was not expected."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame.

    Attributes:
        body: JSON, one little-endian uint16 per image, or a part of a file.
    """

    kind: Kind
    body: bytes

    def message(self) -> dict[str, Any]:
        """Read the body of a ``MESSAGE``.

        Raises:
            FrameError: If it is no JSON object.
        """
        try:
            value = json.loads(self.body, parse_constant=lambda _: None)
        except (ValueError, RecursionError) as error:
            raise FrameError("a message is no JSON") from error
        if not isinstance(value, dict):
            raise FrameError("a message is no JSON object")
        return value


class FrameReader:
    """Cuts a stream into frames; a body longer than its kind allows is refused before it is read.

    Args:
        sizes: Exact length in bytes of each kind but ``MESSAGE``; the longest of ``FILE``.
    """

    def __init__(self, sizes: Mapping[Kind, int]) -> None:
        self._sizes = sizes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Add bytes and yield the frames that they complete.

        Raises:
            FrameError: If a head has an unknown kind or a length that its kind does not have.
        """
        self._buffer += data
        while len(self._buffer) >= _HEAD.size:
            number, length = _HEAD.unpack_from(self._buffer)
            kind = self._check(number, length)
            end = _HEAD.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_HEAD.size : end])
            del self._buffer[:end]
            yield Frame(kind, body)

    def _check(self, number: int, length: int) -> Kind:
        try:
            kind = Kind(number)
        except ValueError:
            raise FrameError(f"a frame of unknown kind {number}") from None
        longest = MAX_JSON if kind is Kind.MESSAGE else self._sizes.get(kind, -1)
        varies = kind in (Kind.MESSAGE, Kind.FILE)
        if not (length <= longest if varies else length == longest):
            raise FrameError(f"a {kind.name.lower()} frame of {length} bytes")
        return kind


class Channel:
    """The worker's end of the pipe."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a JSON object."""
        self.send_bytes(Kind.MESSAGE, json.dumps(message, allow_nan=False).encode())

    def send_bytes(self, kind: Kind, body: bytes) -> None:
        """Send one frame, blocking until the judge has taken it."""
        data = memoryview(_HEAD.pack(kind, len(body)) + body)
        while data:
            data = data[os.write(self._descriptor, data) :]
