"""Counts and cuts of a hand-made result."""

import pytest
import torch

from tad_ext.decoding import DecodeResult
from tad_ext.decoding.result import response_length

EOS = (8, 9)


@pytest.fixture
def result():
    sequences = [[1, 1, 5, 9, 8, 9], [1, 5, 6, 7, 5], [9, 9, 9, 9, 9]]  # an end of sequence in a prompt counts nowhere
    return DecodeResult(
        sequences=sequences,
        prompt_lengths=[2, 1, 1],
        reveal_step=torch.ones(3, 4, dtype=torch.int64),
        forwards=torch.tensor([4, 2, 1]),
        response_lengths=torch.tensor([response_length(tokens[-4:], EOS) for tokens in sequences]),
        eos_token_ids=EOS,
        seconds=2.0,
    )


def test_lengths_count_the_first_end_of_sequence(result):
    assert result.response_lengths.tolist() == [2, 4, 1]
    assert response_length([8, 9], ()) == 2


def test_responses_are_cut_before_it(result):
    assert result.canvases() == [[5, 9, 8, 9], [5, 6, 7, 5], [9, 9, 9, 9]]
    assert result.responses() == [[5], [5, 6, 7, 5], []]


def test_tokens_per_forward(result):
    assert result.tokens_per_forward.dtype == torch.float32
    assert result.tokens_per_forward.tolist() == [0.5, 2.0, 1.0]
    assert result.mean_tokens_per_forward() == pytest.approx(7 / 7)  # sum / sum, not the mean of 0.5, 2 and 1
    assert result.total_forwards() == 7
    assert len(result) == 3
