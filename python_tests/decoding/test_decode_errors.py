"""Bad input is refused before the model is asked for anything, by errors that say what, its value and what instead."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tad_ext.decoding import DecodeConfig, TopK, decode

CONFIG = DecodeConfig(gen_length=8, block_length=4)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"gen_length": 0}, ValueError, "gen_length must be an integer in .* got 0"),
        ({"gen_length": 8.0}, TypeError, "gen_length must be an integer in .* got 8.0"),
        ({"gen_length": 10}, ValueError, "multiple of block_length, got gen_length=10 and block_length=4"),
        ({"block_length": 16}, ValueError, "multiple of block_length, got gen_length=8 and block_length=16"),
        ({"block_length": -4}, ValueError, "block_length must be an integer in .* got -4"),
        ({"block_length": True}, TypeError, "block_length must be an integer in .* got True"),
        ({"policy": "entropies:0.5"}, ValueError, "policy 'entropies:0.5': unknown name 'entropies'"),
        ({"policy": TopK}, TypeError, "policy must be a callable such as TopK"),
        ({"policy": None}, TypeError, "policy must be a callable.*None"),
        ({"block_add_threshold": 1.5}, ValueError, r"block_add_threshold must be a finite number in \[0, 1\], got 1.5"),
        ({"decoded_token_threshold": -0.5}, ValueError, "decoded_token_threshold .* got -0.5"),
        ({"decoded_token_threshold": float("nan")}, ValueError, "decoded_token_threshold .* got nan"),
        ({"stop_at_eos": 1}, TypeError, "stop_at_eos must be true or false, got 1"),
        ({"eos_token_ids": 9}, TypeError, "eos_token_ids must be a list, each entry an integer .* or none, got 9"),
        ({"eos_token_ids": [9, "x"]}, TypeError, r"eos_token_ids\[1\] must be an integer .* got 'x'"),
        ({"eos_token_ids": [-1]}, ValueError, r"eos_token_ids\[0\] must be an integer in .* got -1"),
        ({"temperature": -1}, ValueError, "temperature must be a finite number in .* got -1"),
        ({"temperature": float("inf")}, ValueError, "temperature must be a finite number in .* got inf"),
        ({"temperature": "hot"}, TypeError, "temperature must be a finite number in .* got 'hot'"),
        ({"seed": -1}, ValueError, "seed must be an integer in .* got -1"),
        ({"seed": 2**63}, ValueError, "seed must be an integer in .* got 92233"),
        ({"cuda_graphs": "on"}, TypeError, "cuda_graphs must be true, false or auto, got 'on'"),
        ({"cuda_graphs": None}, TypeError, "cuda_graphs must be true, false or auto, got None"),
        ({"batch_size": 0}, ValueError, "batch_size must be an integer in .* got 0"),
    ],
)
def test_config(changes, error, message):
    with pytest.raises(error, match=message):
        replace(CONFIG, **changes)


@pytest.mark.parametrize(
    ("prompts", "error", "message"),
    [
        ([[1], []], ValueError, r"prompts\[1\] is empty"),
        ([[1], [2, 12]], ValueError, r"prompts\[1\] contains 12: expected ids in \[0, 12\)"),
        ([[-1]], ValueError, r"prompts\[0\] contains -1"),
        ([[1], [2], [3, 10, 4]], ValueError, r"prompts\[2\] contains the mask id 10 at position 1"),
        ([[1] * 57], ValueError, r"prompts\[0\] has 57 tokens and gen_length is 8: together 65, more than .* of 64"),
        ([1, 2, 3], TypeError, r"prompts\[0\] must be a sequence of integer token ids, got 1"),
        ([[1.0, 2.0]], TypeError, r"prompts\[0\] must be a sequence of integer token ids, got \[1.0, 2.0\]"),
        ([[[1, 2], [3]]], TypeError, r"prompts\[0\] must be a sequence of integer"),
        ([[1], "hello"], TypeError, r"prompts\[1\] must be a sequence of integer token ids, got 'hello'"),
        ([[1], None], TypeError, r"prompts\[1\] must be"),
        ("hello", TypeError, "prompts must be a sequence of token-id sequences, got str"),
        ({"input_ids": [[1]]}, TypeError, "prompts must be a sequence of token-id sequences, got dict"),
        (None, TypeError, "prompts must be a sequence of token-id sequences, got NoneType"),
    ],
)
def test_prompts(mixing_model, prompts, error, message):
    model = mixing_model()
    with pytest.raises(error, match=message):
        decode(model, prompts, CONFIG)
    assert not model.calls


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("mask_token_id", None, "model.config.mask_token_id is None: decoding needs the id of the mask token"),
        ("mask_token_id", 12, r"model.config.mask_token_id contains 12: expected ids in \[0, 12\)"),
        ("eos_token_ids", [], "stop_at_eos is True and model.config.eos_token_ids is empty"),
        ("eos_token_ids", None, "stop_at_eos is True and model.config.eos_token_ids is empty"),
        ("eos_token_ids", [99], "model.config.eos_token_ids contains 99"),
        ("eos_token_ids", [10], "model.config.eos_token_ids contains 10, the mask id"),
        ("suppress_token_ids", [50], "model.config.suppress_token_ids contains 50"),
    ],
)
def test_models(mixing_model, field, value, message):
    model = mixing_model()
    setattr(model.config, field, value)
    with pytest.raises(ValueError, match=message):
        decode(model, [[1]], CONFIG)
    assert not model.calls


def test_eos_ids_of_the_config_are_checked_against_the_model(mixing_model):
    with pytest.raises(ValueError, match="eos_token_ids contains 12: expected"):
        decode(mixing_model(), [[1]], replace(CONFIG, eos_token_ids=(12,)))
    with pytest.raises(ValueError, match="stop_at_eos is True and eos_token_ids is empty"):
        decode(mixing_model(), [[1]], replace(CONFIG, eos_token_ids=()))


def test_a_model_without_eos_decodes_when_not_asked_to_stop(mixing_model):
    model = mixing_model()
    model.config.eos_token_ids = None
    result = decode(model, [[1]], replace(CONFIG, stop_at_eos=False))
    assert result.response_lengths.tolist() == [8]
    assert result.responses() == result.canvases()


def test_no_prompts_give_an_empty_result(mixing_model):
    model = mixing_model()
    result = decode(model, [], CONFIG)
    assert not model.calls
    assert len(result) == 0
    assert result.sequences == result.responses() == result.prompt_lengths == []
    assert result.reveal_step.shape == (0, 8)
    assert result.forwards.shape == result.response_lengths.shape == result.tokens_per_forward.shape == (0,)
    assert result.mean_tokens_per_forward() == 0.0
    assert result.total_forwards() == 0


def test_prompts_may_be_arrays_and_fill_the_last_position(mixing_model):
    lists = [[1, 2, 3], [4, 5, 6]]
    result = decode(mixing_model(), lists, CONFIG)
    for prompts in (
        np.array(lists),
        torch.tensor(lists),
        [torch.tensor(p) for p in lists],
        [np.array(p, dtype=np.int32) for p in lists],
    ):
        assert decode(mixing_model(), prompts, CONFIG).sequences == result.sequences
    assert len(decode(mixing_model(), [[1] * 56], CONFIG).sequences[0]) == 64


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_broken_logits_name_the_prompt_and_the_forward(mixing_model, value, batch_size):
    model = mixing_model()
    intact = model.row_logits

    def broken_after_two_reveals(tokens):
        logits = intact(tokens)
        if tokens[0] == 7 and (tokens == 10).sum() == 6:
            logits[tokens == 10] = value
        if tokens[0] == 3:
            logits[:, 9] = 50.0  # this row, the first of its batch, ends at once and leaves
        return logits

    model.row_logits = broken_after_two_reveals
    config = replace(CONFIG, batch_size=batch_size)
    with pytest.raises(RuntimeError, match=r"prompt number 2 hold NaN or \+inf in forward 3"):
        decode(model, [[1], [2, 2], [7], [3, 3, 3]], config)


def test_broken_logits_where_nobody_asked_do_not_matter(mixing_model):
    """Rows behind -1 positions are padding: whatever a model returns for them is never used."""
    model = mixing_model()
    config = replace(CONFIG, policy="confidence:0.35")
    expected = decode(model, [[1], [2, 2]], config)
    call = type(model).__call__

    class Poisoned(type(model)):
        def __call__(self, input_ids, *, lengths=None, positions=None):
            output = call(self, input_ids, lengths=lengths, positions=positions)
            output.logits[positions < 0] = float("nan")
            poisoned.append((positions < 0).any())
            return output

    poisoned = []
    assert decode(Poisoned(), [[1], [2, 2]], config).sequences == expected.sequences
    assert any(poisoned)
