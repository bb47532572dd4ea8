"""Seeds derived by hashing."""

from hypothesis import given
from hypothesis import strategies as st

from nngen.seeds import derive


def test_known_values_never_change():
    assert derive(0, "trial", "MoE4-a") == 127196538


@given(st.integers(), st.text(), st.integers())
def test_a_seed_fits_32_bits(run_seed, stage, epoch):
    assert 0 <= derive(run_seed, stage, epoch) < 2**32


def test_path_parts_do_not_run_together():
    assert derive(0, "ab", "c") != derive(0, "a", "bc")
