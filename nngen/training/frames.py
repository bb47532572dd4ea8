"""Kinds of the binary frames that the worker of a training sends."""

from __future__ import annotations

import enum


class FrameKind(enum.IntEnum):
    """Kinds of the frames of a training besides messages.

    Attributes:
        VALIDATION: Class of each validation image, as little-endian uint16.
        TEST: Class of each test image in the same form.
        FILE: Part of a file (``nngen.training.artifacts``).
    """

    VALIDATION = 2
    TEST = 3
    FILE = 4
