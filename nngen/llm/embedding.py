"""Embeds texts with a frozen language model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from nngen.llm.prompts import estimate_tokens, prompt, render
from nngen.llm.rewriters.causal_models import context_of, load_model
from nngen.llm.rewriters.chat import load_tokenizer


def accuracy_question(text: str) -> str:
    """Write the question about a plan's accuracy, in the words of the feedback set, without early epochs."""
    values = {"text": text, "dataset": "this data set", "epochs": "all", "early": []}
    return render(prompt("accuracy"), values, estimate_tokens).messages[-1].content


class Embedder:
    """Turns texts into the mean of a causal model's last hidden states; the model is not tuned.

    Args:
        base: Base model, as for ``load_model``.
        adapter: Folder of a peft adapter tuned on this base.
        question: Function that puts each text into the words of a prompt; none by default.
        device: ``cpu`` or ``cuda``.
        max_tokens: Tokens read of each text; the rest is ignored.
        batch: Texts read together.

    Raises:
        RewriterError: If base or adapter cannot be loaded.
    """

    def __init__(
        self,
        base: str,
        adapter: Path | None = None,
        *,
        question: Callable[[str], str] = str,
        device: str = "cpu",
        max_tokens: int = 640,
        batch: int = 8,
    ) -> None:
        self._tokenizer = load_tokenizer(base)
        self._model = load_model(base, adapter, device=device)
        self._question, self._batch = question, batch
        self._max_tokens = min(max_tokens, context_of(self._model.config.get_text_config()))

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Embed texts, ``(N, D)``."""
        rows = [
            self._tokenizer(self._question(text), add_special_tokens=False)["input_ids"][: self._max_tokens]
            for text in texts
        ]
        # Texts of similar length together, so that little is padding.
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
        mask = torch.zeros_like(ids)  # (B, T)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = torch.tensor(row, device=device)
            mask[place, : len(row)] = 1
        with torch.inference_mode():
            out = self._model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        states = out.hidden_states[-1].float()  # (B, T, D)
        present = mask.unsqueeze(-1)  # (B, T, 1)
        means: npt.NDArray[np.float64] = (
            ((states * present).sum(1) / present.sum(1).clamp(min=1)).double().cpu().numpy()
        )  # (B, D)
        return means
