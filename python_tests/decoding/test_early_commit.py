"""Prophet and SchED: everything at once, when the gap between the two best tokens is wide enough."""

import math

import pytest
import torch
from policy_cases import answer, entries

from tad_ext.decoding import DecodeConfig, Prophet, SchED, decode

NAN = float("nan")


def rows_of_gaps(gaps, *, forwards=0, gen_length=100, **options):
    """Rows of predictions with these logit gaps, after so many forwards."""
    statistics, state = entries([[0.5] * len(row) for row in gaps], gap=gaps, gen_length=gen_length, **options)
    if forwards:
        state.memory["prophet.clock"] = torch.tensor([[1, forwards - 1, gen_length]] * len(gaps))
    return statistics, state


@pytest.mark.parametrize(("forwards", "threshold"), [(0, 7.5), (31, 7.5), (32, 5.0), (65, 5.0), (66, 2.5), (90, 2.5)])
def test_prophet_asks_less_as_it_goes_on(forwards, threshold):
    # Two positions with the mean gap just above and just below the threshold: all, or one.
    for mean, accept in ((threshold + 0.01, [1, 1]), (threshold - 0.01, [1, 0])):
        row = rows_of_gaps([[mean - 1, mean + 1]], forwards=forwards)
        assert answer(Prophet(), *row) == [accept]


def test_prophet_decides_for_each_row():
    gaps = [[6.0, 6.0], [8.0, 8.0]]
    assert answer(Prophet(), *rows_of_gaps(gaps)) == [[1, 0], [1, 1]]
    assert answer(Prophet(), *rows_of_gaps(gaps, forwards=40)) == [[1, 1], [1, 1]]


def test_prophet_looks_at_the_answer_alone_be_it_revealed_or_not():
    statistics, state = rows_of_gaps([[0.0, 8.0, 9.0, 0.0]])
    state.among = torch.tensor([[True, False, True, True]])
    assert answer(Prophet(start=1, length=2), statistics, state) == [[1, 1, 1, 1]]  # what is revealed does no harm
    assert answer(Prophet(start=1, length=3), statistics, state)[0].count(1) == 1
    assert answer(Prophet(start=2), statistics, state)[0].count(1) == 1


def test_broken_and_padding_entries_do_not_count():
    options = {"valid": [[True, False, True, False]], "positions": [[0, 1, 2, -1]]}
    statistics, state = rows_of_gaps([[7.0, 0.0, 8.1, 0.0]], **options)
    poison = torch.tensor([[False, True, False, True]])
    statistics = statistics._replace(gap=statistics.gap.masked_fill(poison, NAN))
    assert answer(Prophet(), statistics, state) == [[1, 0, 1, 0]]


def test_a_row_with_nothing_to_reveal():
    assert answer(Prophet(), *rows_of_gaps([[9.0], [9.0]], positions=[[-1], [0]])) == [[0], [1]]
    assert answer(Prophet(0, 0, 0), *rows_of_gaps([[9.0]], positions=[[-1]])) == [[0]]


@pytest.mark.parametrize(
    ("schedule", "thresholds"),
    [
        # at 0, 0.25, 0.5 and 1 of the steps
        ("linear", [7.5, 6.25, 5.0, 2.5]),
        ("cosine", [7.5, 2.5 + 5 * (1 + math.sqrt(0.5)) / 2, 5.0, 2.5]),
        ("exp", [7.5, 2.5 + 5 * math.exp(-1), 2.5 + 5 * math.exp(-2), 2.5 + 5 * math.exp(-4)]),
    ],
)
def test_sched_follows_its_schedule(schedule, thresholds):
    assert SchED(schedule=schedule)._remaining(torch.tensor([0, 0.25, 0.5, 1])).tolist() == pytest.approx(
        [(threshold - 2.5) / 5 for threshold in thresholds]
    )


def sched_run(policy, gaps, tokens, masks=100):
    """How many of `masks` entries each forward accepts, with this gap and this best token everywhere."""
    counts = []
    statistics, state = entries([[0.5] * masks], gap=[[0.0] * masks])
    for gap, token in zip(gaps, tokens, strict=True):
        shown = statistics._replace(
            gap=torch.full_like(statistics.gap, gap), top_token=torch.full_like(statistics.token, token)
        )
        counts.append(sum(answer(policy, shown, state)[0]))
    return counts


def test_sched_waits_until_no_guess_changes():
    # Of 100 masks a step of 10 reveals 9 at first (1 - 0.9001 of 100, rounded down), as nothing is taken out here then
    # 1 - 0.8002 / 0.9001 of them, and so on.
    assert sched_run(SchED(steps=10), [9.0, 9.0], [1, 1]) == [9, 100]
    assert sched_run(SchED(steps=10), [9.0, 9.0, 9.0], [1, 2, 2]) == [9, 11, 100]
    assert sched_run(SchED(steps=10), [1.0, 1.0, 1.0], [1, 1, 1]) == [9, 11, 12]


def test_sched_leaves_out_steps_that_reveal_nothing_but_not_their_thresholds():
    # Four masks and 100 steps: the first that reveals one of four is where 1 - s / t reaches a quarter, which is step
    # 97 of 0 to 99, and the threshold has fallen to 2.505. Guesses that a forward stands for again are unchanged.
    assert sched_run(SchED(steps=100), [2.6], [1], masks=4) == [4]
    assert sched_run(SchED(steps=100), [2.4], [1], masks=4) == [1]


@pytest.mark.parametrize("policy", [Prophet(), SchED()])
def test_without_a_commit_the_most_confident_position_is_next(policy):
    score, accept = policy(*entries([[0.2, 0.5, 0.3]], [[1.5, 0.5, 1.0]]))
    assert accept.tolist() == [[False, True, False]]
    assert score.argmax(dim=-1).tolist() == [1]


@pytest.mark.parametrize("policy", [Prophet(0, 0, 0), SchED(high=0, low=0)])
def test_everything_is_also_what_stands_in_blocks_to_come(mixing_model, policy):
    model = mixing_model()
    result = decode(model, [[1], [2, 3]], DecodeConfig(8, 2, policy=policy, stop_at_eos=False))
    first = result.forwards[0].item()
    assert result.forwards.tolist() == [first] * 2
    assert first <= 2
    assert (result.reveal_step[:, 2:] == first).all()
