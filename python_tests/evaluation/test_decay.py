"""Reading delta off a curve."""

import json

import numpy as np
import pytest

from tad_ext.evaluation import ConfidenceDecay, DecaySettings


def decay(*curves, **settings):
    """The decay of trajectories with one position at every distance; a confidence of None: none there."""
    counts = np.array([[value is not None for value in curve] for curve in curves], dtype=np.int64)
    sums = np.array([[value or 0.0 for value in curve] for curve in curves])
    return ConfidenceDecay.of(sums, counts, DecaySettings(**settings), np.random.default_rng(0))


def test_a_curve_by_hand():
    found = decay([1.0, 0.5, None, 0.25], [0.5, 0.5, None, 0.125], [0.75, None, None, 0.0], max_distance=4)
    assert found.distances == [1, 2, 4]
    assert found.confidence == [0.75, 0.5, 0.125]
    assert found.counts == [3, 2, 3]
    assert found.problems == 3
    assert {name: delta.distance for name, delta in found.deltas.items()} == {"quality": 2, "speed": 4}
    # The distance that all have: of 27 draws one has all the lowest, 1 in 27 being more than 2.5 %.
    assert found.intervals[0] == pytest.approx([0.5, 1.0])
    assert found.intervals[1] == [0.5, 0.5]


def test_one_trajectory_has_intervals_of_no_width():
    found = decay([0.9, 0.4, 0.1])
    assert found.intervals == [[0.9, 0.9], [0.4, 0.4], [0.1, 0.1]]
    assert [delta.interval for delta in found.deltas.values()] == [[2, 2], [3, 3]]


def test_a_curve_that_never_falls_has_no_delta_and_neither_have_its_intervals():
    found = decay([0.9, 0.8, 0.7], [0.8, 0.7, 0.6])
    for delta in found.deltas.values():
        assert (delta.distance, delta.interval) == (None, [None, None])


def test_an_interval_may_reach_beyond_all_distances():
    found = decay([0.9, 0.9], [0.9, 0.8], [0.9, 0.1])
    assert (found.deltas["quality"].distance, found.deltas["quality"].interval) == (None, [2, None])


def test_it_is_the_first_distance_at_or_below_the_level_though_the_curve_rises_again():
    deltas = decay([0.9, 0.5, 0.7, 0.2, 0.3]).deltas
    assert (deltas["quality"].distance, deltas["speed"].distance) == (2, 4)


def test_levels_are_settings():
    found = decay([0.9, 0.7, 0.4, 0.2], quality_level=0.8, speed_level=0.3)
    assert [(delta.level, delta.distance) for delta in found.deltas.values()] == [(0.8, 2), (0.3, 4)]
    with pytest.raises(ValueError, match=r"speed_level must be at most quality_level \(0.1\), got 0.2"):
        DecaySettings(quality_level=0.1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_distance", 0),
        ("states_per_trajectory", 0),
        ("batch_size", 0),
        ("bootstrap_samples", 99),
        ("quality_level", 1.0),
        ("speed_level", 0.0),
    ],
)
def test_values_out_of_bounds_are_named(name, value):
    with pytest.raises(ValueError, match=f"{name} must be .*, got {value}"):
        DecaySettings(**{name: value})


def test_it_is_json():
    found = decay([0.9, 0.8], [0.9, 0.1], max_distance=2)
    values = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert values == found.to_json()
    assert values["deltas"]["speed"] == {"level": 0.2, "distance": None, "interval": [2, None]}
    assert values["settings"]["max_distance"] == 2
