"""Fixtures of export tests: the fake LEMUR as a tree and as a database, and an archive with valid trials."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_lemur import make_database, make_tree, source

from nngen.archive import Archive
from nngen.assembly.identity import canonical_hash
from nngen.datasets.dataset import Dataset
from nngen.lemur.layout import nn_id
from nngen.plan import Plan
from nngen.testing.fakes import fake_record
from nngen.types import Candidate, EpochResult, Outcome, Shape, Trial, TrialSpec, Verdict

WIDTHS = (8, 16, 24)
RIGHT = (300, 200, 100)
"""Right answers of the three candidates among the 360 test images of digits (validation: in the same order)."""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "lemur")


@pytest.fixture
def database(tree: Path) -> Path:
    return make_database(tree)


def candidate(width: int) -> Candidate:
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


@pytest.fixture
def store(tmp_path: Path, digits: Dataset) -> Iterator[Archive]:
    """Archive with three valid trials, one that failed and one that never ran."""
    with Archive.open(tmp_path / "nngen.db") as archive:
        made = [candidate(width) for width in WIDTHS]
        plans = [one.plan for one in made if one.plan] + [Plan(experts=tuple("VWXY")), Plan(experts=tuple("WXYZ"))]
        archive.add_campaign(fake_record("one"), plans)
        for one, right, trial in zip(made, RIGHT, archive.trials("one"), strict=False):
            archive.add_candidate(one)
            archive.start_trial(trial.id)
            archive.finish_trial(trial.id, trained(one, digits, right))
        failed = archive.trials("one")[3]
        archive.start_trial(failed.id)
        archive.finish_trial(failed.id, Verdict(outcome=Outcome.SHAPE, rule="assembly", message="no"))
        yield archive


@pytest.fixture
def exports(store: Archive, digits: Dataset):
    from nngen.export.selection import gather, select

    return gather(store, select(store, campaign="one"), lambda *_: digits)


@pytest.fixture
def renamed(exports):
    """Archive with two trials of one candidate that differ in accuracy."""
    first = exports[0]
    return (first, replace(first, score=replace(first.score, accuracy=0.99)))
