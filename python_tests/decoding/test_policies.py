"""Top-k and the thresholds on hand-worked rows of statistics, and how their values are checked."""

import pytest
from policy_cases import accepted, entries

from tad_ext.decoding import ConfidenceThreshold, EntropyThreshold, MarginThreshold, TopK, parse_policy

NAN, INF = float("nan"), float("inf")


def test_top_k_takes_the_k_most_confident_of_each_row():
    confidence = [[0.1, 0.9, 0.5, 0.7], [0.8, 0.2, 0.3, 0.1]]
    assert accepted(TopK(1), confidence) == [[0, 1, 0, 0], [1, 0, 0, 0]]
    assert accepted(TopK(3), confidence) == [[0, 1, 1, 1], [1, 1, 1, 0]]
    assert accepted(TopK(9), confidence) == [[1, 1, 1, 1], [1, 1, 1, 1]]


def test_top_k_gives_ties_to_the_lowest_position():
    ties = [[0.5] * 40 + [0.9] + [0.5] * 40]
    assert accepted(TopK(3), ties) == [[1, 1] + [0] * 38 + [1] + [0] * 40]


def test_top_k_leaves_padding_and_invalid_entries_alone():
    confidence = [[0.1, 0.2, 0.9, 0.8]]
    assert accepted(TopK(1), confidence, positions=[[0, 1, -1, -1]]) == [[0, 1, 0, 0]]
    assert accepted(TopK(3), confidence, positions=[[0, 1, -1, -1]]) == [[1, 1, 0, 0]]
    assert accepted(TopK(1), [[0.1, NAN, 0.9, 0.8]], valid=[[True, False, True, True]]) == [[0, 0, 1, 0]]


def test_top_k_scores_by_confidence():
    score, _ = TopK(1)(*entries([[0.1, 0.9, 0.5]]))
    assert score.argsort(descending=True).tolist() == [[1, 2, 0]]


def test_confidence_threshold_is_inclusive():
    confidence = [[0.5, 0.75, 0.875, 0.0, 1.0]]
    assert accepted(ConfidenceThreshold(0.75), confidence) == [[0, 1, 1, 0, 1]]
    assert accepted(ConfidenceThreshold(1.0), confidence) == [[0, 0, 0, 0, 1]]
    assert accepted(ConfidenceThreshold(0), confidence) == [[1, 1, 1, 1, 1]]
    assert accepted(ConfidenceThreshold(0.75), confidence, positions=[[0, 1, -1, -1, -1]]) == [[0, 1, 0, 0, 0]]
    score, _ = ConfidenceThreshold(0.75)(*entries(confidence))
    assert score.argsort(descending=True).tolist() == [[4, 2, 1, 0, 3]]


def test_margin_threshold_is_inclusive():
    confidence, margin = [[0.75, 0.75, 0.75, 0.75]], [[0.25, 0.5, 0.625, 0.0]]
    assert accepted(MarginThreshold(0.5), confidence, margin=margin) == [[0, 1, 1, 0]]
    assert accepted(MarginThreshold(0), confidence, margin=margin) == [[1, 1, 1, 1]]
    assert accepted(MarginThreshold(0.5), confidence, margin=margin, positions=[[0, 1, -1, -1]]) == [[0, 1, 0, 0]]
    score, _ = MarginThreshold(0.5)(*entries(confidence, margin=margin))
    assert score.argsort(descending=True).tolist() == [[2, 1, 0, 3]]


def test_entropy_threshold_is_strict_and_prefers_low_entropy():
    confidence, entropy = [[0.9, 0.8, 0.7, 0.6, 0.5]], [[0.5, 0.25, 0.0, 1.5, INF]]
    assert accepted(EntropyThreshold(0.5), confidence, entropy) == [[0, 1, 1, 0, 0]]
    assert accepted(EntropyThreshold(2), confidence, entropy) == [[1, 1, 1, 1, 0]]
    assert accepted(EntropyThreshold(0), confidence, entropy) == [[0, 0, 0, 0, 0]]
    assert accepted(EntropyThreshold(2), confidence, entropy, positions=[[0, 1, 2, -1, -1]]) == [[1, 1, 1, 0, 0]]
    score, _ = EntropyThreshold(0.5)(*entries(confidence, entropy))
    assert score.argsort(descending=True).tolist() == [[2, 1, 0, 3, 4]]


@pytest.mark.parametrize("make", [TopK, ConfidenceThreshold, EntropyThreshold, parse_policy])
@pytest.mark.parametrize("value", [None, "1", True])
def test_wrong_types_are_refused(make, value):
    with pytest.raises((TypeError, ValueError), match=r"got|unknown name"):
        make(value)
    if make is not parse_policy:
        with pytest.raises(TypeError, match=f"{make.__name__}.*got"):
            make(value)


@pytest.mark.parametrize("threshold", [NAN, INF, -INF, -1e-9])
@pytest.mark.parametrize("make", [ConfidenceThreshold, EntropyThreshold])
def test_thresholds_are_finite_and_not_negative(make, threshold):
    with pytest.raises(ValueError, match=f"{make.__name__}.threshold must be a finite number"):
        make(threshold)
