"""Score of a model on the answers of held-out dialogues."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from nngen.llm.finetuning.trainer import Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Score of a model on the answers of held-out dialogues."""

    rows: int
    tokens: int  # number of answer tokens
    loss: float  # mean negative log-likelihood of an answer token, in nats
    token_accuracy: float  # share of answer tokens that are the model's most likely one, in [0, 1]


def held_out(model: Any, rows: Sequence[Tokens]) -> HeldOut:
    """Score a model on dialogues, one at a time."""
    loss, right, tokens = 0.0, 0, 0
    training = model.training
    model.eval()
    bare = model.get_base_model() if hasattr(model, "get_base_model") else model
    keeps = "logits_to_keep" in inspect.signature(bare.forward).parameters
    with torch.inference_mode():
        for row in rows:
            ids = torch.tensor([row.ids], device=model.device)
            count = len(row.answer)
            # The logits at one position predict the token at the next one.
            kept = {"logits_to_keep": count + 1} if keeps else {}
            logits = model(ids, **kept).logits[0, -count - 1 : -1].float()  # (count, V)
            answer = ids[0, -count:]
            loss += float(torch.nn.functional.cross_entropy(logits, answer, reduction="sum"))
            right += int((logits.argmax(-1) == answer).sum())
            tokens += count
    model.train(training)
    whole = max(tokens, 1)
    return HeldOut(rows=len(rows), tokens=tokens, loss=loss / whole, token_accuracy=right / whole)
