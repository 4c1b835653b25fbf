"""Credit and KLASS: what they remember from one forward to the next."""

import math
from dataclasses import replace

import pytest
import torch
from policy_cases import WITH_PREPARE, answer, entries
from torch.testing import assert_close

from python_tests.decoding.conftest import MASK
from tad_ext.decoding import KLASS, Credit, DecodeConfig, decode, parse_cache, parse_policy
from tad_ext.ops import DecodeState, unmask_step

NAN = float("nan")
REMEMBERING = [text for text in WITH_PREPARE if not text.startswith("cad")]  # which takes logits away, no more


def state_of(positions, gen_length=4):
    state = DecodeState.start(len(positions), gen_length, block_length=gen_length)
    state.positions = torch.tensor(positions)
    return state


def logits_of(*probabilities):
    """(N, V) logits of these distributions, one per entry."""
    return torch.tensor(probabilities).log()


def forward(policy, state, logits):
    """One forward's `prepare`; afterwards the state counts it."""
    answered = policy.prepare(logits, state)
    state.forwards += 1
    return answered


def test_credit_grows_with_every_forward_that_agrees():
    policy, state = Credit(), state_of([[0]])
    logits = logits_of([0.8, 0.2])
    gain = 0.8**0.2  # of the best token's probability 0.8, to the power 0.2
    first = forward(policy, state, logits)
    assert_close(first - logits, torch.tensor([[0.7 * math.log(1 + gain), 0.0]]))
    second = forward(policy, state, logits)
    assert_close(second - logits, torch.tensor([[0.7 * math.log(1 + 0.8 * gain + gain), 0.0]]))
    # Now the other token is best, with 0.6: the first one's credit decays.
    logits = logits_of([0.4, 0.6])
    third = forward(policy, state, logits)
    left, other = 0.8 * (0.8 * gain + gain), 0.6**0.2
    assert_close(third - logits, torch.tensor([[0.7 * math.log(1 + left), 0.7 * math.log(1 + other)]]))


def test_credit_belongs_to_the_column():
    policy, state = Credit(weight=1, exponent=1, decay=1), state_of([[0, 2]])
    forward(policy, state, logits_of([0.75, 0.25], [0.25, 0.75]))
    state.positions = torch.tensor([[1, 2, -1]])  # column 0 is revealed, column 1 is new
    logits = logits_of([0.75, 0.25], [0.75, 0.25], [0.75, 0.25])
    credit = (forward(policy, state, logits) - logits).expm1()
    assert_close(credit[:2], torch.tensor([[0.75, 0.0], [0.75, 0.75]]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_credit_is_that_of_a_dense_matrix(dtype):
    torch.manual_seed(0)
    rows, columns, vocabulary = 3, 12, 7
    policy, state = Credit(), state_of([[0]] * rows, columns)
    dense = torch.zeros(rows, columns, vocabulary)
    for _ in range(columns):
        width = 5
        state.positions = torch.stack([torch.randperm(columns)[:width].sort().values for _ in range(rows)])
        state.positions[1, 3:] = -1
        logits = torch.randn(rows * width, vocabulary).to(dtype)
        probability, best = logits.float().softmax(-1).max(-1)
        given = logits.clone()
        answered = forward(policy, state, logits).view(rows, width, vocabulary)
        assert torch.equal(logits, given)
        assert answered.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        for row in range(rows):
            for entry, column in enumerate(state.positions[row].tolist()):
                if column >= 0:
                    token = best[row * width + entry]
                    dense[row, column] *= 0.8
                    dense[row, column, token] += probability[row * width + entry] ** 0.2
                    expected = given[row * width + entry] + 0.7 * dense[row, column].log1p()
                    assert_close(answered[row, entry], expected)


def test_credit_accepts_from_the_threshold_up():
    statistics, state = entries([[0.5, 0.75, 0.8, 0.9]], positions=[[0, 1, 2, -1]])
    forward(Credit(0.75), state, torch.zeros(4, 3))
    assert answer(Credit(0.75), statistics, state) == [[0, 1, 1, 0]]


def test_credit_of_broken_logits_stays_finite():
    policy, state = Credit(), state_of([[0, 1]])
    forward(policy, state, torch.tensor([[NAN, 0.0], [0.0, 1.0]]))
    second = forward(policy, state, torch.zeros(2, 2))
    assert second.isfinite().all()


def test_klass_waits_until_the_prediction_stays():
    policy, state = KLASS(threshold=0.5, divergence=0.13, forwards=2), state_of([[0]], gen_length=8)
    statistics, _ = entries([[0.75]])
    accepted = []
    # KL((3/4, 1/4) || (1/2, 1/2)) = 3/4 log(3/2) + 1/4 log(1/2) = 0.1308: not stable. So the stable forwards in a row
    # are 0, 1, 0, 1, 2.
    for p in ([0.5, 0.5], [0.5, 0.5], [0.75, 0.25], [0.75, 0.25], [0.75, 0.25]):
        logits = logits_of(p)
        assert forward(policy, state, logits) is logits
        accepted += answer(policy, statistics, state)[0]
    assert accepted == [0, 0, 0, 0, 1]


@pytest.mark.parametrize(("divergence", "accept"), [(0.1307, 0), (0.1309, 1)])
def test_klass_measures_the_divergence_from_the_last_forward(divergence, accept):
    policy, state = KLASS(0.5, divergence, 1), state_of([[0]])
    forward(policy, state, logits_of([0.5, 0.5]))
    forward(policy, state, logits_of([0.75, 0.25]))
    assert answer(policy, entries([[0.75]])[0], state) == [[accept]]


def test_klass_compares_with_the_forward_before_only():
    policy, state = KLASS(0.5, 0.03, 2), state_of([[0]])
    # KL of 0.6 from 0.5 is 0.020, of 0.7 from 0.6 is 0.022, but of 0.7 from 0.5 it is 0.082.
    for p in ([0.5, 0.5], [0.6, 0.4], [0.7, 0.3]):
        forward(policy, state, logits_of(p))
    assert answer(policy, entries([[0.7]])[0], state) == [[1]]


def test_klass_takes_no_first_prediction_for_stable():
    policy, state = KLASS(0, 10.0, 1), state_of([[0]])
    statistics, _ = entries([[0.75]])
    forward(policy, state, torch.zeros(1, 1000))
    assert answer(policy, statistics, state) == [[0]]
    forward(policy, state, torch.zeros(1, 1000))
    assert answer(policy, statistics, state) == [[1]]


def test_klass_asks_for_confidence_above_the_threshold():
    statistics, state = entries([[0.5, 0.75, 0.8, 0.9]], positions=[[0, 1, 2, -1]])
    policy = KLASS(0.75, 0.01, 1)
    for _ in range(2):
        forward(policy, state, torch.zeros(4, 3))
    assert answer(policy, statistics, state) == [[0, 0, 1, 0]]


def test_klass_remembers_the_column():
    policy, state = KLASS(0.5, 0.01, 1), state_of([[0, 2]])
    statistics, _ = entries([[0.75, 0.75]])
    forward(policy, state, logits_of([0.75, 0.25], [0.25, 0.75]))
    state.positions = torch.tensor([[1, 2]])  # column 0 is revealed, column 1 is new
    forward(policy, state, logits_of([0.75, 0.25], [0.25, 0.75]))
    assert answer(policy, statistics, state) == [[0, 1]]


@pytest.mark.parametrize("text", REMEMBERING)
def test_memory_has_one_first_dimension_and_starts_as_zeros(text):
    policy, state = parse_policy(text), state_of([[0, 1], [2, -1]])
    policy.prepare(torch.zeros(4, 3), state)
    assert state.memory
    assert all(memory.shape[0] == 2 for memory in state.memory.values())
    # A row of zeros is a row that has seen nothing: the same answer as with no memory at all.
    for memory in state.memory.values():
        memory[1] = 0
    logits = torch.randn(4, 3)
    fresh = state_of([[0, 1], [2, -1]])
    assert torch.equal(policy.prepare(logits, state)[2], policy.prepare(logits, fresh)[2])
    statistics, _ = entries([[0.9, 0.9], [0.9, 0.9]])
    assert answer(policy, statistics, state)[1] == answer(policy, statistics, fresh)[1]


@pytest.mark.parametrize("text", REMEMBERING)
def test_forgetting_to_prepare_is_an_error(text):
    state = DecodeState.start(1, 2, block_length=2)
    with pytest.raises(
        RuntimeError, match=rf"policy {text.partition(':')[0]}:.*: prepare\(logits, state\) must be called"
    ):
        unmask_step(torch.zeros(1, 2).long(), torch.zeros(1, 2, 3), state, parse_policy(text), mask_token_id=0)


class WatchingAll(KLASS):
    """The same, shown every mask of the canvas in every forward."""

    sees = "masks"


def check_that_klass_needs_no_block_but_the_next(model, prompts, **options):
    config = DecodeConfig(gen_length=16, block_length=4, **options)
    results = [
        decode(model, prompts, replace(config, policy=policy(0.02, 0.05, forwards)))
        for forwards in (1, 2)
        for policy in (KLASS, WatchingAll)
    ]
    for own, all_masks in zip(results[::2], results[1::2], strict=True):
        assert own.sequences == all_masks.sequences
        assert torch.equal(own.reveal_step, all_masks.reveal_step)
    assert (results[0].reveal_step != results[2].reveal_step).any()  # stable forwards matter here


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_size": 2},
        {"sync_every": 3},
        {"block_add_threshold": 0.25, "decoded_token_threshold": 0.75},
        {"infill": True, "stop_at_eos": False},
    ],
    ids=str,
)
def test_klass_needs_no_block_but_the_next(mixing_model, options):
    prompts = [[1], [2, 3, 4], [5, 5], [3], [1, 2]]
    if "infill" in options:
        prompts = [[1, MASK, MASK, 3, 4, MASK, MASK, MASK], [2, *[4] * 9, MASK, MASK], [5, MASK, *[1] * 6, MASK, 2]]
    check_that_klass_needs_no_block_but_the_next(mixing_model(), prompts, **options)


@pytest.mark.parametrize("cache", ["prefix:2", "dual:3", "delayed:2"])
def test_klass_needs_no_block_but_the_next_with_a_cache(transformer, cache):
    check_that_klass_needs_no_block_but_the_next(transformer, [[1], [2, 3, 4], [5]], cache=parse_cache(cache))
