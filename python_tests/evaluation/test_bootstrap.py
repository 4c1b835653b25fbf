"""The bootstrap over clusters, against an obvious loop and against decays whose truth is known."""

import numpy as np
import pytest

from tad_ext.evaluation import ConfidenceDecay, DecaySettings, bootstrap
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
