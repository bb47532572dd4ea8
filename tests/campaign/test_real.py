"""Campaigns with LEMUR's families, the local engine and real images."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from nngen.archive import Archive, TrialState

LIGHT = "ICNet,MNASNet,MobileNetV3,ShuffleNet,SqueezeNet-1"
ARGUMENTS = ("--families", LIGHT, "--dataset", "digits", "--seed", "3", "--threads", "1", "--batch", "256")

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("wheel")]


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv("NNGEN_ARCHIVE", str(tmp_path / "a.db"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "a.db"


def essence(path):
    with Archive.open(path, readonly=True) as archive:
        return [(t.experts, t.candidate_id, t.spec, t.validation_accuracy, t.test_accuracy) for t in archive.trials()]


def training(path):
    """Return whether the first candidate has passed its check and is being trained."""
    if not path.exists():
        return False
    with Archive.open(path, readonly=True) as archive:
        return any(candidate.verdicts for candidate in archive.candidates())


@pytest.mark.timeout(600)
def test_a_campaign_killed_and_resumed_equals_an_undisturbed_one(nngen, path, tmp_path):
    command = [sys.executable, "-m", "nngen", "campaign", "run", "one", "--size", "2", *ARGUMENTS]
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        give_up = time.monotonic() + 300
        while not training(path):
            assert child.poll() is None
            assert time.monotonic() < give_up
            time.sleep(0.2)
    finally:
        child.kill()
        child.wait()
    with Archive.open(path, readonly=True) as archive:
        states = [t.state for t in archive.trials("one")]
    assert states[0] is TrialState.RUNNING
    assert TrialState.DONE not in states

    resumed = nngen("campaign", "run", "one", "--json")
    told = json.loads(resumed.out)
    assert (resumed.code, told["done"], told["failed"]) == (0, 2, 0)
    assert told["best"]["test_accuracy"] > 0.1
    assert len(resumed.err.splitlines()) == 3  # the isolation level, and two trials

    whole = nngen("campaign", "run", "two", "--size", "2", *ARGUMENTS, "--workers", "2", "--archive", tmp_path / "b.db")
    assert whole.code == 0
    assert f"test accuracy {told['best']['test_accuracy']:.4f}" in whole.out
    assert essence(path) == essence(tmp_path / "b.db")

    again = nngen("campaign", "run", "one", "--seed", "4")
    assert (again.code, again.out) == (2, "")
    assert again.err == (
        "nngen: campaign one began with --seed 3, not --seed 4: leave it out to go on, or choose another name\n"
    )
    narrowed = nngen("campaign", "run", "one", "--families", f"{LIGHT},AirNet", "--exclude", "AirNet", "--json")
    assert (narrowed.code, json.loads(narrowed.out)["done"]) == (0, 2)
    taken_over = nngen("campaign", "run", "three", "--size", "2", *ARGUMENTS)
    assert taken_over.code == 0
    with Archive.open(path, readonly=True) as archive:
        assert [t.copied_from for t in archive.trials("three")] == [1, 2]


def running(path):
    if not path.exists():
        return False
    with Archive.open(path, readonly=True) as archive:
        return archive.driver("one") is not None and archive.counts("one")[TrialState.RUNNING] > 0


def start(path):
    """Start the campaign in a separate process and wait until trials are running."""
    command = [sys.executable, "-m", "nngen", "campaign", "run", "one", "--size", "3", *ARGUMENTS]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    give_up = time.monotonic() + 200
    while not running(path):
        assert child.poll() is None
        assert time.monotonic() < give_up
        time.sleep(0.1)
    return child


@pytest.mark.timeout(600)
def test_stopped_from_elsewhere_and_interrupted(nngen, path):
    child = start(path)
    told = nngen("campaign", "stop", "one")
    assert (told.code, told.err) == (0, f"nngen: asked process {child.pid}, which runs campaign one, to stop\n")
    _, error = child.communicate(timeout=300)
    assert child.returncode == 0
    assert "nngen: ending: running trainings are finished" in error
    with Archive.open(path, readonly=True) as archive:
        assert archive.counts("one")[TrialState.RUNNING] == 0
        assert archive.driver("one") is None

    child = start(path)
    child.send_signal(signal.SIGINT)
    time.sleep(0.5)
    child.send_signal(signal.SIGINT)
    _, error = child.communicate(timeout=20)
    assert child.returncode == 130
    assert error.endswith("nngen: interrupted; run the same command again to go on\n")
    with Archive.open(path, readonly=True) as archive:
        assert archive.counts("one")[TrialState.RUNNING] == 0
        assert archive.counts("one")[TrialState.READY] > 0


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (("--size", "6", "--families", LIGHT), "5 families make only 5"),
        (("--size", "2", "--families", "ICNet,MNASNet,MobileNetV3"), "only 3"),
        (("--size", "2", "--families", "ICNet,MNASNet,MobileNetV3,ShufleNet"), "did you mean ShuffleNet"),
        (("--size", "2", "--families", "ICNet,ICNet,MobileNetV3,ShuffleNet"), "twice"),
        (("--size", "2", "--sampler", "stratifed"), "did you mean stratified"),
        (("--size", "2", "--dataset", "digit"), "no data set is called 'digit'"),
        (("--size", "2", "--shape", "32x32"), "3x32x32"),
        (("--size", "0", "--families", LIGHT), "--size must be a whole number from 1 to 1,000,000,000"),
        (("--size", "2", "--families", LIGHT, "--exclude", "ICNet"), "4 families make only 1"),
        (("--size", "2", "--families", LIGHT, "--exclude", "AirNet"), "AirNet: not in the pool of 5 families"),
        (("--epochs", "2"), "--size"),
        (("--size", "2", "--device", "tpu"), "tpu"),
    ],
)
def test_bad_arguments_get_one_line_and_leave_nothing(nngen, path, tokens, words):
    result = nngen("campaign", "run", "one", *tokens)
    assert words in result.err
    assert (result.code, result.out, len(result.err.splitlines())) == (2, "", 1)
    assert list(path.parent.iterdir()) == []


def test_an_archive_that_cannot_be_made(nngen, path):
    result = nngen("campaign", "run", "one", "--size", "2", "--archive", path.parent / "no" / "a.db")
    assert (result.code, len(result.err.splitlines())) == (1, 1)
    assert "does not exist" in result.err


@pytest.mark.timeout(600)
def test_baselines_are_trained_after_the_campaign_and_compared_with_it(nngen, path):
    done = nngen("campaign", "run", "one", "--size", "1", *ARGUMENTS, "--train-size", "200", "--baselines", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["done"], told["baselines"]["campaign"], told["baselines"]["done"]) == (1, "one-alone-1", 5)
    (row,) = told["gains"]["mixtures"]
    with Archive.open(path, readonly=True) as archive:
        (mixture,) = archive.trials("one")
        alone = {trial.experts[0]: trial for trial in archive.trials("one-alone-1")}
        assert {point.samples for trial in (mixture, *alone.values()) for point in trial.curve} == {200}
    best = max(row["experts"], key=lambda name: alone[name].validation_accuracy)
    assert row["best_accuracy"] == alone[best].validation_accuracy
    assert row["over_best"]["mean"] == pytest.approx(mixture.validation_accuracy - row["best_accuracy"])
    assert 0 < row["pooled_accuracy"] < 1
    assert row["parameters"] > 1
    again = nngen("campaign", "run", "one")
    assert again.code == 0
    assert "campaign one-alone-1: 5 of 5 trials done" in again.out
    assert "against the best of their own families alone" in again.out
