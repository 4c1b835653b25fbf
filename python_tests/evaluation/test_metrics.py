import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tad_ext.evaluation.metrics import (
    accuracy_at,
    accuracy_percent,
    accuracy_standard_error,
    accuracy_under_parallelism,
    latency_percentiles,
    wilson_interval,
)

POINTS = st.lists(st.tuples(st.floats(0.1, 64.0), st.floats(0.0, 100.0)), min_size=1, max_size=8)


def test_the_published_check_value():
    assert accuracy_under_parallelism([(1.0, 79.60), (8.47, 78.77)], 80.21) == pytest.approx(649.0, abs=0.05)


@pytest.mark.parametrize(
    ("points", "best", "published"),
    [  # the leaderboard's data on GSM8K, and the AUP that was published with them (d3LLM, arXiv 2601.07568)
        ([(1.0, 74.02), (9.11, 73.09)], 74.98, 637.7),  # d3LLM-LLaDA
        ([(1.0, 74.0), (5.14, 72.63)], 74.98, 358.1),  # dParallel-LLaDA
        ([(1.0, 74.79), (2.77, 74.68)], 74.98, 205.8),  # Fast-dLLM-LLaDA
        ([(1.0, 83.8), (3.02, 82.12)], 83.94, 245.7),  # dParallel-Dream
        ([(1.0, 83.68), (1.44, 79.0)], 83.94, 116.5),  # Fast-dLLM-Dream
    ],
)
def test_published_values(points, best, published):
    assert accuracy_under_parallelism(points, best) == pytest.approx(published, abs=0.05)


def test_without_a_best_accuracy_it_is_that_of_the_points():
    points = [(1.0, 50.0), (2.0, 60.0)]
    assert accuracy_under_parallelism(points) == accuracy_under_parallelism(points, 60.0)


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
    assert accuracy_under_parallelism([(1.0, 0.0), (2.0, 0.0)]) == 0.0


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


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [  # z = 1.959964. 8 of 10: (0.8 + 0.19207 -+ 1.959964 * sqrt(0.016 + 0.009604)) / 1.38415
        (8, 10, 49.016, 94.332),
        (0, 20, 0.0, 16.113),  # z^2 / (n + z^2)
        (15, 15, 79.612, 100.0),  # n / (n + z^2)
        (200, 400, 45.1235, 54.8765),  # 50 -+ 100 * z / (2 * sqrt(n + z^2))
    ],
)
def test_wilsons_interval_by_hand(correct, total, low, high):
    assert wilson_interval(correct, total) == pytest.approx((low, high), abs=0.001)


@given(st.integers(1, 2000), st.data(), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_wilsons_interval_ends_where_the_accuracy_becomes_unlikely(total, data, confidence):
    """At its ends p the distance |p' - p| is z standard errors of p, which is how it is defined."""
    correct = data.draw(st.integers(0, total))
    z = {0.5: 0.6744898, 0.9: 1.6448536, 0.95: 1.9599640, 0.99: 2.5758293}[confidence]
    low, high = (end / 100 for end in wilson_interval(correct, total, confidence=confidence))
    share = correct / total
    assert 0 <= low <= share <= high <= 1
    for end in (low, high):
        assert abs(share - end) == pytest.approx(z * math.sqrt(end * (1 - end) / total), rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, math.nan])
def test_a_confidence_that_is_no_share(confidence):
    with pytest.raises(ValueError, match="confidence is"):
        wilson_interval(1, 2, confidence=confidence)


SWEEP = [(1.0, 60.0), (2.0, 58.0), (4.0, 62.0), (5.0, 40.0)]


@pytest.mark.parametrize(
    ("speed", "accuracy"),
    [
        (0.5, 62.0),  # the whole sweep
        (2.0, 62.0),  # a faster point that is better counts
        (4.0, 62.0),
        (4.5, 51.0),  # half way from 62 to 40
        (4.75, 45.5),
        (5.0, 40.0),
        (5.001, None),
    ],
)
def test_the_best_accuracy_at_so_many_tokens_per_forward(speed, accuracy):
    assert accuracy_at(SWEEP, speed) == accuracy
    assert accuracy_at(SWEEP[::-1], speed) == accuracy


def test_a_rising_line_is_not_cut_short():
    assert accuracy_at([(1.0, 50.0), (3.0, 70.0)], 2.0) == 70.0


def test_points_of_one_speed():
    assert accuracy_at([(2.0, 50.0), (2.0, 60.0), (3.0, 40.0)], 2.0) == 60.0
    assert accuracy_at([(2.0, 50.0), (2.0, 60.0), (3.0, 40.0)], 2.5) == 50.0


@given(POINTS, st.floats(0.05, 70.0), st.floats(0.05, 70.0))
def test_it_never_rises_with_the_speed_and_is_the_best_of_the_polyline(points, one, other):
    slow, fast = sorted((one, other))
    at_slow, at_fast = accuracy_at(points, slow), accuracy_at(points, fast)
    assert at_fast is None or at_slow >= at_fast
    curve = sorted(points)
    sampled = [accuracy for rho, accuracy in curve if rho >= slow]
    for (rho, accuracy), (next_rho, next_accuracy) in itertools.pairwise(curve):
        for share in (k / 50 for k in range(51)):
            if rho + share * (next_rho - rho) >= slow:
                sampled.append(accuracy + share * (next_accuracy - accuracy))
    assert (at_slow is None) == (not sampled)
    assert at_slow is None or at_slow >= max(sampled) - 1e-9


@pytest.mark.parametrize("speed", [0.0, -1.0, math.nan, math.inf])
def test_a_speed_that_is_none(speed):
    with pytest.raises(ValueError, match="tokens_per_forward is"):
        accuracy_at(SWEEP, speed)


def test_latencies_are_times_of_responses():
    assert latency_percentiles([float(k) for k in range(200, 0, -1)]) == {"p50": 100.0, "p90": 180.0, "p99": 198.0}
    assert latency_percentiles([3.0, 1.0]) == {"p50": 1.0, "p90": 3.0, "p99": 3.0}
    with pytest.raises(ValueError, match="seconds is empty"):
        latency_percentiles([])
    with pytest.raises(ValueError, match="not a finite number"):
        latency_percentiles([1.0, math.nan])
