"""Intervals, compared with scipy at both ends, and numbers as the report writes them."""

import numpy as np
import pytest

from nngen.analysis import formatting
from nngen.analysis.statistics import (
    Difference,
    Interval,
    difference_interval,
    mean_interval,
    mean_share_interval,
    wilson,
)

stats = pytest.importorskip("scipy.stats")


@pytest.mark.parametrize("count", [2, 3, 12])
def test_the_interval_of_a_mean_is_students(count):
    values = list(np.random.default_rng(count).normal(0.5, 0.1, count))
    theirs = stats.t.interval(0.95, count - 1, np.mean(values), stats.sem(values))
    assert mean_interval(values) == pytest.approx(theirs)


@pytest.mark.parametrize(("one", "other"), [(2, 2), (3, 9), (20, 4)])
def test_the_interval_of_a_difference_is_welchs(one, other):
    rng = np.random.default_rng(one)
    ones, others = list(rng.normal(0.5, 0.1, one)), list(rng.normal(0.4, 0.3, other))
    theirs = stats.ttest_ind(ones, others, equal_var=False).confidence_interval()
    assert difference_interval(ones, others) == pytest.approx((theirs.low, theirs.high))


@pytest.mark.parametrize(("successes", "tries"), [(0, 7), (7, 7), (3, 7), (320, 359)])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_interval_of_a_share_is_wilsons(successes, tries, confidence):
    theirs = stats.binomtest(successes, tries).proportion_ci(confidence, method="wilson")
    found = wilson(successes, tries, confidence)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))


def test_a_difference_needs_two_values_on_each_side():
    assert difference_interval([1.0, 2.0], [1.0]) is None
    assert difference_interval([1.0], [1.0, 2.0]) is None


def test_one_value_has_no_interval_and_equal_values_one_without_width():
    assert mean_interval([0.5]) is None is mean_share_interval([0.5])
    assert mean_interval([0.5, 0.5]) == (0.5, 0.5)
    assert difference_interval([0.5, 0.5], [0.25, 0.25]) == (0.25, 0.25)


def test_the_interval_of_a_mean_of_shares_lies_within_0_and_1():
    assert mean_share_interval([0.0, 1.0]) == (0.0, 1.0)
    inside = [0.5, 0.51, 0.52]
    assert mean_share_interval(inside) == mean_interval(inside)


def test_a_confidence_lies_between_0_and_1():
    for confidence in (0, 1, 1.5, -0.5):
        with pytest.raises(ValueError, match=f"^a confidence must be between 0 and 1, not {confidence}$"):
            wilson(1, 2, confidence)
    with pytest.raises(ValueError, match=r"^-1 successes of 2 tries$"):
        wilson(-1, 2)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("percent", 0.0, "0%"),
        ("percent", 0.00123, "0.12%"),
        ("percent", 0.0999, "9.99%"),
        ("percent", 0.1, "10.0%"),
        ("percent", 0.5, "50.0%"),
        ("percent", 1.0, "100%"),
        ("accuracy", None, "-"),
        ("accuracy", 0.98765, "0.9877"),
        ("count", None, "-"),
        ("count", 46376, "46,376"),
        ("points", None, "-"),
        ("points", 0.0123, "+1.23"),
        ("points", -0.0123, "\N{MINUS SIGN}1.23"),
        ("span", None, "-"),
        ("span", Interval(effect=0.0, low=-0.01, high=0.02, p=1.0, p_adjusted=1.0), "\N{MINUS SIGN}1.00 to +2.00"),
        ("span", Difference(mean=0.1, low=None, high=None), "-"),
        ("p", None, "-"),
        ("p", 0.0009, "< 0.001"),
        ("p", 0.001, "0.001"),
        ("p", 0.25, "0.250"),
        ("duration", None, "-"),
        ("duration", 0.04, "0.0 s"),
        ("duration", 119.94, "119.9 s"),
        ("duration", 120, "2.0 min"),
        ("duration", 120.5, "2.0 min"),
        ("duration", 7200.5, "2.0 h"),
        ("duration", 7199, "120.0 min"),
        ("duration", 7200, "2.0 h"),
        ("amount", None, "-"),
        ("amount", 12.3456, "12.35"),
        ("amount", 999.96, "1,000"),
        ("amount", 12345.6, "12,346"),
        ("sentence", "a clause", "A clause."),
        ("sentence", "It ends.", "It ends."),
        ("sentence", "", "."),
    ],
)
def test_numbers_as_the_report_writes_them(name, value, text):
    assert getattr(formatting, name)(value) == text
