"""McNemar's exact test, against values worked by hand and against every outcome of small experiments."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tad_ext.evaluation import mcnemar, mcnemar_p_value


@pytest.mark.parametrize(
    ("only_first", "only_second", "p_value"),
    [
        (1, 9, 2 * (1 + 10) / 1024),
        (9, 1, 2 * (1 + 10) / 1024),
        (0, 6, 2 / 64),
        (2, 5, 2 * (1 + 7 + 21) / 128),
        (5, 5, 1.0),  # twice the tail is more than 1
        (0, 1, 1.0),
        (0, 0, 1.0),
    ],
)
def test_by_hand(only_first, only_second, p_value):
    assert mcnemar_p_value(only_first, only_second) == p_value


def test_thousands_of_problems():
    # The normal approximation with a continuity correction: z = 99 / sqrt(6100) = 1.2676, p = 0.20496.
    assert mcnemar_p_value(3000, 3100) == pytest.approx(0.20496, abs=1e-4)
    assert 0 < mcnemar_p_value(0, 1000) < 1e-300
    assert mcnemar_p_value(0, 5000) == 0.0  # below the least float


@given(st.integers(0, 9), st.integers(0, 9))
def test_it_is_the_share_of_coins_that_fall_at_least_as_unevenly(only_first, only_second):
    number = only_first + only_second
    uneven = abs(only_first - only_second)
    falls = [abs(2 * sum(coins) - number) >= uneven for coins in itertools.product((0, 1), repeat=number)][: 2**number]
    assert mcnemar_p_value(only_first, only_second) == pytest.approx(sum(falls) / len(falls))


def test_runs_are_paired_by_problem():
    first = [True, True, False, True, False]
    second = [False, True, True, False, False]
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second, found.p_value) == (2, 1, 1.0)


def test_runs_that_cannot_be_paired():
    with pytest.raises(ValueError, match="first has 2 problems, second 1"):
        mcnemar([True, False], [True])
    with pytest.raises(ValueError, match="at least one"):
        mcnemar([], [])
    with pytest.raises(ValueError, match="expected counts of problems, got -1 and 2"):
        mcnemar_p_value(-1, 2)
