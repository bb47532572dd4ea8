"""Balanced sampler: bounds at every prefix and reproducibility."""

import hashlib
import subprocess
import sys
import time
from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nngen.space import Pool, draw, sampler
from nngen.space.balanced import LARGEST, BalancedOrder, _Counts, balanced_order


def ranges(blocks, v, t):
    """Return the range of the counts of t-subsets after each block."""
    row = {part: i for i, part in enumerate(combinations(range(v), t))}
    counts = np.zeros((len(blocks), len(row)), dtype=np.int32)
    for line, block in zip(counts, blocks, strict=True):
        line[[row[part] for part in combinations(sorted(block), t)]] = 1
    return np.ptp(counts.cumsum(axis=0), axis=1)


@pytest.mark.parametrize(
    ("v", "k"), [(4, 4), (5, 4), (7, 4), (13, 4), (16, 4), (5, 5), (10, 3), (11, 5), (12, 6), (9, 2), (6, 1)]
)
def test_every_subset_once(v, k):
    order = balanced_order(v, k)
    assert len(order) == comb(v, k)
    assert sorted(order[i] for i in range(len(order))) == list(combinations(range(v), k))


@pytest.mark.long
def test_the_space_of_the_published_families_once():
    order = balanced_order(29)
    assert len({order[i] for i in range(23_751)}) == 23_751


@pytest.mark.long
@pytest.mark.parametrize(("v", "pairs"), [(20, 5), (28, 3), (29, 5), (34, 3), (40, 3)])
def test_families_differ_by_one_and_pairs_by_little_over_the_published_length(v, pairs):
    blocks = [balanced_order(v)[i] for i in range(4463)]
    assert ranges(blocks, v, 1)[: v + 4].max() <= 2
    assert ranges(blocks, v, 1)[v + 4 :].max() == 1
    assert ranges(blocks, v, 2).max() <= pairs


@pytest.mark.long
@pytest.mark.parametrize("v", range(8, 20))
def test_small_spaces_stay_even_to_their_end(v):
    blocks = [balanced_order(v)[i] for i in range(comb(v, 4))]
    assert ranges(blocks, v, 1).max() <= 2
    assert ranges(blocks, v, 2).max() <= 5


@pytest.mark.long
@pytest.mark.parametrize(("v", "k"), [*((v, 4) for v in range(5, 41)), (7, 3), (12, 3), (12, 6)])
def test_the_first_quartets_are_independent(v, k):
    """As many quartets as families tell all of them apart, as a random sample often does and even rounds never do."""
    blocks = [balanced_order(v, k)[i] for i in range(v)]
    rows = np.zeros((v, v))
    np.put_along_axis(rows, np.array(blocks), 1.0, axis=1)
    assert all(np.linalg.matrix_rank(rows[:size]) == size for size in (v // 2, v - 1, v))
    assert ranges(blocks, v, 1).max() <= 2


def test_exact_milestones():
    blocks = [balanced_order(29)[i] for i in range(1827)]
    assert ranges(blocks, 29, 1)[[202, 1826]].tolist() == [0, 0]
    assert ranges(blocks, 29, 2)[[202, 1826]].tolist() == [0, 0]
    assert ranges(blocks, 29, 3)[1826] == 0
    steiner = [balanced_order(28)[i] for i in range(63)]
    assert len({pair for block in steiner for pair in combinations(block, 2)}) == comb(28, 2) == 63 * 6


@pytest.mark.long
@given(st.integers(20, 40), st.integers(1, 400))
@settings(max_examples=15, deadline=None)
def test_any_number_of_families_at_any_prefix(v, size):
    blocks = [balanced_order(v)[i] for i in range(size)]
    assert ranges(blocks, v, 1).max() <= 2
    assert ranges(blocks, v, 1)[v + 4 :].max(initial=0) <= 1
    assert ranges(blocks, v, 2).max() <= (5 if v == 29 else 3)


def test_a_position_does_not_depend_on_what_was_asked_before():
    jumped = BalancedOrder(20, 4)
    last = jumped[700]
    assert jumped[3] == balanced_order(20)[3] == BalancedOrder(20, 4)[3]
    assert last == balanced_order(20)[700]


def test_the_order_never_changes():
    text = repr([balanced_order(34)[i] for i in range(300)]).encode()
    assert hashlib.sha256(text).hexdigest() == "635673ae824082fb150c9fd9808f35f4865ac927bedef3921d99f0e587f1674f"


def test_the_order_is_the_same_in_another_process():
    code = "from nngen.space.balanced import balanced_order as b; print([b(22)[i] for i in range(200)])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == repr([balanced_order(22)[i] for i in range(200)])


def test_a_seed_renames_families_and_nothing_else():
    names = [f"F{i:02d}" for i in range(29)]
    first, second = (draw("balanced", names, 203, seed) for seed in (1, 2))
    assert first != second
    index = {name: i for i, name in enumerate(names)}
    for quartets in (first, second):
        blocks = [tuple(index[name] for name in quartet) for quartet in quartets]
        assert ranges(blocks, 29, 2)[-1] == 0


def test_held_quartets_are_passed_over_and_the_rest_keeps_its_place():
    pool = Pool.of([f"F{i:02d}" for i in range(12)])
    whole = list(sampler("balanced", pool, 0).stream())
    held = [quartet for _, quartet in whole[::5]]
    assert list(sampler("balanced", pool, 0, held).stream()) == [draw for i, draw in enumerate(whole) if i % 5]


@pytest.mark.parametrize(("v", "k"), [(60, 4), (10_000, 4), (200, 7)])
def test_large_spaces_fall_back_to_a_permutation(v, k):
    order = balanced_order(v, k)
    assert not order.greedy
    blocks = {order[i] for i in range(200)} | {order[comb(v, k) - 1]}
    assert len(blocks) == 201
    assert all(len(set(block)) == k and min(block) >= 0 and max(block) < v for block in blocks)


@pytest.mark.parametrize("position", [-1, comb(9, 4)])
def test_positions_outside_the_space(position):
    with pytest.raises(IndexError, match=r"outside \[0, 126\)"):
        balanced_order(9)[position]


def test_known_positions_cost_little():
    order = balanced_order(34)
    order[1000]
    start = time.process_time()
    for _ in range(20):
        for position in range(1000):
            order[position]
    assert (time.process_time() - start) / 20_000 < 20e-6


def test_an_order_is_computed_once():
    assert balanced_order(18) is balanced_order(18, 4) is balanced_order(v=18, k=4)


def test_without_enough_families_the_order_is_empty():
    order = BalancedOrder(3, 4)
    assert (len(order), order.greedy) == (0, False)
    with pytest.raises(IndexError, match=r"position 0 is outside \[0, 0\)"):
        order[0]


@pytest.mark.parametrize(
    ("v", "k", "greedy"),
    [(9, 2, False), (9, 3, True), (9, 6, True), (9, 7, False), (4, 4, True), (51, 4, True), (52, 4, False)],
)
def test_subsets_of_three_to_six_are_ordered_evenly_where_there_are_at_most_a_quarter_of_a_million(v, k, greedy):
    assert BalancedOrder(v, k).greedy == greedy


def test_the_weights_of_pairs_and_families_rise_with_their_uses_up_to_a_limit():
    counts = _Counts(16, 3, 0)
    counts.pairs[:] = np.arange(256).reshape(16, 16) + 5
    assert counts._steep().flatten().tolist() == [4 ** min(more, 8) for more in range(256)]
    counts.families[:] = np.arange(16) + 5
    assert counts._uneven(np.arange(16)[:, None]).tolist() == [3 ** min(more, 12) for more in range(16)]
    assert counts._uneven(np.array([[0, 1, 2], [3, 14, 15]])).tolist() == [1 + 3 + 9, 27 + 2 * 3**12]


def test_there_is_noise_for_every_subset_of_the_largest_space_at_every_position():
    counts = _Counts(5, 3, 0)
    for length in range(0, 8192, 13):
        counts.order = [()] * length
        assert len(counts._noise(LARGEST)) == LARGEST
    assert np.bincount(counts._noise(LARGEST)).tolist() == pytest.approx([LARGEST / 64] * 64, rel=0.1)
