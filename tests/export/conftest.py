"""Fixtures of export tests: the fake LEMUR as a tree and as a database, and an archive with valid trials."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from export_toys import RIGHT, WIDTHS, made_candidate, trained
from fake_lemur import make_database, make_tree

from nngen.archive import Archive
from nngen.datasets.dataset import Dataset
from nngen.plan import Plan
from nngen.testing.fakes import fake_record
from nngen.types import Outcome, Verdict


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "lemur")


@pytest.fixture
def database(tree: Path) -> Path:
    return make_database(tree)


@pytest.fixture
def store(tmp_path: Path, digits: Dataset) -> Iterator[Archive]:
    """Archive with three valid trials, one that failed and one that never ran."""
    with Archive.open(tmp_path / "nngen.db") as archive:
        made = [made_candidate(width) for width in WIDTHS]
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
