"""A row that finishes makes room for the next prompt, and nobody's response depends on it."""

from dataclasses import replace

import pytest
import torch

from python_tests.decoding.conftest import RAGGED
from tad_ext.decoding import ConfidenceThreshold, DecodeConfig, DualCache, Prophet, SchED, TopK, decode, decode_stream

CONFIG = DecodeConfig(
    gen_length=12, block_length=4, policy=ConfidenceThreshold(0.35), block_add_threshold=0.25, batch_size=3
)


def test_places_are_taken_at_once(mixing_model):
    model = mixing_model()
    result = decode(model, RAGGED, CONFIG)
    sizes = [len(call.input_ids) for call in model.calls]
    assert sum(sizes) == result.total_forwards()
    waiting_is_over = sizes.index(2)
    assert set(sizes[:waiting_is_over]) == {3}, "a place stays empty only when nobody waits"
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(result.forwards.tolist())) > 2, "rows finish at different times"


@pytest.mark.parametrize("slow", range(4))
@pytest.mark.parametrize("batch_size", [3, 4])
def test_any_rows_may_finish_together(scripted_model, slow, batch_size):
    """All but one after a forward, which its prompt decides."""

    class Model(scripted_model):
        def row_logits(self, tokens):
            self.confidences = [0.5 if tokens[0] == 7 else 0.95] * 6
            return super().row_logits(tokens)

    prompts = [[7] if row == slow else [row] for row in range(4)]
    config = DecodeConfig(6, 6, policy=ConfidenceThreshold(0.9), batch_size=batch_size)
    result = decode(Model([0.95] * 6), prompts, config)
    assert result.forwards.tolist() == [6 if row == slow else 1 for row in range(4)]
    assert result.sequences == [[*prompt, 1, 2, 3, 4, 5, 6] for prompt in prompts]


@pytest.mark.parametrize("transformer", ["llada"], indirect=True)
@pytest.mark.parametrize("sync_every", [3, 20])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"policy": TopK(1), "block_add_threshold": 0.0},
        {"stop_at_eos": False},
        {"policy": Prophet(early=100.0, mid=0.0), "block_add_threshold": 1.0},  # everything in the fourth forward
        {"policy": SchED(high=100.0, low=0.0, schedule="exp", rate=100.0), "block_add_threshold": 1.0},
    ],
)
def test_looking_less_often_changes_nothing(transformer, sync_every, changes):
    for hide_future_blocks in (False, True):
        config = replace(CONFIG, hide_future_blocks=hide_future_blocks, temperature=1.0, **changes)
        expected = decode(transformer, RAGGED, config)
        watcher = Watcher()
        result = decode(transformer, RAGGED, replace(config, sync_every=sync_every), watch=watcher)
        assert result.sequences == expected.sequences
        assert torch.equal(result.reveal_step, expected.reveal_step)
        assert torch.equal(result.forwards, expected.forwards)
        assert len(watcher.seen) < max(expected.forwards.tolist()) + len(RAGGED)


def test_looking_less_often_is_refused_where_somebody_looks():
    for changes in ({"cache": DualCache()}, {"stop_strings": ["end"]}):
        with pytest.raises(ValueError, match=r"sync_every is 2 and .*: expected 1 with these"):
            replace(CONFIG, sync_every=2, **changes)
    with pytest.raises(ValueError, match=r"sync_every must be an integer in .* got 0"):
        replace(CONFIG, sync_every=0)


def test_rows_are_given_as_they_finish(mixing_model):
    model = mixing_model()
    rows, calls = [], []
    for row in decode_stream(model, RAGGED, CONFIG):
        rows.append(row)
        calls.append(len(model.calls))
    result = decode(mixing_model(), RAGGED, CONFIG)
    assert calls[0] == min(result.forwards[[5, 2, 4]]), "the longest three come first"
    assert calls == sorted(calls)
    assert sorted(row.number for row in rows) == list(range(len(RAGGED)))
    for row in rows:
        assert row.prompt == RAGGED[row.number]
        assert row.prompt + row.canvas == result.sequences[row.number]
        assert row.reveal_step == result.reveal_step[row.number].tolist()
        assert row.forwards == result.forwards[row.number]
        assert row.response_length == result.response_lengths[row.number]
        assert row.response() == result.responses()[row.number]


def test_arguments_are_checked_before_the_first_response_is_asked_for(mixing_model):
    with pytest.raises(ValueError, match=r"prompts\[1\] is empty"):
        decode_stream(mixing_model(), [[1], []], CONFIG)


def test_the_model_is_in_evaluation_mode_in_forwards_only(mixing_model):
    inner_modes = []

    class Model(torch.nn.Module):
        inner = mixing_model()
        device, config = inner.device, inner.config

        def forward(self, *arguments, **options):
            inner_modes.append(self.training)
            return self.inner(*arguments, **options)

    model = Model().train()
    rows = decode_stream(model, RAGGED, CONFIG)
    next(rows)
    assert model.training
    assert not any(inner_modes)
    others = decode_stream(model, RAGGED, CONFIG)
    next(others)
    list(rows)
    list(others)
    assert model.training
    assert not any(inner_modes), "another stream has come to its end, and this one is without dropout still"


class Watcher:
    def __init__(self):
        self.seen = []

    def __call__(self, numbers, canvas, reveal_step):
        self.seen.append((numbers, canvas, reveal_step))  # as they are: they must stay so


def test_a_watcher_sees_every_forward(mixing_model):
    watcher = Watcher()
    config = DecodeConfig(gen_length=12, block_length=4, stop_at_eos=False, batch_size=2)
    result = decode(mixing_model(), RAGGED[:3], config, watch=watcher)
    assert [numbers for numbers, *_ in watcher.seen] == [[2, 0]] * 12 + [[1]] * 12
    for step, (numbers, canvases, reveal_steps) in enumerate(watcher.seen):
        for number, canvas, steps in zip(numbers, canvases, reveal_steps, strict=True):
            expected = torch.where(
                result.reveal_step[number] <= step % 12 + 1, torch.tensor(result.canvases()[number]), 10
            )
            assert canvas.tolist() == expected.tolist()
            assert (steps > 0).sum() == step % 12 + 1


def test_what_a_policy_remembers_moves_with_its_row(mixing_model):
    """Each row's count of forwards, kept in the policy's memory, is the row's own."""
    seen = []

    def policy(statistics, state):
        count = state.memory.setdefault("count", torch.zeros_like(state.forwards))
        count += 1
        seen.append((count - state.forwards).tolist())
        return ConfidenceThreshold(0.35)(statistics, state)

    result = decode(mixing_model(), RAGGED, replace(CONFIG, policy=policy))
    assert len(seen) > max(result.forwards)
    assert all(set(row) == {1} for row in seen)


def test_memory_that_a_policy_makes_anew_is_kept_as_well(mixing_model):
    seen = []

    def policy(statistics, state):
        state.memory["count"] = state.memory.get("count", 0) + torch.ones_like(state.forwards)
        seen.append((state.memory["count"] - state.forwards).tolist())
        return ConfidenceThreshold(0.35)(statistics, state)

    decode(mixing_model(), RAGGED, replace(CONFIG, policy=policy))
    assert all(set(row) == {1} for row in seen)


def test_a_policy_may_change_logits_before_they_are_read(mixing_model):
    class Nudged:
        def prepare(self, logits, state):
            assert logits.shape == (state.positions.numel(), 12)
            return logits.index_fill(1, torch.tensor([5], device=logits.device), 50.0)

        def __call__(self, statistics, state):
            return TopK(1)(statistics, state)

    result = decode(mixing_model(), RAGGED, replace(CONFIG, policy=Nudged()))
    assert result.canvases() == [[5] * 12] * len(RAGGED)


def test_some_prompts_under_their_own_numbers_sample_what_they_sample_among_all(mixing_model):
    config = replace(CONFIG, temperature=1.0, seed=3)
    everything = {row.number: row for row in decode_stream(mixing_model(), RAGGED, config)}
    left = [5, 1, 3]
    rows = list(decode_stream(mixing_model(), [RAGGED[number] for number in left], config, numbers=left))
    assert sorted(row.number for row in rows) == sorted(left)
    for row in rows:
        assert row == everything[row.number]


@pytest.mark.parametrize("numbers", [[0], [0, 1, 1], [0, 1, -1], [0, 1, 2**62]])
def test_numbers_that_do_not_fit_are_named(mixing_model, numbers):
    with pytest.raises(ValueError, match="numbers"):
        decode_stream(mixing_model(), RAGGED[:3], CONFIG, numbers=numbers)
