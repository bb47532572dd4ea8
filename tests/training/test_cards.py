"""Graphics cards: what a process sees of them, and trainings that share their memory."""

import threading
import time

import pytest

from nngen.training.cards import GpuMemoryPool, visible_cards


def test_trainings_are_spread_over_the_cards():
    pool = GpuMemoryPool([100, 200])
    with pool.hold(60) as first, pool.hold(60) as second, pool.hold(120) as third:
        assert (first, second, third) == (0, 1, 1)
    with pool.hold(150) as large, pool.hold(None) as whole:
        assert (large, whole) == (1, 0)


def test_cards_are_those_that_the_process_would_see(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_cards(2) == ["0", "1"]
    for named, cards in (("3, GPU-a,7", ["3", "GPU-a"]), ("5", ["0", "1"]), ("", ["0", "1"])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
        assert visible_cards(2) == cards


@pytest.mark.parametrize(
    ("variable", "count", "shown"),
    [(None, 2, ["0", "1"]), ("", 1, ["0"]), ("2, 3", 2, ["2", "3"]), ("GPU-a,GPU-b,-1,5", 2, ["GPU-a", "GPU-b"])],
)
def test_each_card_is_shown_by_its_own_name(variable, count, shown, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert visible_cards(count) == shown


def test_a_training_takes_the_card_that_has_room_for_it():
    pool = GpuMemoryPool([24, 80])
    with pool.hold(40) as first, pool.hold(20) as second, pool.hold(30) as third:
        assert (first, second, third) == (1, 0, 1)
    with pool.hold(1000) as alone:
        assert alone == 1


def test_the_pool_admits_trainings_that_fit_and_delays_the_rest():
    room, inside, most = GpuMemoryPool([100]), [], []

    def work(need):
        with room.hold(need):
            inside.append(need)
            most.append(sum(inside))
            time.sleep(0.02)
            inside.remove(need)

    threads = [threading.Thread(target=work, args=(need,)) for need in (40, 40, 40, 100, 30, 60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=5)
    assert len(most) == 6
    assert max(most) <= 100


def test_the_pool_admits_an_unknown_or_too_large_training_alone():
    room = GpuMemoryPool([100])
    with room.hold(1000):
        pass
    with room.hold(None):
        pass
