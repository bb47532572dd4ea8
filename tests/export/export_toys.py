"""Candidates and finished trials for archives whose trials are exported."""

from __future__ import annotations

import numpy as np
from fake_lemur import source

from nngen.assembly.identity import canonical_hash
from nngen.datasets.dataset import Dataset
from nngen.lemur.layout import nn_id
from nngen.plan import Plan
from nngen.types import Candidate, EpochResult, Outcome, Shape, Trial, TrialSpec, Verdict

WIDTHS = (8, 16, 24)
RIGHT = (300, 200, 100)
"""Right answers of the three candidates among the 360 test images of digits (validation: in the same order)."""


def made_candidate(width: int) -> Candidate:
    text = source(width)
    plan = Plan(experts=("A", "B", "C", f"D{width}"))
    return Candidate(id=f"MoE4-{nn_id(text)}", source=text, canonical=canonical_hash(text), plan=plan)


def trained(made: Candidate, digits: Dataset, right: int, **spec) -> Trial:
    """Return a finished trial whose first ``right`` test predictions are correct."""
    labels = np.asarray(digits.test_labels)
    answers = np.where(np.arange(len(labels)) < right, labels, (labels + 1) % 10).astype("<u2")
    settled = TrialSpec(dataset="digits", shape=Shape(1, 32, 32), epochs=2, **spec)
    prm = {"lr": settled.lr, "momentum": settled.momentum, "batch": settled.batch, "epoch": 2, "dropout": 0.2}
    return Trial(
        candidate_id=made.id,
        spec=settled,
        verdict=Verdict(outcome=Outcome.VALID),
        validation_accuracy=right / 400,
        curve=(
            EpochResult(epoch=1, validation_accuracy=0.1, train_loss=2.0, seconds=1.5),
            EpochResult(epoch=2, validation_accuracy=right / 400, train_loss=1.0, train_accuracy=0.5, seconds=2.0),
        ),
        test_predictions=answers.tobytes(),
        parameters=1234,
        data_fingerprint=digits.fingerprint,
        prm=prm,
        environment={"cpu": "a processor", "cores": "2"},
    )
