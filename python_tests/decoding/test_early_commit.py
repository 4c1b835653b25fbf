"""Prophet and SchED: everything at once, when the gap between the two best tokens is wide enough."""

from __future__ import annotations

import math

import pytest
import torch
from policy_cases import answer, entries

from tad_ext.decoding import Prophet, SchED
from tad_ext.decoding.policies.rows import logit_gap

NAN = float("nan")


def rows_of_gaps(gaps, *, revealed=0, gen_length=100, **options):
    """Rows of greedy predictions with these logit gaps: p1 = 1/2, p2 = exp(-gap) / 2."""
    confidence = [[0.5] * len(row) for row in gaps]
    margin = [[0.5 - 0.5 * math.exp(-gap) for gap in row] for row in gaps]
    statistics, state = entries(confidence, margin=margin, gen_length=gen_length, **options)
    state.reveal_step[:, gen_length - revealed :] = 1
    return statistics, state


@pytest.mark.parametrize(
    ("confidence", "margin", "second", "gap"),
    [
        (0.6, 0.4, False, math.log(0.6 / 0.2)),  # the best token: p2 = 0.6 - 0.4
        (0.2, 0.4, True, math.log(0.6 / 0.2)),  # the second best was sampled: p1 = 0.2 + 0.4
        (0.1, 0.4, False, math.log(0.7 / 0.3)),  # another: p1 + p2 <= 1, so p1 <= 0.7 and p2 <= 0.3
        (1.0, 1.0, False, math.log(2**24)),  # the resolution of float32
        (0.0, 0.0, False, 0.0),  # nothing is possible
    ],
)
def test_the_gap_is_that_of_the_two_best_tokens(confidence, margin, second, gap):
    statistics, _ = entries([[confidence]], margin=[[margin]])
    if second:
        statistics = statistics._replace(token=statistics.second_token)
    assert logit_gap(statistics).item() == pytest.approx(gap, rel=1e-5)


def test_the_gap_never_exceeds_the_true_one_by_much_when_sampling():
    # Only a token of probability <= (1 - margin) / 3 may be taken for the best one.
    torch.manual_seed(0)
    p = torch.randn(2000, 6).mul(2).softmax(-1)
    best = p.sort(dim=-1, descending=True)
    true = (best.values[:, 0] / best.values[:, 1]).log()
    margin = best.values[:, 0] - best.values[:, 1]
    for rank in range(6):
        statistics, _ = entries([[0.0]])
        chosen = best.values[:, rank]
        statistics = statistics._replace(
            token=best.indices[:, rank], second_token=best.indices[:, 1], confidence=chosen, margin=margin
        )
        gap = logit_gap(statistics)
        if rank < 2:
            torch.testing.assert_close(gap, true, rtol=1e-3, atol=1e-3)
        sure = chosen > (1 - margin) / 3 + 1e-6
        sound = (gap <= true + 1e-3) | ((rank >= 2) & (chosen >= margin) & ~sure)
        assert sound.all()


@pytest.mark.parametrize(("revealed", "threshold"), [(0, 7.5), (32, 7.5), (33, 5.0), (66, 5.0), (67, 2.5), (90, 2.5)])
def test_prophet_asks_less_as_it_goes_on(revealed, threshold):
    # Two positions with the mean gap just above and just below the threshold.
    for mean, accept in ((threshold + 0.01, 1), (threshold - 0.01, 0)):
        row = rows_of_gaps([[mean - 1, mean + 1]], revealed=revealed)
        assert answer(Prophet(), *row) == [[accept, accept]]


def test_prophet_decides_for_each_row():
    statistics, state = rows_of_gaps([[6.0, 6.0], [8.0, 8.0]])
    assert answer(Prophet(), statistics, state) == [[0, 0], [1, 1]]
    state.reveal_step[0, 40:] = 1
    assert answer(Prophet(), statistics, state) == [[1, 1], [1, 1]]


def test_the_mean_is_over_what_can_be_revealed():
    options = {"valid": [[True, False, True, False]], "positions": [[0, 1, 2, -1]]}
    statistics, state = rows_of_gaps([[7.0, 0.0, 8.1, 0.0]], **options)
    poison = torch.tensor([[False, True, False, True]])
    statistics = statistics._replace(margin=statistics.margin.masked_fill(poison, NAN))
    assert answer(Prophet(), statistics, state) == [[1, 0, 1, 0]]


def test_a_row_with_nothing_to_reveal():
    assert answer(Prophet(), *rows_of_gaps([[9.0], [9.0]], positions=[[-1], [0]])) == [[0], [1]]
    assert answer(Prophet(0, 0, 0), *rows_of_gaps([[9.0]], positions=[[-1]])) == [[0]]


@pytest.mark.parametrize(
    ("schedule", "thresholds"),
    [
        # at 0, 0.25, 0.5 and 1 of the canvas
        ("linear", [7.5, 6.25, 5.0, 2.5]),
        ("cosine", [7.5, 2.5 + 5 * (1 + math.sqrt(0.5)) / 2, 5.0, 2.5]),
        ("exp", [7.5, 2.5 + 5 * math.exp(-0.5), 2.5 + 5 * math.exp(-1), 2.5 + 5 * math.exp(-2)]),
    ],
)
def test_sched_follows_its_schedule(schedule, thresholds):
    for revealed, threshold in zip((0, 25, 50, 100), thresholds, strict=True):
        for mean, accept in ((threshold + 0.01, 1), (threshold - 0.01, 0)):
            row = rows_of_gaps([[mean - 0.5, mean + 0.5]], revealed=revealed)
            assert answer(SchED(schedule=schedule), *row) == [[accept, accept]]


def test_sched_rate():
    row = rows_of_gaps([[3.0]], revealed=50)
    # 2.5 + 5 exp(-rate / 2): 2.91 at rate 5, 6.39 at rate 0.5
    assert answer(SchED(schedule="exp", rate=5), *row) == [[1]]
    assert answer(SchED(schedule="exp", rate=0.5), *row) == [[0]]


@pytest.mark.parametrize("policy", [Prophet(), SchED()])
def test_without_a_commit_the_most_confident_position_is_next(policy):
    score, accept = policy(*entries([[0.2, 0.5, 0.3]]))
    assert not accept.any()
    assert score.argmax(dim=-1).tolist() == [1]
