"""With branches, each forward is of several canvases, and the one whose masks are the most certain goes on."""

import random
from dataclasses import replace

import pytest
import torch
from published import lopa

from python_tests.decoding.conftest import EOS, MASK, RAGGED, UNUSED, MixingModel
from tad_ext.decoding import ConfidenceByEntropy, DecodeConfig, DualCache, decode, preset

CONFIG = DecodeConfig(gen_length=16, block_length=8, branches=4, batch_size=3)


class Letters:
    def decode(self, tokens, skip_special_tokens):
        return "".join("abcdefghi"[token] for token in tokens if token < EOS)


def test_fifty_prompts_decode_as_published(mixing_model):
    numbers = random.Random(0)
    prompts = [[numbers.randrange(9) for _ in range(numbers.randint(1, 6))] for _ in range(50)]
    config = preset("lopa", gen_length=8, block_length=4, policy=ConfidenceByEntropy(0.45), branches=3)
    in_threes, one_by_one = (decode(mixing_model(), prompts, replace(config, batch_size=size)) for size in (3, 1))
    assert in_threes.sequences == one_by_one.sequences
    assert torch.equal(in_threes.reveal_step, one_by_one.reveal_step)
    assert torch.equal(in_threes.forwards, one_by_one.forwards)
    names = ("gen_length", "block_length", "branches", "block_add_threshold", "decoded_token_threshold")
    fields = {name: getattr(config, name) for name in (*names, "hide_future_blocks")}
    predict = MixingModel().row_logits
    for number, prompt in enumerate(prompts):
        special = {"mask_id": MASK, "eos_ids": [EOS], "suppress": [UNUSED]}
        expected = lopa.loop(predict, prompt, **fields, threshold=0.45, **special)
        assert in_threes.canvases()[number] == expected.tokens
        assert in_threes.reveal_step[number].tolist() == expected.reveal_step
        assert in_threes.forwards[number] == expected.forwards


def test_the_branch_of_the_most_certain_masks_goes_on(scripted_model):
    """The third column's further token makes all masks certain, and that of the second, the most certain one, none."""

    class Model(scripted_model):
        def row_logits(self, tokens):
            return super().row_logits(tokens) * (4 if tokens[3] != MASK else 1)

    model = Model([0.9, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5])
    result = decode(model, [[1]], replace(CONFIG, gen_length=8, branches=3, policy="confidence:0.85"))
    rows = [[(row[1:] != MASK).nonzero()[:, 0].tolist() for row in call.input_ids] for call in model.calls]
    assert rows == [[[]], [[0], [0, 1], [0, 2]]]
    assert result.canvases() == [[1, 2, 3, 4, 5, 6, 7, 8]]
    assert result.reveal_step.tolist() == [[1, 2, 1, 2, 2, 2, 2, 2]]


def test_a_branch_that_leaves_no_mask_needs_no_forward(scripted_model):
    """Predictions that do not depend on the canvas: a step and a further token in each forward."""
    model = scripted_model([0.9 - 0.05 * i for i in range(8)])
    result = decode(model, [[1]], replace(CONFIG, gen_length=8, branches=2))
    # The canvas is the more certain of the two but once: it has the more certain masks.
    assert result.canvases() == [[1, 2, 3, 4, 5, 6, 7, 8]]
    assert max(result.reveal_step[0].tolist()) == int(result.forwards) == len(model.calls) < 8
    assert result.reveal_step[0].bincount()[int(result.forwards)] == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"block_add_threshold": 0.25, "temperature": 0.7, "top_p": 0.9, "guidance": 0.5},
        {"policy": "entropy:1.5", "stop_when": "reached", "block_causal": True, "min_length": 5},
        {"policy": "lopa:0.5", "branches": 6, "stop_when": "block", "stop_strings": ("aa", "bc", "gf")},
        {"hide_future_blocks": True, "block_length": 4, "block_add_threshold": 0.5, "policy": "confidence:0.6"},
    ],
    ids=str,
)
@pytest.mark.parametrize("transformer", ["llada"], indirect=True)
def test_whatever_else_is_asked_for_the_batch_changes_nothing(transformer, changes):
    config = replace(CONFIG, **changes)
    results = [decode(transformer, RAGGED, replace(config, batch_size=size), tokenizer=Letters()) for size in (1, 3)]
    assert results[0].sequences == results[1].sequences
    assert torch.equal(results[0].reveal_step, results[1].reveal_step)
    assert torch.equal(results[0].forwards, results[1].forwards)
    assert not any(MASK in canvas for canvas in results[0].canvases())


def test_masks_in_prompts(mixing_model):
    prompts = [[1, MASK, MASK, 3, 4, MASK, MASK, MASK], [2, 4, MASK], [5, MASK, 1, 1, 1, 1, 1, MASK, MASK, 2]]
    config = replace(CONFIG, block_length=4, infill=True, stop_at_eos=False)
    result = decode(mixing_model(), prompts, config)
    for prompt, sequence in zip(prompts, result.sequences, strict=True):
        assert all(given in (MASK, token) for given, token in zip(prompt, sequence, strict=True))
    assert not any(MASK in sequence for sequence in result.sequences)


def test_broken_logits_of_any_branch(scripted_model):
    class Broken(scripted_model):
        def row_logits(self, tokens):
            broken = (tokens[1:3] != MASK).all()
            return super().row_logits(tokens).masked_fill(broken, torch.nan)

    with pytest.raises(RuntimeError, match="prompt number 0 hold NaN or \\+inf in forward 2"):
        decode(Broken([0.9 - 0.05 * i for i in range(8)]), [[1]], replace(CONFIG, gen_length=8))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"branches": 0}, "branches must be an integer"),
        ({"policy": "klass"}, r"branches is 4 and policy is klass.*: expected one that goes by .* such as topk:1"),
        ({"cache": DualCache()}, "branches is 4 and cache is dual: expected 1 with these"),
        ({"cuda_graphs": True}, "branches is 4 and cuda_graphs is True: expected 1 with these"),
        ({"sync_every": 2}, "sync_every is 2 and branches is 4: expected 1 with these"),
        ({"drafts": 2}, "drafts is 2 and branches is 4: expected one of them to be 1"),
    ],
)
def test_refusals(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **changes)
