"""Imported models, results and replays: stored once, read in order, and whole."""

import sqlite3
from dataclasses import replace

import pytest

from nngen.archive import Archive
from nngen.archive.external import Added, ExternalModel, ExternalResult, Replay
from nngen.errors import ArchiveError
from nngen.types import Outcome, Record, Shape, TrialSpec, Verdict

MODELS = [
    ExternalModel(origin="w", name="Beta", kind="base", nn_id="n1", canonical=None, source="b"),
    ExternalModel(origin="w", name="Alpha", kind="mixture", nn_id="n2", canonical="c", source="a"),
    ExternalModel(origin="w", name="Alpha", kind="base", nn_id="n3", canonical="d", source="a2"),
]
RECORD = Record(
    model="Alpha", dataset="mnist", epoch=2, accuracy=0.5, duration_s=3.0, hyperparameters={"lr": 0.1, "batch": 8}
)
REPLAY = Replay(
    record=replace(RECORD, duration_s=0.0),
    nn_id="n2",
    spec=TrialSpec(dataset="mnist", shape=Shape(1, 28, 28), seed=4, lr=0.1),
    data_fingerprint="d1",
    verdict=Verdict(outcome=Outcome.CRASHED, message="no memory"),
    accuracy=0.25,
    parameters=1234,
    seconds=2.5,
)


@pytest.fixture
def archive(tmp_path):
    with Archive.open(tmp_path / "a.db") as made:
        yield made


def test_models_are_stored_once_and_read_by_name(archive):
    numbers = archive.external.add_models(MODELS)
    assert numbers == {"Beta": 1, "Alpha": 3}
    assert archive.external.add_models(MODELS[:1]) == {"Beta": 1}
    assert list(archive.external.models()) == [MODELS[1], MODELS[2], MODELS[0]]
    assert list(archive.external.models("base")) == [MODELS[2], MODELS[0]]
    [(at,)] = archive._db.execute("SELECT DISTINCT created_at FROM foreign_models").fetchall()
    assert len(at) == len("2026-01-01T00:00:00.000+00:00")


def test_results_are_stored_once_and_read_best_first(archive):
    number = archive.external.add_models(MODELS[:1])["Beta"]

    def result(task="img-classification", metric="acc", uid="u", **changes):
        record = replace(RECORD, **{"model": "Beta", **changes})
        return ExternalResult(model_id=number, task=task, metric=metric, uid=uid, record=record)

    first = result()
    results = [
        first,
        result(accuracy=0.75, uid="v", hyperparameters={"lr": 0.2}),
        result(epoch=1),
        result(dataset="cifar-10"),
        result(task="text"),
        result(metric="iou"),
        first,
    ]
    assert archive.external.add_results(results) == Added(offered=7, new=6)
    assert archive.external.add_results([first]) == Added(offered=1, new=0)
    assert archive.external.counts() == {"models": 1, "series": 4, "settings": 2, "trials": 6}
    ordered = [results[3], results[2], results[1], results[0]]
    assert list(archive.external.records()) == [each.record for each in ordered]
    assert list(archive.external.records(dataset="mnist", epoch=2)) == [results[1].record, results[0].record]
    assert list(archive.external.records(task="text", model="Beta")) == [results[4].record]
    assert list(archive.external.records(metric="iou")) == [results[5].record]
    assert list(archive.external.records(model="Alpha")) == []


def test_a_replay_is_read_as_it_was_stored(archive):
    failed = replace(REPLAY, accuracy=None, parameters=None, verdict=Verdict(outcome=Outcome.VALID))
    for replay in (REPLAY, failed, replace(REPLAY, record=replace(REPLAY.record, epoch=3))):
        archive.external.add_replay(replay)
    assert archive.external.replays("mnist", 2) == [REPLAY, failed]
    assert archive.external.replays("cifar-10", 2) == []


def test_a_replay_that_cannot_be_read_names_its_column(archive):
    archive.external.add_replay(REPLAY)
    path = archive.path
    db = sqlite3.connect(path)
    db.execute("DROP TRIGGER replays_no_update")
    db.execute("UPDATE replays SET outcome = 'great'")
    db.commit()
    db.close()
    with pytest.raises(ArchiveError) as caught:
        archive.external.replays("mnist", 2)
    message = str(caught.value)
    assert message == (
        f"archive {path}: a row of replays: outcome cannot be read ('great' is not a valid Outcome): restore a copy,"
        " or run nngen archive check --salvage"
    )
