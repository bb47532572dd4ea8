"""State that the dynamic rules share: the candidate's file, the net built from it, random batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from nngen.seeds import derive
from nngen.types import Shape

BATCH = 4
"""Images per batch in the checks; small, so that a check costs seconds."""

EXPERT = "expert "
"""Prefix of the names that ``groups`` gives to experts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """Effect of one call of ``learn`` on each group of parameters."""

    changed: Mapping[str, bool]  # whether any parameter of the group has another value than before
    gradient: Mapping[str, bool]  # whether any parameter of the group received a gradient other than zero


@dataclass(slots=True, kw_only=True)
class CheckContext:
    """A candidate under check."""

    path: Path
    shape: Shape  # shape of the images, without the batch
    classes: int
    device: torch.device
    hyperparameters: Mapping[str, Any]  # values of ``prm``; each call into the candidate gets a copy
    module: ModuleType | None = None  # the imported file; set by the rule ``import``
    net: nn.Module | None = None  # the built net, on ``device``; set by the rule ``build``
    outputs: Tensor | None = None  # logits in train mode, ``(BATCH, classes)``; set by the rule ``shape``
    step: StepRecord | None = None  # effect of ``learn``; set by the rule ``step``
    imported: Callable[[], None] = lambda: None  # called once the file is imported
    # returns the question of the process that launched the check, where there is one; waits for it
    ask: Callable[[], bytes] = bytes
    # what was asked; batches that are ``drawn`` depend on it, so that nothing can be prepared for them
    question: bytes = b""
    # logits of a drawn batch in eval mode, ``(BATCH - 1, classes)``; set by the rule ``shape``
    drawn: Tensor | None = None
    # digests of the weights before and after ``learn``, keyed by the question; set by the rule ``step``
    digests: tuple[bytes, bytes] = (b"", b"")

    def images(self, name: str, size: int = BATCH, *, drawn: bool = False) -> Tensor:
        """Draw normal noise, ``(size, C, H, W)``; the same for one name, and one question where it is ``drawn``."""
        generator = self._generator("images", name, drawn)
        shape = (size, self.shape.channels, self.shape.height, self.shape.width)
        return torch.randn(shape, generator=generator).to(self.device)

    def labels(self, name: str, size: int = BATCH, *, drawn: bool = False) -> Tensor:
        """Draw labels, ``(size,)`` int64 in [0, classes); the same for one name, and one question where ``drawn``."""
        return torch.randint(self.classes, (size,), generator=self._generator("labels", name, drawn)).to(self.device)

    def _generator(self, kind: str, name: str, drawn: bool) -> torch.Generator:
        seed = int.from_bytes(self.question, "little") if drawn else 0
        return torch.Generator().manual_seed(derive(seed, "bench", kind, name))


def groups(net: nn.Module) -> dict[str, nn.Module]:
    """Split a mixture into its experts and its gate; any other net is one group of its own.

    Experts of a mixture that says ``frozen`` are left out: they come with the weights of an earlier training.
    """
    experts, gate = getattr(net, "experts", None), getattr(net, "gate", None)
    children = dict(experts.named_children()) if isinstance(experts, nn.Module) else {}
    if children and isinstance(gate, nn.Module) and vars(net).get("frozen") is True:
        return {"the gate": gate}
    parts = {f"{EXPERT}{name} ({type(child).__name__})": child for name, child in children.items()}
    if not parts:
        return {"the net": net}
    if isinstance(gate, nn.Module):
        parts["the gate"] = gate
    return parts
