"""Kinds and sizes of the binary frames that the worker of a check or a training sends."""

from __future__ import annotations

import enum


class FrameKind(enum.IntEnum):
    """Kinds of the frames of a training besides messages."""

    VALIDATION = 2  # class of each validation image, as little-endian uint16
    TEST = 3  # class of each test image in the same form
    FILE = 4  # part of a file (``nngen.training.state.artifacts``)
    PROOF = 5  # answer to the question of a check (``proof_size``)
    LOGITS = 6  # logits of each validation image after the last epoch, as little-endian float16
    OUTPUTS = 7  # logits of all images of a prediction, as little-endian float32


NONCE = 32
"""Bytes of the random question that a check must answer, and of each digest of weights in its answer."""

IMPORTED = "imported"
"""Event of a check whose candidate is imported: now it may be asked, and meanwhile the net is built."""

PROOF_BATCH = 3
"""Images whose logits are in the answer: the batch that the rule ``shape`` draws by the question."""


def proof_size(classes: int) -> int:
    """Return the bytes of an answer: the question, two digests of the weights, and logits as little-endian float32."""
    return 3 * NONCE + 4 * PROOF_BATCH * classes


def last_line(source: str) -> int:
    """Return the largest line number that a verdict on a source may have; an error at its end is one line behind."""
    return len(source.splitlines()) + 1
