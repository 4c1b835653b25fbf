"""What holds for every policy: rows are on their own, what cannot be revealed does not count, nothing is waited for."""

from dataclasses import replace

import pytest
import torch
from host_syncs import HostSyncs
from hypothesis import given
from hypothesis import strategies as st
from policy_cases import EVERY_POLICY, SEVERAL_BLOCKS

from python_tests.decoding.conftest import random_transformer
from tad_ext.decoding import DecodeConfig, decode, parse_policy
from tad_ext.decoding.policies.base import resizes, softens, verifies
from tad_ext.ops import DecodeState, TokenStatistics, token_statistics

COLUMNS, BLOCK, VOCABULARY = 12, 4, 5


class Row:
    """Three forwards of one row: its positions and the logits there, some of them broken."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        random = torch.Generator().manual_seed(seed)
        self.forwards = []
        for _ in range(3):
            count = int(torch.randint(1, COLUMNS + 1, (), generator=random))
            positions = torch.randperm(COLUMNS, generator=random)[:count].sort().values
            # Few different values, so that there are ties.
            logits = torch.randint(0, 5, (count, VOCABULARY), generator=random).float() * 1.5
            logits[torch.rand(count, generator=random) < 0.1] = float("nan")
            self.forwards.append((positions, logits))
        self.reveal_step = torch.randint(0, 2, (COLUMNS,), generator=random)


def answers(policy, rows, *, padding=0, poison=None):
    """The policy's answers to the last forward of rows in one batch: of each row score, accept and the new logits.

    With `poison`, everything about entries that cannot be revealed has this value.
    """
    state = DecodeState.start(len(rows), COLUMNS, block_length=BLOCK)
    state.reveal_step = torch.stack([row.reveal_step for row in rows])
    state.seeds = torch.tensor([row.seed for row in rows])
    for number in range(3):
        width = max(len(row.forwards[number][0]) for row in rows) + padding
        state.positions = torch.full((len(rows), width), -1)
        logits = torch.full((len(rows), width, VOCABULARY), 0.0 if poison is None else poison)
        for index, row in enumerate(rows):
            positions, row_logits = row.forwards[number]
            state.positions[index, : len(positions)] = positions
            logits[index, : len(positions)] = row_logits
        logits = logits.flatten(0, 1)
        if hasattr(policy, "prepare"):
            logits = policy.prepare(logits, state)
        state.forwards += 1
    entry = torch.arange(len(rows) * width).view(len(rows), width)
    statistics = token_statistics(logits, rows=torch.where(state.eligible, entry, -1))
    if poison is not None:
        junk = ~statistics.valid
        floats = ("confidence", "log_odds", "margin", "gap", "entropy", "logsumexp")
        statistics = statistics._replace(
            **{name: getattr(statistics, name).masked_fill(junk, poison) for name in floats}
        )
    score, accept = policy(statistics, state)
    result = []
    for index, row in enumerate(rows):
        count = len(row.forwards[-1][0])
        valid = statistics.valid[index, :count]
        given = logits.view(len(rows), width, -1)[index, :count]
        result.append((score[index, :count][valid], accept[index, :count][valid], given[valid]))
    return result


def assert_same(ours, theirs):
    for our, their in zip(ours, theirs, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(our, their, strict=True))


@pytest.mark.parametrize("text", EVERY_POLICY)
@given(seeds=st.lists(st.integers(0, 10**6), min_size=2, max_size=4))
def test_a_row_has_the_same_answer_alone_and_in_a_batch(text, seeds):
    policy, rows = parse_policy(text), [Row(seed) for seed in seeds]
    alone = [answers(policy, [row])[0] for row in rows]
    assert_same(answers(policy, rows), alone)
    assert_same(answers(policy, rows, padding=3), alone)


@pytest.mark.parametrize("text", EVERY_POLICY)
@given(seed=st.integers(0, 10**6))
def test_what_cannot_be_revealed_does_not_count(text, seed):
    policy, rows = parse_policy(text), [Row(seed), Row(seed + 1)]
    wanted = answers(policy, rows)
    for poison in (float("nan"), float("inf"), 1e30, -1e30):
        assert_same(answers(policy, rows, padding=2, poison=poison), wanted)


@pytest.mark.parametrize("text", EVERY_POLICY)
def test_random_rows_are_decided_both_ways(text):
    accept = torch.cat([answers(parse_policy(text), [Row(seed)])[0][1] for seed in range(40)])
    assert 0.05 < accept.float().mean() < 0.95


@pytest.mark.parametrize("text", EVERY_POLICY)
def test_no_value_is_read_on_the_host(text):
    """Tensors on the meta device have no values: whatever needs one there is an error."""
    policy = parse_policy(text)
    state = DecodeState.start(2, COLUMNS, block_length=BLOCK, device="meta")
    state.seeds, state.end_token_ids = torch.zeros(2, dtype=torch.int64, device="meta"), (0,)
    real = token_statistics(torch.zeros(2, BLOCK, VOCABULARY), query_tokens=torch.tensor([0]))
    statistics = TokenStatistics(*(part.to("meta") for part in real))
    logits = torch.zeros(2 * BLOCK, VOCABULARY, device="meta")
    with HostSyncs() as syncs:
        for _ in range(2):
            if hasattr(policy, "prepare"):
                assert policy.prepare(logits, state).shape == logits.shape
            score, accept = policy(statistics, state)
            if hasattr(policy, "revise"):
                state.tokens = torch.zeros(2, BLOCK, dtype=torch.int64, device="meta")
                tokens, open, *_ = policy.revise(statistics, state)
                assert (tokens.shape, open.shape) == ((2, BLOCK), (2,))
            if resizes(policy):
                lengths = torch.zeros(2, dtype=torch.int64, device="meta")
                answer = policy.resize(statistics, state, torch.zeros_like(state.reveal_step), lengths)
                assert [part.shape for part in answer] == [(2,)] * 3
    assert score.shape == accept.shape == (2, BLOCK)
    assert not syncs.calls


@pytest.mark.parametrize("text", EVERY_POLICY)
def test_decoding_with_every_policy(mixing_model, text, device):
    add = 0.5 if text in SEVERAL_BLOCKS else 1.0
    config = DecodeConfig(gen_length=12, block_length=4, policy=parse_policy(text), block_add_threshold=add)
    prompts = [[1], [2, 3], [4, 5, 6], [7], [8, 1]]
    own_model = softens(config.policy) or verifies(config.policy)
    model = random_transformer("llada", 1, device) if own_model else mixing_model()
    alone = decode(model, prompts, replace(config, batch_size=1))
    for batch_size in (2, 5):  # with 2, prompts take the places of finished ones
        together = decode(model, prompts, replace(config, batch_size=batch_size))
        assert together.sequences == alone.sequences
        assert torch.equal(together.reveal_step, alone.reveal_step)
