"""Each policy on a hand-worked row of statistics, and the strings that name policies."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tad_ext.decoding import ConfidenceThreshold, EntropyThreshold, TopK, parse_policy
from tad_ext.ops import DecodeState, TokenStatistics

NAN, INF = float("nan"), float("inf")


def entries(confidence, entropy=None, *, valid=None, positions=None):
    """(statistics, state) of rows of eligible entries; only what policies read is filled with meaning."""
    confidence = torch.tensor(confidence)
    zeros = torch.zeros(confidence.shape, dtype=torch.int64)
    state = DecodeState.start(len(confidence), confidence.shape[1], block_length=confidence.shape[1])
    if positions is not None:
        state.positions = torch.tensor(positions)
    return TokenStatistics(
        token=zeros,
        confidence=confidence,
        second_token=zeros,
        margin=torch.zeros_like(confidence),
        entropy=torch.zeros_like(confidence) if entropy is None else torch.tensor(entropy),
        logsumexp=torch.zeros_like(confidence),
        valid=torch.ones_like(zeros, dtype=torch.bool) if valid is None else torch.tensor(valid),
        query_logits=confidence.new_zeros(*confidence.shape, 0),
    ), state


def accepted(policy, *arguments, **options):
    score, accept = policy(*entries(*arguments, **options))
    assert score.shape == accept.shape
    assert score.is_floating_point()
    assert accept.dtype == torch.bool
    return accept.int().tolist()


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


def test_entropy_threshold_is_strict_and_prefers_low_entropy():
    confidence, entropy = [[0.9, 0.8, 0.7, 0.6, 0.5]], [[0.5, 0.25, 0.0, 1.5, INF]]
    assert accepted(EntropyThreshold(0.5), confidence, entropy) == [[0, 1, 1, 0, 0]]
    assert accepted(EntropyThreshold(2), confidence, entropy) == [[1, 1, 1, 1, 0]]
    assert accepted(EntropyThreshold(0), confidence, entropy) == [[0, 0, 0, 0, 0]]
    assert accepted(EntropyThreshold(2), confidence, entropy, positions=[[0, 1, 2, -1, -1]]) == [[1, 1, 1, 0, 0]]
    score, _ = EntropyThreshold(0.5)(*entries(confidence, entropy))
    assert score.argsort(descending=True).tolist() == [[2, 1, 0, 3, 4]]


def test_parse_policy():
    assert parse_policy("topk:1") == TopK(1)
    assert parse_policy("confidence:0.9") == ConfidenceThreshold(0.9)
    assert parse_policy(" entropy : 1.5 ") == EntropyThreshold(1.5)


@given(
    st.one_of(
        st.integers(1, 10**9).map(TopK),
        st.floats(0, 1).map(ConfidenceThreshold),
        st.floats(0, allow_infinity=False).map(EntropyThreshold),
    )
)
def test_the_string_of_a_policy_names_it(policy):
    assert parse_policy(str(policy)) == policy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unknown name ''"),
        ("entropie:0.5", "unknown name 'entropie'"),
        ("entropy", "policy 'entropy'"),
        ("entropy:", "policy 'entropy:'"),
        ("entropy:low", "'low'"),
        ("entropy:nan", r"EntropyThreshold.threshold must be a finite number >= 0, got nan"),
        ("entropy:-0.1", r"got -0.1"),
        ("confidence:90", r"ConfidenceThreshold.threshold must be a finite number in \[0, 1\], got 90"),
        ("topk:0", "TopK.k must be >= 1, got 0"),
        ("topk:1.5", "'1.5'"),
    ],
)
def test_parse_policy_refuses(text, message):
    with pytest.raises(ValueError, match=message) as error:
        parse_policy(text)
    assert '"entropy:0.5"' in str(error.value)  # says what would be right


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
