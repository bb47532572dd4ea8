"""Choice of the device, and trainings on a GPU."""

import pytest

from nngen.checks.rules.sample_nets import net_source
from nngen.errors import UsageError
from nngen.isolation import Isolation
from nngen.training import CheckJob, environment, pick_device
from nngen.types import Outcome, Shape


@pytest.mark.parametrize(
    ("wanted", "works", "picked"), [("auto", True, "cuda"), ("auto", False, "cpu"), ("cpu", True, "cpu")]
)
def test_cuda_is_chosen_where_it_works(wanted, works, picked, monkeypatch):
    monkeypatch.setattr(environment, "_cuda_works", lambda: works)
    assert pick_device(wanted) == picked


def test_an_unknown_or_missing_device_is_refused(monkeypatch):
    monkeypatch.setattr(environment, "_cuda_works", lambda: False)
    with pytest.raises(UsageError, match="finds no CUDA device"):
        pick_device("cuda")
    with pytest.raises(UsageError, match="choose auto, cpu or cuda"):
        pick_device("tpu")


def test_a_machine_without_a_card_does_not_load_torch(monkeypatch):
    monkeypatch.setattr(environment, "_NODES", ())
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    assert pick_device() == "cpu"


def test_a_trial_on_the_cpu_sees_no_card(engine, job):
    look = "import os; assert os.environ['CUDA_VISIBLE_DEVICES'] == '' and not torch.cuda.is_available()"
    assert engine.train(job(net_source(init=look))).verdict.valid


@pytest.mark.gpu
def test_a_card_trains_in_bfloat16(engine, candidate, job):
    if pick_device() != "cuda":
        pytest.skip("there is no CUDA device")
    source = net_source(loss="assert loss.device.type == 'cuda' and self(inputs).dtype is torch.bfloat16")
    trial = engine.train(job(source, device="cuda", epochs=3))
    assert trial.verdict.valid, trial.verdict.message
    assert trial.validation_accuracy > 0.8
    assert trial.environment["device"] not in ("cpu", "cuda")
    assert engine.check(
        CheckJob(candidate=candidate(net_source()), shape=Shape(1, 8, 8), device="cuda", isolation=Isolation.PROCESS)
    ).valid
    greedy = engine.train(job(net_source(init="torch.ones(2**40, device=device)"), device="cuda"))
    assert greedy.verdict.outcome is Outcome.MEMORY
