"""Texts as vectors, by a frozen language model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from nngen.llm.rewriters.transformers_local import load_model, load_tokenizer

__all__ = ["Embedder"]


class Embedder:
    """Reads texts with a causal model and averages its last hidden states; nothing is tuned.

    Args:
        base: A hub id, a folder in transformers' layout, or a GGUF file.
        adapter: Folder of a peft adapter tuned on this base.
        device: ``cpu`` or ``cuda``.
        longest: Tokens read of a text; what follows is not seen.
        batch: Texts read together.

    Raises:
        RewriterError: If base or adapter cannot be loaded.
    """

    def __init__(
        self, base: str, adapter: Path | None = None, *, device: str = "cpu", longest: int = 640, batch: int = 8
    ) -> None:
        self._tokenizer = load_tokenizer(base)
        self._model = load_model(base, adapter, device=device)
        self._longest, self._batch = longest, batch

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Turn texts into vectors, ``(N, D)``."""
        rows = [self._tokenizer(text, add_special_tokens=False)["input_ids"][: self._longest] for text in texts]
        # Texts of like length together, so that little is padding.
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        found: dict[int, npt.NDArray[np.float64]] = {}
        for start in range(0, len(order), self._batch):
            chosen = order[start : start + self._batch]
            found |= dict(zip(chosen, self._read([rows[index] for index in chosen]), strict=True))
        return np.stack([found[index] for index in range(len(rows))])

    def _read(self, rows: Sequence[Sequence[int]]) -> npt.NDArray[np.float64]:
        width = max(len(row) for row in rows)
        device = self._model.device
        ids = torch.zeros(len(rows), width, dtype=torch.long, device=device)  # (B, T)
        mask = torch.zeros_like(ids)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = torch.tensor(row, device=device)
            mask[place, : len(row)] = 1
        with torch.inference_mode():
            told = self._model(input_ids=ids, attention_mask=mask, output_hidden_states=True, logits_to_keep=1)
        states = told.hidden_states[-1].float()  # (B, T, D)
        shown = mask.unsqueeze(-1)
        means: npt.NDArray[np.float64] = ((states * shown).sum(1) / shown.sum(1).clamp(min=1)).double().cpu().numpy()
        return means
