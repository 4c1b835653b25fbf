import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tad_ext.evaluation.metrics import accuracy_percent, accuracy_standard_error, accuracy_under_parallelism

POINTS = st.lists(st.tuples(st.floats(0.1, 64.0), st.floats(0.0, 100.0)), min_size=1, max_size=8)


def test_the_published_check_value():
    assert accuracy_under_parallelism([(1.0, 79.60), (8.47, 78.77)], 80.21) == pytest.approx(649.0, abs=0.05)


def test_one_point_is_its_own_rectangle_without_a_weight():
    assert accuracy_under_parallelism([(1.0, 40.0)], 80.0) == 40.0
    assert accuracy_under_parallelism([(2.5, 40.0)], 80.0) == 100.0


def test_a_curve_at_the_best_accuracy_is_a_plain_trapezoid():
    assert accuracy_under_parallelism([(1.0, 50.0), (3.0, 50.0)], 50.0) == pytest.approx(50 + 2 * 50)


def test_worked_by_hand():
    # W(60) = 1 and W(57) = exp(-3 * 0.05): 60 + 0.5 * 2 * (57 * W + 60)
    expected = 60.0 + (57.0 * math.exp(-0.15) + 60.0)
    assert accuracy_under_parallelism([(1.0, 60.0), (3.0, 57.0)], 60.0) == pytest.approx(expected)


def test_an_accuracy_above_the_best_is_weighed_by_one():
    assert accuracy_under_parallelism([(1.0, 60.0), (2.0, 60.0)], 50.0) == pytest.approx(120.0)


def test_a_point_below_the_allowed_drop_is_left_out_and_the_next_one_joins_the_last_kept():
    kept = [(1.0, 60.0), (4.0, 58.0)]
    assert accuracy_under_parallelism([*kept, (2.0, 54.99)], 60.0) == accuracy_under_parallelism(kept, 60.0)
    exactly_at_the_drop = [*kept, (2.0, 55.0)]
    assert accuracy_under_parallelism(exactly_at_the_drop, 60.0) != accuracy_under_parallelism(kept, 60.0)


def test_the_drop_is_measured_from_the_slowest_point_not_from_the_best():
    points = [(1.0, 50.0), (2.0, 60.0), (3.0, 46.0)]
    without_last = accuracy_under_parallelism(points[:2], 60.0)
    assert accuracy_under_parallelism(points, 60.0) > without_last


def test_nothing_right_is_zero():
    assert accuracy_under_parallelism([(1.0, 0.0), (2.0, 0.0)], 80.0) == 0.0


@given(POINTS, st.randoms())
def test_order_does_not_matter(points, random):
    shuffled = list(points)
    random.shuffle(shuffled)
    assert accuracy_under_parallelism(shuffled, 90.0) == accuracy_under_parallelism(points, 90.0)


@given(POINTS)
def test_without_weight_and_filter_it_is_the_area_under_the_polyline(points):
    curve = sorted(points)
    area = curve[0][0] * curve[0][1]
    area += sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(curve))
    assert accuracy_under_parallelism(points, 100.0, alpha=0.0, max_drop=100.0) == pytest.approx(area)


@pytest.mark.parametrize(
    ("points", "options", "message"),
    [
        ([], {"best_accuracy": 80.0}, "points is empty"),
        ([(1.0, 100.5)], {"best_accuracy": 80.0}, "accuracy 100.5; expected percent"),
        ([(1.0, -1.0)], {"best_accuracy": 80.0}, "accuracy -1.0"),
        ([(1.0, math.nan)], {"best_accuracy": 80.0}, "accuracy nan"),
        ([(0.0, 50.0)], {"best_accuracy": 80.0}, "tokens per forward 0.0"),
        ([(-1.0, 50.0)], {"best_accuracy": 80.0}, "tokens per forward -1.0"),
        ([(math.inf, 50.0)], {"best_accuracy": 80.0}, "tokens per forward inf"),
        ([(1.0, 50.0)], {"best_accuracy": 0.0}, "best_accuracy is 0.0"),
        ([(1.0, 50.0)], {"best_accuracy": 101.0}, "best_accuracy is 101.0"),
        ([(1.0, 50.0)], {"best_accuracy": 80.0, "alpha": -1.0}, "alpha is -1.0"),
        ([(1.0, 50.0)], {"best_accuracy": 80.0, "max_drop": -1.0}, "max_drop is -1.0"),
        ([(1.0, 50.0)], {"best_accuracy": 80.0, "max_drop": math.nan}, "max_drop is nan"),
    ],
)
def test_bad_input_is_named(points, options, message):
    with pytest.raises(ValueError, match=message):
        accuracy_under_parallelism(points, **options)


def test_accuracy_and_its_standard_error():
    assert accuracy_percent(3, 4) == 75.0
    assert accuracy_standard_error(200, 400) == pytest.approx(2.5)
    assert accuracy_standard_error(4, 4) == 0.0
    with pytest.raises(ValueError, match="total is 0"):
        accuracy_percent(0, 0)
    with pytest.raises(ValueError, match="correct is 5"):
        accuracy_standard_error(5, 4)
