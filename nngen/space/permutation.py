"""Seeded permutation of a range of any size, in constant memory."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import shake_256

_ROUNDS = 8


@dataclass(frozen=True, slots=True)
class Permutation:
    """A seeded permutation of ``range(size)`` as a function, in constant memory.

    A balanced Feistel network over the next even power of two, applied repeatedly until the value is
    inside the range (Black and Rogaway 2002, "Ciphers with arbitrary finite domains").
    """

    size: int
    seed: int

    def __call__(self, position: int) -> int:
        """Return the value at ``position``, in [0, size).

        Raises:
            IndexError: If ``position`` is outside [0, size).
        """
        if not 0 <= position < self.size:
            raise IndexError(f"position {position} is outside [0, {self.size})")
        half = max(1, ((self.size - 1).bit_length() + 1) // 2)
        value = self._encrypt(position, half)
        # The network permutes [0, 4^half); following its cycles until the value is in range permutes the range.
        while value >= self.size:
            value = self._encrypt(value, half)
        return value

    def _encrypt(self, value: int, half: int) -> int:
        mask = (1 << half) - 1
        length = (half + 7) // 8
        left, right = value >> half, value & mask
        # Each round is invertible whatever the hash is, so the whole is a permutation.
        for turn in range(_ROUNDS):
            digest = shake_256(b"%d:%d:" % (self.seed, turn) + right.to_bytes(length, "big")).digest(length)
            left, right = right, left ^ (int.from_bytes(digest, "big") & mask)
        return left << half | right
