"""Choice of the device, and trainings on a GPU."""

import threading

import pytest

from nngen.checks.rules.sample_nets import net_source
from nngen.errors import UsageError
from nngen.isolation import Isolation
from nngen.training import CheckJob, LocalEngine, environment, pick_device
from nngen.training.attempts import Attempts
from nngen.training.cards import Card
from nngen.training.memory_model import Prediction
from nngen.types import Outcome, Shape

CARDS = tuple(Card(name="Fake", memory_mib=80_000, visible=name) for name in ("GPU-a", "GPU-b", "GPU-c"))


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
    assert (environment.has_card(), environment._cuda_works()) == (False, False)


@pytest.mark.parametrize("works", [False, True])
def test_torch_says_whether_a_card_works(works, monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "_NODES", (str(tmp_path / "none"), str(tmp_path)))
    monkeypatch.setattr("torch.cuda.is_available", lambda: works)
    assert (environment.has_card(), environment._cuda_works()) == (True, works)


def test_a_trial_on_the_cpu_sees_no_card(engine, job):
    look = "import os; assert os.environ['CUDA_VISIBLE_DEVICES'] == '' and not torch.cuda.is_available()"
    assert engine.train(job(net_source(init=look))).verdict.valid


def run_with_cards(predict, work, monkeypatch):
    """Run trainings side by side with three cards that do not exist; return the cards that they took at once."""
    engine = LocalEngine(slots=len(work), predict=predict)
    vars(engine._cards).update(found=CARDS)
    taken, meet, lock = [], threading.Barrier(len(work)), threading.Lock()

    def train_once(attempts, *_):
        with lock:
            taken.append(attempts.card.visible)
        meet.wait(timeout=20)
        raise UsageError("enough")

    monkeypatch.setattr(Attempts, "_train", train_once)

    def train(one):
        with pytest.raises(UsageError, match="enough"):
            engine.train(one)

    threads = [threading.Thread(target=train, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken


@pytest.mark.parametrize("known", [True, False])
def test_each_worker_takes_a_card_of_its_own(known, job, monkeypatch):
    small = Prediction(fixed_mib=300, image_mib=0.1, likely_mib=600, seconds=None) if known else None
    work = [job(net_source(), device="cuda", seed=seed) for seed in range(3)]
    taken = run_with_cards(lambda *_: small, work, monkeypatch)
    assert sorted(taken) == ["GPU-a", "GPU-b", "GPU-c"]


def test_more_workers_than_cards_share_them_evenly(job, monkeypatch):
    small = Prediction(fixed_mib=300, image_mib=0.1, likely_mib=600, seconds=None)
    work = [job(net_source(), device="cuda", seed=seed) for seed in range(6)]
    taken = run_with_cards(lambda *_: small, work, monkeypatch)
    assert sorted(taken) == sorted(2 * ["GPU-a", "GPU-b", "GPU-c"])


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
