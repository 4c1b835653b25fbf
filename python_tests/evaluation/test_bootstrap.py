"""The bootstrap over clusters, against an obvious loop and against decays and curves whose truth is known."""

import math

import numpy as np
import pytest

from tad_ext.evaluation import (
    ConfidenceDecay,
    DecaySettings,
    SweepOutcomes,
    accuracy_at,
    bootstrap,
    percentile_interval,
    resampled,
    resampled_curves,
)
from tad_ext.evaluation.bootstrap import resampled_means

TRUTH = np.array([0.8, 0.65, 0.53, 0.4, 0.1])  # falls to 0.5 at distance 4
DATA_SETS = 150


def clusters(generator, number=7, columns=3):
    """Sums and counts, some of which are 0."""
    counts = generator.integers(0, 3, size=(number, columns))
    return counts * generator.random((number, columns)), counts


def test_it_is_the_obvious_loop():
    sums, counts = clusters(np.random.default_rng(0))
    found = resampled_means(sums, counts, samples=50, generator=np.random.default_rng(1))
    generator = np.random.default_rng(1)
    assert found.shape == (50, 3)
    for row in found:
        drawn = generator.integers(7, size=7).tolist()
        for column in range(3):
            total = sum(float(sums[one, column]) for one in drawn)
            count = sum(int(counts[one, column]) for one in drawn)
            assert row[column] == pytest.approx(total / count if count else np.nan, nan_ok=True)


def test_how_many_are_drawn_at_a_time_changes_nothing(monkeypatch):
    sums, counts = clusters(np.random.default_rng(0))
    whole = resampled_means(sums, counts, samples=50, generator=np.random.default_rng(1))
    monkeypatch.setattr(bootstrap, "_DRAWN_AT_A_TIME", 20)
    parts = resampled_means(sums, counts, samples=50, generator=np.random.default_rng(1))
    assert parts == pytest.approx(whole, nan_ok=True)


def test_a_column_that_a_draw_lacks_is_not_a_number():
    found = resampled_means(
        np.array([[1.0], [0.0]]), np.array([[2], [0]]), samples=40, generator=np.random.default_rng(0)
    )
    assert set(found[~np.isnan(found)]) == {0.5}
    assert 0 < np.isnan(found).sum() < 40


def positions(generator, trajectories=40):
    """(N,) trajectory, distance - 1 and confidence of positions; those of a trajectory are high or low together."""
    of_trajectory = 0.15 * generator.standard_normal(trajectories)
    counts = generator.integers(1, 9, size=(trajectories, len(TRUTH)))
    trajectory, column = (np.repeat(index, counts.ravel()) for index in np.indices(counts.shape).reshape(2, -1))
    noise = 0.1 * generator.standard_normal(len(trajectory))
    return trajectory, column, TRUTH[column] + of_trajectory[trajectory] + noise


def decay(cluster, column, confidence, generator):
    sums = np.zeros((cluster.max() + 1, len(TRUTH)))
    counts = np.zeros_like(sums, dtype=np.int64)
    np.add.at(sums, (cluster, column), confidence)
    np.add.at(counts, (cluster, column), 1)
    return ConfidenceDecay.of(sums, counts, DecaySettings(bootstrap_samples=200), generator)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    generator = np.random.default_rng(0)
    means, naive, deltas = [], [], []
    for _ in range(DATA_SETS):
        trajectory, column, confidence = positions(generator)
        found = decay(trajectory, column, confidence, generator)
        apart = decay(np.arange(len(column)), column, confidence, generator)  # as if positions were independent
        for result, decay_ in ((means, found), (naive, apart)):
            low, high = np.transpose(decay_.intervals)
            result.append((low <= TRUTH) & (high >= TRUTH))
        low, high = found.deltas["quality"].interval
        deltas.append(low <= 4 <= high)
    assert 0.9 < np.mean(means) < 0.98
    assert np.mean(deltas) > 0.9
    assert np.mean(naive) < 0.75


def outcomes(generator, problems=9, runs=3, right=0.6):
    """Of a sweep whose first run is the one that stands at 1.0."""
    shape = (problems, runs)
    return SweepOutcomes(
        correct=generator.random(shape) < right,
        tokens=generator.integers(1, 30, shape),
        forwards=generator.integers(1, 20, shape),
        at_one=np.arange(runs) == 0,
    )


def test_curves_are_those_of_the_problems_drawn_the_same_for_all_methods():
    methods = [outcomes(np.random.default_rng(0)), outcomes(np.random.default_rng(1), runs=2)]
    found = resampled_curves(methods, samples=20, seed=5)
    assert [one.shape for one in found] == [(20, 3, 2), (20, 2, 2)]
    generator = np.random.default_rng(5)
    for draw in range(20):
        drawn = generator.integers(9, size=9)
        for method, curves in zip(methods, found, strict=True):
            for run in range(len(method.at_one)):
                correct, tokens, forwards = (
                    getattr(method, name)[drawn, run].sum() for name in ("correct", "tokens", "forwards")
                )
                speed = 1.0 if run == 0 else tokens / forwards
                assert curves[draw, run].tolist() == pytest.approx([speed, 100 * correct / 9])


def test_a_method_beside_itself_never_differs():
    method = outcomes(np.random.default_rng(0))
    one, other = resampled_curves([method, method])
    gain = resampled(lambda a, b: accuracy_at(a, 1.0) - accuracy_at(b, 1.0), one, other)
    assert len(gain) == 1000
    assert set(gain) == {0.0}


def test_the_interval_of_an_accuracy_holds_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    held = []
    for _ in range(DATA_SETS):
        (curves,) = resampled_curves([outcomes(generator, problems=120, runs=1)], samples=200, seed=1)
        low, high = percentile_interval(curves[:, 0, 1])
        held.append(low <= 60 <= high)
    assert 0.89 < np.mean(held) < 0.99


def test_a_draw_without_a_value_is_left_out():
    values = np.array([np.nan, *range(1, 41)], dtype=float)
    assert percentile_interval(values) == [1.0, 40.0]
    assert percentile_interval(values, confidence=0.5) == [10.0, 31.0]
    assert percentile_interval(np.array([math.nan])) is None
    assert math.isnan(resampled(lambda curve: None, np.ones((1, 1, 2)))[0])


def test_a_run_without_a_token_has_no_place_in_a_draw():
    curves = np.array([[[1.0, 50.0], [0.0, 0.0]]])
    assert resampled(lambda curve: len(curve), curves).tolist() == [1.0]


def test_outcomes_that_do_not_fit():
    good = outcomes(np.random.default_rng(0))
    parts = {name: getattr(good, name) for name in ("correct", "tokens", "forwards", "at_one")}
    for name, value, message in [
        ("correct", good.correct[:4], "have shapes"),
        ("at_one", good.at_one[:2], "at_one has shape"),
        ("forwards", good.forwards * 0, "forwards holds a number below 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            SweepOutcomes(**parts | {name: value})
    with pytest.raises(ValueError, match="expected methods on the same ones"):
        resampled_curves([good, outcomes(np.random.default_rng(0), problems=8)])
    with pytest.raises(ValueError, match="at least one"):
        resampled_curves([])
