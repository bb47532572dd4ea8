"""From what was typed as ``--rewriter`` to a rewriter."""

from __future__ import annotations

from pathlib import Path

from nngen.errors import RewriterError
from nngen.llm.rewriters.base import Rewriter
from nngen.llm.rewriters.baselines import Mutate, Uniform
from nngen.llm.rewriters.openai_http import Http

__all__ = ["BASELINES", "is_local", "open_rewriter"]

BASELINES = (Uniform.name, Mutate.name)
"""Rewriters without a model."""


def is_local(name: str) -> bool:
    """Whether a name stands for a model in this process."""
    return name not in BASELINES and not name.startswith(("http://", "https://"))


def open_rewriter(
    name: str, *, adapter: Path | None = None, model: str = "", device: str = "cpu", batch: int = 16
) -> Rewriter:
    """Open a rewriter.

    Args:
        name: ``random``, ``mutate``, ``http://...``, a hub id, a folder or a GGUF file.
        adapter: Folder of a peft adapter, for a model in this process.
        model: The model's name, for a server.
        device: ``cpu`` or ``cuda``, for a model in this process.
        batch: Rows decoded together, likewise.

    Raises:
        RewriterError: If it cannot be opened; the message says why.
        MissingExtraError: If the packages it needs are not installed.
    """
    if adapter is not None and not is_local(name):
        raise RewriterError(f"--adapter goes with a model in this process, not with {name}")
    if name == Uniform.name:
        return Uniform()
    if name == Mutate.name:
        return Mutate()
    if name.startswith(("http://", "https://")):
        return Http(name, model)
    from nngen.llm.rewriters.transformers_local import Local

    return Local(name, adapter, device=device, batch=batch)
