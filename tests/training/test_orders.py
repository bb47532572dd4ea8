"""Orders of trainings, predictions of memory to the digit, the choice of devices, and sizes of frames."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from nngen import __version__
from nngen.errors import UsageError
from nngen.families.profile import TrainingCost
from nngen.isolation import Isolation
from nngen.isolation.protocol import MESSAGE
from nngen.plan import Plan
from nngen.testing.fakes import fake_dataset
from nngen.training import environment
from nngen.training.engine import TrainJob
from nngen.training.environment import describe, pick_device
from nngen.training.frames import FrameKind, last_line, proof_size
from nngen.training.memory_model import Prediction, _is_small, predict, refusal
from nngen.training.orders import CheckOrder, TrainOrder, artifact_metadata
from nngen.types import Candidate, Shape, TrialSpec

SPEC = TrialSpec(
    dataset="fake",
    shape=Shape(1, 8, 8),
    epochs=3,
    batch=16,
    lr=0.1,
    momentum=0.8,
    seed=5,
    augment="flip",
    train_size=7,
    threads=2,
    hyperparameters={"depth": 2, "lr": 9.0},
)
JOB = TrainJob(
    candidate=Candidate(id="MoE4-x", source="", canonical="", plan=Plan(experts=tuple("ABCD"))),
    spec=SPEC,
    dataset=fake_dataset(),
    isolation=Isolation.PROCESS,
)


def test_an_order_has_the_settings_of_its_job_and_travels_as_json():
    order = TrainOrder.of(JOB, compiled=True, artifacts=("weights",), done=1, whole_mib=3.0, metadata={"a": "b"})
    assert order.hyperparameters == {"depth": 2, "lr": 0.1, "momentum": 0.8, "batch": 16, "epoch": 3}
    assert (order.shape, order.classes, order.epochs, order.batch, order.seed) == (Shape(1, 8, 8), 10, 3, 16, 5)
    assert (order.augment, order.mean, order.std, order.train_size) == ("flip", (0.5,), (0.5,), 7)
    assert (order.device, order.threads, order.compiled, order.artifacts) == ("cpu", 2, True, ("weights",))
    assert (order.done, order.whole_mib, order.metadata, order.class_weights) == (1, 3.0, {"a": "b"}, ())
    assert (order.start, order.experts, order.logits, order.goes_on) == (False, 0, False, False)
    assert TrainOrder.from_json(json.loads(json.dumps(order.to_json()))) == order
    check = CheckOrder(shape=Shape(3, 4, 5), classes=2, hyperparameters={"a": 1}, device="cpu", threads=1)
    assert CheckOrder.from_json(json.loads(json.dumps(check.to_json()))) == check


def test_an_order_that_an_older_version_stored_lacks_what_came_later():
    plain = TrainOrder.of(replace(JOB, spec=replace(SPEC, train_size=None)))
    assert (plain.done, plain.whole_mib, plain.experts, plain.metadata, plain.artifacts) == (0, 512.0, 0, {}, ())
    later = ("train_size", "logits", "compiled", "class_weights", "artifacts", "start", "experts", "done", "whole_mib")
    old = {name: value for name, value in plain.to_json().items() if name not in (*later, "metadata")}
    assert TrainOrder.from_json(json.loads(json.dumps(old))) == plain


def test_weights_to_start_from_are_counted(tmp_path):
    started = TrainOrder.of(replace(JOB, start=tmp_path, experts=(tmp_path, tmp_path), logits=True))
    assert (started.start, started.experts, started.logits) == (True, 2, True)


def test_a_training_goes_on_where_its_schedule_is_longer():
    longer = TrainOrder.of(replace(JOB, spec=replace(SPEC, horizon=9)))
    assert (longer.hyperparameters["epoch"], longer.epochs, longer.goes_on) == (9, 3, True)


def test_files_say_what_they_are_a_result_of():
    found = artifact_metadata(JOB)
    own = {"model": "MoE4-x", "data": "d1", "epochs": "3", "seed": "5"}
    assert found == fake_dataset().preprocessing(SPEC.shape).to_metadata() | own


COST = TrainingCost(weights_mib=10.0, image_mib=2.0, image_s=0.3, step_s=0.6)
KNOWN = dict.fromkeys("ABCD", COST)


@pytest.mark.parametrize(
    ("changes", "frozen", "fixed", "image", "likely", "seconds"),
    [
        ({}, False, 200 + 4 * 40, 8.0, 330 + 1.4 * (160 + 16 * 8), 3 * (100 * 1.2 / 2 + 7 * 2.4)),
        ({"batch": 500}, False, 360, 8.0, 330 + 1.4 * (160 + 100 * 8), 3 * (100 * 1.2 / 2 + 1 * 2.4)),
        ({"device": "cuda"}, False, 300 + 160, 4.0, 550 + 1.4 * (160 + 16 * 4), None),
        ({}, True, 200 + 40, 0.0, 330 + 1.4 * (40 + 16 * 2), 100 * 1.2 / 2 + 7 * 2.4),
    ],
)
def test_memory_and_time_are_predicted_to_the_digit(changes, frozen, fixed, image, likely, seconds):
    found = predict("ABCD", KNOWN, replace(SPEC, **changes), 100, frozen=frozen)
    assert (found.fixed_mib, found.image_mib) == (pytest.approx(fixed), pytest.approx(image))
    assert found.likely_mib == pytest.approx(likely)
    assert found.seconds == (None if seconds is None else pytest.approx(seconds))
    assert found.low_mib(10) == pytest.approx(fixed + 10 * image)


def test_only_what_cannot_fit_in_the_smallest_batch_is_refused():
    found = Prediction(fixed_mib=100.0, image_mib=50.0, likely_mib=0.0, seconds=None)
    assert refusal(found, 200.0) is None
    assert refusal(found, 199.5).message == (
        "needs 200 MiB at least, even in batches of 2; there are 200: use lighter families, lower --shape, or raise"
        " --memory-mib"
    )


def test_small_trainings_are_not_predicted():
    pixels = 16 * 8 * 8
    border = 4096 + 0.034 * pixels
    assert _is_small(replace(SPEC, memory_mib=int(border) + 1))
    assert not _is_small(replace(SPEC, memory_mib=int(border)))
    assert not _is_small(replace(SPEC, memory_mib=int(border) + 1, device="cuda"))
    whole = replace(SPEC, batch=10, shape=Shape(1, 5, 20))
    assert [_is_small(replace(whole, memory_mib=4130 - less)) for less in (0, 1)] == [True, False]


def test_a_device_is_looked_for_only_where_the_work_is_done(monkeypatch):
    for works in (False, True):
        monkeypatch.setattr("nngen.training.environment._cuda_works", lambda works=works: works)
        assert pick_device("cpu") == "cpu"
        assert pick_device("cuda", here=False) == "cuda"
        assert pick_device() == ("cuda" if works else "cpu")
    assert pick_device("cuda") == "cuda"
    monkeypatch.setattr("nngen.training.environment._cuda_works", lambda: False)
    with pytest.raises(UsageError, match="torch finds no CUDA device here"):
        pick_device("cuda")
    with pytest.raises(UsageError, match="unknown device 'gpu'"):
        pick_device("gpu")


@pytest.mark.parametrize(
    ("text", "processor", "cpu"),
    [
        ("vendor_id : A\nmodel name\t: Fast: 3 GHz \nmodel name : other\n", "other", "Fast: 3 GHz"),
        ("vendor_id : A\n", "arm v8", "arm v8"),
        (None, "", "aarch64"),
    ],
)
def test_the_machine_is_described(text, processor, cpu, monkeypatch):
    def read():
        if text is None:
            raise OSError
        return text

    monkeypatch.setattr(environment, "Path", lambda path: SimpleNamespace(read_text=read))
    for name, answer in (("processor", processor), ("machine", "aarch64"), ("platform", "Linux-6")):
        monkeypatch.setattr(f"platform.{name}", lambda answer=answer: answer)
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert describe({"torch": "2"}, device="a card", threads=3) == {
        "nngen": __version__,
        "torch": "2",
        "platform": "Linux-6",
        "cpu": cpu,
        "cores": "6",
        "device": "a card",
        "threads": "3",
    }


def test_each_kind_of_frame_has_a_number_of_its_own():
    assert {name: int(kind) for name, kind in FrameKind.__members__.items()} == {
        "VALIDATION": 2,
        "TEST": 3,
        "FILE": 4,
        "PROOF": 5,
        "LOGITS": 6,
        "OUTPUTS": 7,
    }
    assert MESSAGE not in list(FrameKind)


def test_sizes_of_answers_and_lines_of_sources():
    assert proof_size(10) == 3 * 32 + 4 * 3 * 10
    assert [last_line(source) for source in ("", "x", "x\n", "x\ny")] == [1, 2, 2, 3]
