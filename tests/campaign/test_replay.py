"""Replays of LEMUR's records: which records, with which settings, stored once, and the command on real images."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from sqlite3 import IntegrityError
from types import SimpleNamespace

import fake_lemur as fake
import numpy as np
import pytest
from sklearn.datasets import load_digits

from nngen.archive import Archive
from nngen.archive.check import check
from nngen.campaign import replay
from nngen.campaign.replay import OfficialSplits, _hash, choose_replays, load_official, open_replays, run_replays
from nngen.datasets.registry import DigitsSource
from nngen.datasets.source import Raw, Request
from nngen.errors import ArchiveError, DataError, UsageError
from nngen.files import cache_dir
from nngen.isolation.limits import Isolation
from nngen.lemur.layout import nn_id
from nngen.lemur.reader import CheckoutLemur
from nngen.testing.fakes import FakeEngine, fake_dataset
from nngen.training.engine import KILLED, TrainJob
from nngen.types import Candidate, Outcome, Shape, Trial, TrialSpec, Verdict

STORED = Shape(1, 28, 28)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """LEMUR with records of Alpha on MNIST: replayable ones, and one for each reason against it."""
    root = fake.make_tree(tmp_path / "nn-dataset")
    records = [
        fake.trial(0.9, transform="norm_32_flip"),
        fake.trial(0.95, transform="echo", batch=32),
        fake.trial(0.94, transform="echo", batch=64),
        fake.trial(0.8, transform="norm_64", dilated=True),
        fake.trial(0.7, transform="bf-v1-Pad_38"),
        fake.trial(0.7, transform="complex_32"),
        fake.trial(0.7, pretrained=1.0),
        fake.trial(0.7, batch=1),
    ]
    folder = root / "ab/nn/stat/train/img-classification_mnist_acc_Alpha"
    (folder / "1.json").write_text(json.dumps(records))
    (folder / "3.json").write_text(json.dumps([fake.trial(0.99)]))
    return root


def choose(tree: Path, models: tuple[str, ...] = ("Alpha",), settings: dict | None = None, **changes):
    base = TrialSpec(dataset="mnist", shape=STORED, **(settings or {}))
    return choose_replays(CheckoutLemur(tree), models, base, **{"epochs": 1, "count": 9} | changes)


def test_records_become_trainings_with_their_own_settings(tree):
    jobs, left_out = choose(tree)
    found = {job.record.accuracy: job for job in jobs}
    assert set(found) == {0.94, 0.95, 0.9, 0.8}
    echo, norm = found[0.94], found[0.9]
    assert (echo.spec.shape, echo.spec.batch, echo.spec.augment) == (STORED, 64, "none")
    assert (echo.transform.mean, echo.transform.std) == ((0.0,), (1.0,))
    assert (norm.spec.shape, norm.spec.augment) == (Shape(1, 32, 32), "flip")
    assert (norm.transform.mean, norm.transform.std) == ((0.1307,), (0.3081,))
    assert norm.spec.hyperparameters == {"transform": "norm_32_flip"}
    assert (norm.spec.lr, norm.spec.momentum) == (0.01, 0.9)
    reasons = {reason for _, reason in left_out}
    assert reasons == {
        "transform bf-v1-Pad_38 has no equal in nngen",
        "its transform makes images complex",
        "it began from pretrained weights",
        "batch must be a whole number from 2 to 65,536, not 1",
    }
    assert set(left_out.values()) == {1}


def test_the_choice_does_not_look_at_accuracies(tree):
    (chosen,) = choose(tree, count=1)[0]
    assert chosen.spec.shape == STORED
    file = tree / "ab/nn/stat/train/img-classification_mnist_acc_Alpha" / "1.json"
    records = json.loads(file.read_text())
    for record, accuracy in zip(records, (0.1, 0.94, 0.95), strict=False):
        record["accuracy"] = accuracy
    file.write_text(json.dumps(records))
    assert choose(tree, count=1)[0][0].key == chosen.key
    assert choose(tree, count=1, settings={"seed": 1})[0][0].key[:-1] == chosen.key[:-1]
    jobs, left_out = choose(tree, max_side=32, min_batch=64)
    assert {job.record.accuracy for job in jobs} == {0.95, 0.1}
    assert left_out["Alpha", "images of more than 32 px"] == left_out["Alpha", "batches of fewer than 64"] == 1


def test_settings_are_told_apart_by_hashes_that_no_seed_changes(tree):
    first, second = (sorted(choose(tree, settings={"seed": seed})[0], key=_hash) for seed in (0, 1))
    assert [_hash(job) for job in first] == [_hash(job) for job in second]
    assert len({_hash(job) for job in first}) == 4
    assert json.dumps(next(job.spec.hyperparameters for job in first if job.record.accuracy == 0.8)) == (
        '{"dilated": 1, "transform": "norm_64"}'
    )


def test_a_record_without_a_batch_is_not_replayed(tree):
    record = fake.trial(0.9)
    del record["batch"]
    (tree / "ab/nn/stat/train/img-classification_mnist_acc_Alpha/1.json").write_text(json.dumps([record]))
    reason = "batch must be a whole number from 2 to 65,536, not 0"
    assert choose(tree) == ([], {("Alpha", reason): 1})


def test_models_and_epochs_without_records_are_named(tree):
    assert choose(tree, epochs=2) == ([], {("Alpha", "no record after 2 epochs, of 3 at most"): 1})
    with pytest.raises(UsageError, match="no records of Beta on 'mnist'; data sets with records of it: cifar-10"):
        choose(tree, ("Beta",))
    with pytest.raises(UsageError, match="did you mean Alpha"):
        choose(tree, ("Alpa",))


def test_results_are_stored_once_and_apart(tree, tmp_path):
    jobs, _ = choose(tree)
    data = {"mnist": fake_dataset()}
    with Archive.open(tmp_path / "a.db") as archive, ThreadPoolExecutor(2) as threads:
        engine = FakeEngine(slots=2)
        found = list(run_replays(jobs[:3], engine=engine, threads=threads, archive=archive, data=data))
        assert len(found) == 3 and all(0 <= result.accuracy <= 1 for result in found)
        done, missing = open_replays(jobs, archive, "d1")
        assert sorted(one.accuracy for one in done) == sorted(one.accuracy for one in found)
        assert missing == jobs[3:]
        assert open_replays(jobs, archive, "other images") == ([], jobs)
        assert open_replays(choose(tree, settings={"seed": 1})[0], archive, "d1")[0] == []
        assert archive.trials() == () and archive.campaigns() == ()
        with pytest.raises(IntegrityError, match="keeps its replays as they are"):
            archive._db.execute("UPDATE replays SET accuracy = 1")
    assert check(tmp_path / "a.db").rows["replays"] == 3


def out_of_memory(job) -> Trial:
    return Trial(candidate_id=job.candidate.id, spec=job.spec, verdict=Verdict(outcome=Outcome.MEMORY))


def test_a_failure_is_tried_again_with_other_limits_alone(tree):
    jobs, _ = choose(tree, count=1)
    with Archive.in_memory() as archive, ThreadPoolExecutor(1) as threads:
        engine = SimpleNamespace(slots=1, train=out_of_memory)
        run = {"engine": engine, "threads": threads, "archive": archive, "data": {"mnist": fake_dataset()}}
        (failed,) = run_replays(jobs, **run)
        assert failed.accuracy is None
        assert open_replays(jobs, archive, "d1")[1] == []
        wider = choose(tree, count=1, settings={"memory_mib": 20_000})[0]
        assert open_replays(wider, archive, "d1")[1] == wider


def test_a_training_with_smaller_batches_is_no_repetition_and_a_killed_one_is_tried_again(tree):
    jobs, _ = choose(tree, count=1)
    valid, killed = Verdict(outcome=Outcome.VALID), Verdict(outcome=Outcome.CRASHED, rule=KILLED)

    def replayed(archive, verdict, batch):
        trial = Trial(
            candidate_id="x", spec=jobs[0].spec, verdict=verdict, validation_accuracy=0.5, batch=batch, seconds=2.0
        )
        with ThreadPoolExecutor(1) as threads:
            engine = SimpleNamespace(slots=1, train=lambda _: trial)
            data = {"mnist": fake_dataset()}
            (result,) = run_replays(jobs, engine=engine, threads=threads, archive=archive, data=data)
        return result, open_replays(jobs, archive, "d1")[1]

    asked = jobs[0].spec.batch
    for verdict, batch, outcome, accuracy, missing in (
        (killed, None, Outcome.CRASHED, 0.5, jobs),
        (valid, asked // 2, Outcome.MEMORY, None, []),
    ):
        with Archive.in_memory() as archive:
            result, left = replayed(archive, verdict, batch)
            assert (result.verdict.outcome, result.accuracy, result.seconds, left) == (outcome, accuracy, 2.0, missing)
    assert result.verdict.message == f"memory suffices for batches of {asked // 2}, not of {asked}: raise --memory-mib"
    with Archive.in_memory() as archive:
        assert replayed(archive, valid, asked)[0].accuracy == replayed(archive, valid, None)[0].accuracy == 0.5


def test_a_damaged_row_is_named_with_the_way_out(tree, tmp_path):
    jobs, _ = choose(tree, count=1)
    with Archive.open(tmp_path / "a.db") as archive, ThreadPoolExecutor(1) as threads:
        run = {"engine": FakeEngine(), "threads": threads, "archive": archive, "data": {"mnist": fake_dataset()}}
        list(run_replays(jobs, **run))
        archive._db.execute("DROP TRIGGER replays_no_update")
        archive._db.execute("UPDATE replays SET spec = '{'")
        with pytest.raises(ArchiveError, match="spec is not valid JSON: restore a copy, or run nngen archive check"):
            open_replays(jobs, archive, "d1")
    assert list(check(tmp_path / "a.db").problems.values()) == ["spec is not valid JSON"]


def test_no_training_begins_after_the_time(tree):
    jobs, _ = choose(tree)
    left = [True, True, False]
    with Archive.in_memory() as archive, ThreadPoolExecutor(1) as threads:
        run = {"engine": FakeEngine(), "threads": threads, "archive": archive, "data": {"mnist": fake_dataset()}}
        assert len(list(run_replays(jobs, **run, more=lambda: left.pop(0) if left else False))) == 1


def test_data_without_an_official_test_split():
    with pytest.raises(DataError, match="digits has no official test split"):
        OfficialSplits(DigitsSource()).decode()
    with pytest.raises(UsageError, match="'digits' cannot be replayed: choose mnist"):
        load_official("digits")


@pytest.fixture
def mnist(tmp_path: Path, cache: Path) -> Path:
    """Real digits of scikit-learn, 28x28, as the four files of MNIST."""
    images, labels = load_digits(return_X_y=True)
    large = np.kron(images.reshape(-1, 8, 8) * 15, np.ones((3, 3)))  # 24x24
    pixels = np.pad(large, ((0, 0), (2, 2), (2, 2))).astype(np.uint8)
    folder = tmp_path / "mnist"
    folder.mkdir()
    for split, part in (("train", slice(0, 1500)), ("t10k", slice(1500, None))):
        for kind, array in (("images-idx3", pixels[part]), ("labels-idx1", labels[part].astype(np.uint8))):
            head = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
            (folder / f"{split}-{kind}-ubyte").write_bytes(head + array.tobytes())
    return folder


@pytest.mark.engine
def test_the_command_trains_stores_and_goes_on(nngen, tree, mnist, tmp_path, monkeypatch):
    monkeypatch.setenv("NNGEN_LEMUR", str(tree))
    tokens = ["lemur", "replay", "Alpha", "--dataset", "mnist", "--records", "2", "--data-root", mnist]
    tokens += ["--archive", tmp_path / "a.db", "--json"]
    first = nngen(*tokens)
    assert first.code == 0, first.err
    found = json.loads(first.out)
    assert (found["replayed"], len(found["records"])) == (2, 2)
    for row in found["records"]:
        assert row["difference"] == pytest.approx(row["accuracy"] - row["recorded"])
        assert 0 <= row["accuracy"] < 1 and row["parameters"] > 100
    assert "1 record of Alpha cannot be replayed: transform bf-v1-Pad_38 has no equal in nngen" in first.err
    assert "2 of 2  Alpha  recorded" in first.err
    assert first.next.startswith("nngen fidelity")
    again = nngen(*tokens)
    assert json.loads(again.out) == found
    assert "recorded" not in again.err
    table = nngen(*tokens[:-1])
    assert "mean difference" in table.out


@pytest.mark.long
def test_a_dry_run_states_the_time_of_each_replay_and_stores_nothing(nngen, tree, mnist, tmp_path, monkeypatch):
    monkeypatch.setenv("NNGEN_LEMUR", str(tree))
    tokens = ["lemur", "replay", "Alpha", "--dataset", "mnist", "--data-root", mnist, "--archive", tmp_path / "a.db"]
    found = json.loads(nngen(*tokens, "--records", "2", "--dry-run", "--json").out)
    assert found["replays"] == len(found["records"]) == 2
    assert all(row["seconds"] > 0 and not row["message"] for row in found["records"])
    assert found["hours"] == pytest.approx(sum(row["seconds"] for row in found["records"]) / 3600)
    table = nngen(*tokens, "--dry-run", "--memory-mib", "300")
    assert "dry run: nothing is trained or stored; 1 record to replay" in table.out
    assert not (tmp_path / "a.db").exists()


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["--dataset", "imagenette"], "records on 'imagenette' cannot be replayed: choose mnist, cifar-10"),
        (["Alpa", "--dataset", "mnist"], "did you mean Alpha"),
        (["Beta", "--dataset", "mnist"], "LEMUR has no records of Beta on 'mnist'"),
        (["Alpha", "--dataset", "mnist", "--epochs", "2"], "none of the records after 2 epochs on mnist"),
        (["Alpha", "--records", "0"], "--records must be"),
    ],
)
def test_refused_in_one_line(nngen, tree, mnist, tmp_path, monkeypatch, tokens, message):
    monkeypatch.setenv("NNGEN_LEMUR", str(tree))
    result = nngen("lemur", "replay", *tokens, "--data-root", mnist, "--archive", tmp_path / "a.db")
    assert result.code in (1, 2) and result.out == ""
    assert message in result.err.splitlines()[-1]
    assert not (tmp_path / "a.db").exists()


def test_the_official_test_split_stands_in_the_place_of_validation():
    @dataclass(frozen=True)
    class Made:
        name: str = "made"
        default_shape = None
        lacks: str = ""

        def key(self):
            return "k1"

        def decode(self):
            raw = Raw(classes=2, images=np.zeros((3, 1, 8, 8), np.uint8), labels=np.arange(3), class_names=("a", "b"))
            parts = {"test_images": np.arange(30), "test_labels": np.arange(30) % 2}
            return replace(raw, **{name: part for name, part in parts.items() if name != self.lacks})

    official = OfficialSplits(Made())
    raw = official.decode()
    assert (official.name, official.key(), official.default_shape) == ("official-made", "k1", None)
    assert (raw.validation_images.tolist(), raw.validation_labels.tolist()) == ([*range(30)], [0, 1] * 15)
    assert (raw.test_images.tolist(), raw.test_labels.tolist()) == ([*range(10)], [0, 1] * 5)
    assert (len(raw.images), raw.labels.tolist(), raw.class_names) == (3, [0, 1, 2], ("a", "b"))
    for lacks in ("test_images", "test_labels"):
        with pytest.raises(DataError, match="made has no official test split"):
            OfficialSplits(Made(lacks=lacks)).decode()


def test_a_replay_is_trained_on_the_images_of_its_record_and_stored_whole(tree):
    jobs, _ = choose(tree, settings={"seed": 4})
    seen, data = [], fake_dataset()

    def train(job):
        seen.append(job)
        verdict = Verdict(outcome=Outcome.VALID)
        measured = {"validation_accuracy": 0.25, "parameters": 77, "seconds": 3.5, "batch": job.spec.batch}
        return Trial(candidate_id=job.candidate.id, spec=job.spec, verdict=verdict, **measured)

    with Archive.in_memory() as archive, ThreadPoolExecutor(1) as threads:
        engine = SimpleNamespace(slots=1, train=train)
        run = {"engine": engine, "threads": threads, "archive": archive, "data": {"mnist": data}}
        found = list(run_replays(jobs, **run))
        assert [replay.record for replay in found] == [job.record for job in jobs]
        for job, training, replay in zip(jobs, seen, found, strict=True):
            images = training.dataset
            assert (images.mean, images.std) == (job.transform.mean, job.transform.std)
            assert (images.train_images is data.train_images, images.classes) == (True, 10)
            assert training == TrainJob(
                candidate=Candidate(id=nn_id(job.family.source), source=job.family.source, canonical=""),
                spec=job.spec,
                dataset=images,
                isolation=Isolation.SANDBOX,
            )
            assert (replay.nn_id, replay.spec, replay.data_fingerprint) == (training.candidate.id, job.spec, "d1")
            assert (replay.accuracy, replay.parameters, replay.seconds) == (0.25, 77, 3.5)
            assert replay.verdict == Verdict(outcome=Outcome.VALID)
        done, missing = open_replays(jobs, archive, "d1")
        assert missing == []
        for stored, replay in zip(done, found, strict=True):
            for name in ("nn_id", "data_fingerprint", "verdict", "accuracy", "parameters", "seconds"):
                assert getattr(stored, name) == getattr(replay, name)
            assert stored.record.accuracy == replay.record.accuracy
        # A result holds whatever the limits were.
        wider = choose(tree, settings={"seed": 4, "memory_mib": 20_000})[0]
        assert len(open_replays(wider, archive, "d1")[0]) == len(jobs)


@pytest.mark.parametrize("slots", [1, 2])
def test_no_more_replays_run_at_once_than_the_engine_takes(tree, slots):
    jobs, _ = choose(tree)
    lock, running, most = threading.Lock(), 0, 0
    meeting = threading.Barrier(slots, timeout=60)

    def train(job):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        meeting.wait()  # so many at least; four jobs are a multiple of one and two
        with lock:
            running -= 1
        return out_of_memory(job)

    with Archive.in_memory() as archive, ThreadPoolExecutor(9) as threads:
        engine = SimpleNamespace(slots=slots, train=train)
        run = {"engine": engine, "threads": threads, "archive": archive, "data": {"mnist": fake_dataset()}}
        assert len(list(run_replays(jobs, **run))) == len(jobs) == 4
    assert most == slots


def test_the_images_are_those_below_the_folder_asked_for_or_of_torchvision_in_the_cache(tmp_path, cache, monkeypatch):
    asked = []
    monkeypatch.setattr(replay, "find_source", lambda request: asked.append(request) or SimpleNamespace(name="x"))
    monkeypatch.setattr(replay, "load_source", lambda source, progress: (source.name, progress))
    assert load_official("mnist", data_root=tmp_path, progress=print) == ("official-x", print)
    assert load_official("cifar-10") == ("official-x", None)
    assert asked == [
        Request(name="mnist", root=tmp_path, progress=print),
        Request(name="cifar-10", root=cache_dir() / "torchvision"),
    ]


def test_the_smallest_batch_is_two(tree):
    file = tree / "ab/nn/stat/train/img-classification_mnist_acc_Alpha/1.json"
    file.write_text(json.dumps([fake.trial(0.9, batch=batch) for batch in (2, 3)]))
    assert sorted(job.spec.batch for job in choose(tree)[0]) == [2, 3]
    jobs, left_out = choose(tree, min_batch=3)
    assert ([job.spec.batch for job in jobs], left_out) == ([3], {("Alpha", "batches of fewer than 3"): 1})
