"""With drafts, several steps share a forward, and nothing but the number of forwards is another."""

import random
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from python_tests.decoding.conftest import EOS, MASK, RAGGED
from tad_ext.decoding import DecodeConfig, DualCache, TopK, decode, preset

CONFIG = DecodeConfig(gen_length=16, block_length=8, drafts=4, batch_size=3)


class Letters:
    def decode(self, tokens, skip_special_tokens):
        return "".join("abcdefghi"[token] for token in tokens if token < EOS)


def compare(model, prompts, config, **options):
    """Decodes with drafts and without; returns (forwards with, forwards without) of each prompt."""
    with_drafts = decode(model, prompts, config, **options)
    alone = decode(model, prompts, replace(config, drafts=1), **options)
    assert with_drafts.sequences == alone.sequences
    assert torch.equal(with_drafts.response_lengths, alone.response_lengths)
    if not config.stop_strings:  # behind which the steps of a whole forward are one
        assert torch.equal(with_drafts.reveal_step, alone.reveal_step)
    assert (with_drafts.forwards <= alone.forwards).all()
    return with_drafts.forwards, alone.forwards


@pytest.mark.parametrize("transformer", ["tiny", "dream"], indirect=True)
def test_fifty_prompts_decode_as_one_token_per_step(transformer):
    numbers = random.Random(0)
    prompts = [[numbers.randrange(9) for _ in range(numbers.randint(1, 12))] for _ in range(50)]
    config = preset("freedave", gen_length=16, block_length=8, batch_size=5)
    in_fives, alone = compare(transformer, prompts, config)
    assert in_fives.sum() < 0.9 * alone.sum()
    one_by_one = decode(transformer, prompts, replace(config, batch_size=1))
    assert torch.equal(one_by_one.forwards, in_fives)


@pytest.mark.parametrize("transformer", ["llada", "dream"], indirect=True)
@pytest.mark.parametrize(
    "changes",
    [
        {"block_add_threshold": 0.25, "drafts": 3},
        {"policy": "entropy:1.5", "block_add_threshold": 0.5, "forced_progress": "blocks"},
        {"policy": "topk:2", "stop_when": "reached"},
        {"policy": "margin:0.3", "stop_when": "block"},
        {"temperature": 0.7, "top_p": 0.9, "guidance": 0.5},
        {"block_causal": True, "min_length": 5},
        {"hide_future_blocks": True, "block_length": 4, "block_add_threshold": 0.5, "policy": "confidence:0.6"},
        {"stop_strings": ("aa", "bc", "gf")},
    ],
    ids=str,
)
def test_whatever_else_is_asked_for(transformer, changes):
    some, all_of_them = compare(transformer, RAGGED, replace(CONFIG, **changes), tokenizer=Letters())
    assert some.sum() < all_of_them.sum()


@pytest.mark.parametrize("transformer", ["llada"], indirect=True)
def test_blocks_that_begin_with_the_prompt(transformer):
    transformer.config.causal_block_length = 4
    some, all_of_them = compare(transformer, RAGGED, replace(CONFIG, block_length=4))
    assert some.sum() < all_of_them.sum()


def test_masks_in_prompts(mixing_model):
    prompts = [[1, MASK, MASK, 3, 4, MASK, MASK, MASK], [2, 4, MASK], [5, MASK, 1, 1, 1, 1, 1, MASK, MASK, 2]]
    compare(mixing_model(), prompts, replace(CONFIG, block_length=4, infill=True, stop_at_eos=False))


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(st.integers(0, 8), min_size=1, max_size=5), min_size=1, max_size=4),
    st.integers(2, 6),
    st.sampled_from([1, 2, 3, 6]),
    st.sampled_from(["topk:1", "topk:3", "entropy:1.5", "factor:1.0", "entropy-budget:1.0"]),
    st.sampled_from([0.3, 1.0]),
    st.integers(0, 5),
)
def test_whatever_the_settings(mixing_model, prompts, drafts, block_length, policy, add, seed):
    config = DecodeConfig(
        6, block_length, policy, block_add_threshold=add, drafts=drafts, batch_size=2, temperature=0.5 * (seed % 2)
    )
    compare(mixing_model(seed), prompts, config)


@pytest.mark.parametrize(("drafts", "block_length", "rows"), [(4, 8, [1, 4, 4, 4, 3]), (8, 4, [1, 4, 4, 4, 3])])
def test_what_does_not_change_is_drafted_right(scripted_model, drafts, block_length, rows):
    """Predictions that do not depend on the canvas: a row for each step, and no draft behind its block."""
    model = scripted_model([0.9 - 0.05 * (i % 8) for i in range(16)])
    result = decode(model, [[1]], replace(CONFIG, drafts=drafts, block_length=block_length))
    assert [len(call.input_ids) for call in model.calls] == rows
    assert result.forwards.tolist() == [len(rows)]
    assert result.reveal_step.tolist() == [list(range(1, 17))]
    assert result.mean_tokens_per_forward() == 16 / len(rows)


def test_what_is_said_of_wrong_drafts_counts_nowhere(mixing_model):
    class Model(mixing_model):
        asked, broken = set(), 0

        def row_logits(self, tokens):
            logits, canvas = super().row_logits(tokens), tuple(tokens.tolist())
            if alone:
                self.asked.add(canvas)
            elif canvas not in self.asked:
                self.broken += 1
                logits[:] = torch.nan
            return logits

    model, results = Model(), []
    for alone in (True, False):
        results.append(decode(model, RAGGED, replace(CONFIG, drafts=1 if alone else 4)))
    assert results[0].sequences == results[1].sequences
    assert model.broken


def test_a_drafted_end_of_sequence_ends_the_drafts(scripted_model):
    """The third most confident position is an end, and fills what stands behind it."""
    confidences, tokens = [0.9, 0.85, 0.7, 0.8, 0.6, 0.5, 0.5, 0.5], [1, 2, 3, EOS, 5, 6, 7, 8]
    model = scripted_model(confidences, tokens)
    result = decode(model, [[1]], replace(CONFIG, gen_length=8))
    assert result.canvases() == [[1, 2, 3, EOS, EOS, EOS, EOS, EOS]]
    assert result.reveal_step.tolist() == [[1, 2, 4, 3, 3, 3, 3, 3]]
    assert [len(call.input_ids) for call in model.calls] == [1, 3]


def test_places_of_finished_prompts_are_taken_without_their_drafts(mixing_model):
    prompts = [*RAGGED, *RAGGED]
    results = [decode(mixing_model(2), prompts, replace(CONFIG, batch_size=size)) for size in (1, 4, 20)]
    assert len(set(results[0].forwards.tolist())) > 2
    for other in results[1:]:
        assert other.sequences == results[0].sequences
        assert torch.equal(other.forwards, results[0].forwards)


def test_broken_logits_count_where_their_step_does(scripted_model):
    class Broken(scripted_model):
        def row_logits(self, tokens):
            logits = super().row_logits(tokens)
            if int((tokens[1:] != MASK).sum()) == self.broken:
                logits[:] = torch.nan
            return logits

    model = Broken([0.9 - 0.05 * i for i in range(8)])
    model.broken = 3
    with pytest.raises(RuntimeError, match="prompt number 0 hold NaN or \\+inf in forward 2"):
        decode(model, [[1]], replace(CONFIG, gen_length=8))


class Revising(TopK):
    """Goes by confidence, and then changes tokens."""

    sees = "block"

    def revise(self, statistics, state):
        return state.tokens, state.done


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drafts": 0}, "drafts must be an integer"),
        ({"policy": "klass"}, r"drafts is 4 and policy is klass.*: expected one that goes by .* such as topk:1"),
        (
            {"policy": lambda statistics, state: None},
            "drafts is 4 and policy is <function .*: expected one that goes by",
        ),
        ({"policy": Revising()}, "drafts is 4 and policy is topk:1: expected one that goes by"),
        ({"cache": DualCache()}, "drafts is 4 and cache is dual: expected 1 with these"),
        ({"cuda_graphs": True}, "drafts is 4 and cuda_graphs is True: expected 1 with these"),
        ({"sync_every": 2}, "sync_every is 2 and drafts is 4: expected 1 with these"),
    ],
)
def test_refusals(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **changes)
