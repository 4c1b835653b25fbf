"""Prompts with masks in them: filled in when asked, with what stands around them as it was."""

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from python_tests.decoding.conftest import MASK
from tad_ext.decoding import ConfidenceThreshold, DecodeConfig, DelayedCache, DualCache, PrefixCache, decode

CONFIG = DecodeConfig(gen_length=12, block_length=4, infill=True, stop_at_eos=False, batch_size=3)
TEMPLATES = [
    [1, 2, MASK, 3, MASK, MASK, 4],
    [5, MASK],
    [6, 7, 8, MASK, 0, 0, 0, 0, 0, 0, MASK, 1, 2, 3],
    [1, MASK, MASK, MASK, MASK, MASK, MASK, MASK, MASK, MASK, MASK, MASK, MASK],
    [4, MASK, 1, 1, 1, 1, 1, 1, 1, MASK, 2, 2],  # a block that is given whole
    [2, 3, MASK, 9, MASK, 9],  # an end of sequence is a token like any other
]


@pytest.mark.parametrize("policy", [None, ConfidenceThreshold(0.3)])
def test_masks_are_filled_and_nothing_else(mixing_model, policy):
    config = CONFIG if policy is None else replace(CONFIG, policy=policy, block_add_threshold=0.2)
    result = decode(mixing_model(), TEMPLATES, config)
    for row, (template, sequence) in enumerate(zip(TEMPLATES, result.sequences, strict=True)):
        assert len(sequence) == len(template)
        assert MASK not in sequence
        assert all(new == old for new, old in zip(sequence, template, strict=True) if old != MASK)
        first = template.index(MASK)
        assert result.prompt_lengths[row] == first
        given = [token != MASK for token in template[first:]] + [True] * (12 - len(template) + first)
        assert [step == 0 for step in result.reveal_step[row].tolist()] == given
        assert result.responses()[row] == sequence[first:]
        if policy is None:  # one token per forward: the given ones are not counted
            assert result.forwards[row] == template.count(MASK)
            assert result.tokens_per_forward[row] == 1
            assert set(result.reveal_step[row].tolist()) - {0} == set(range(1, template.count(MASK) + 1))
    assert result.mean_tokens_per_forward() >= 1


def test_both_sides_are_seen(mixing_model):
    """One mask: the model's best token for the whole template."""
    model = mixing_model()
    template = [3, 4, MASK, 5, 6, 7]
    logits = model.row_logits(torch.tensor(template))[2]
    logits[[MASK, 11]] = -torch.inf
    assert decode(model, [template], CONFIG).sequences == [[3, 4, logits.argmax().item(), 5, 6, 7]]


before = st.lists(st.integers(0, 9), min_size=1, max_size=6)
behind = st.lists(st.sampled_from([1, 9, MASK]), max_size=11)
template_lists = st.lists(st.builds(lambda a, b: [*a, MASK, *b], before, behind), min_size=1, max_size=5)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(template_lists, st.sampled_from([1, 2, 8]), st.sampled_from([0.2, 1.0]))
def test_the_batch_changes_nothing(mixing_model, templates, batch_size, block_add_threshold):
    config = replace(
        CONFIG, policy=ConfidenceThreshold(0.3), block_add_threshold=block_add_threshold,
    )  # fmt: skip
    expected = [decode(mixing_model(), [template], config).sequences[0] for template in templates]
    assert decode(mixing_model(), templates, replace(config, batch_size=batch_size)).sequences == expected


@pytest.mark.parametrize("scheme", [PrefixCache(1), DualCache(1), DelayedCache(1)])
def test_caches_that_refresh_in_every_forward_are_exact(transformer, scheme):
    config = replace(CONFIG, policy=ConfidenceThreshold(0.6), block_add_threshold=0.5)
    exact = decode(transformer, TEMPLATES, config)
    assert decode(transformer, TEMPLATES, replace(config, cache=scheme)).sequences == exact.sequences
    other = replace(config, cache=replace(scheme, refresh_every=None))
    results = [decode(transformer, TEMPLATES, replace(other, batch_size=size)).sequences for size in (1, 3)]
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([[1, MASK], [2, 3]], r"prompts\[1\] contains no mask id, and infill is True"),
        ([[MASK, 1]], r"prompts\[0\] begins with the mask id"),
        ([[1, *[MASK] * 13]], r"prompts\[0\] has 13 tokens from its first mask on: expected at most gen_length, 12"),
        ([[1] * 60 + [MASK] * 9], r"prompts\[0\] has 69 tokens.* more than the model's max_position_embeddings of 64"),
    ],
)
def test_bad_templates(mixing_model, prompts, message):
    with pytest.raises(ValueError, match=message):
        decode(mixing_model(), prompts, CONFIG)


def test_bad_settings(mixing_model):
    with pytest.raises(ValueError, match=r"prompts\[0\] contains the mask id 10 at position 1.*unless infill is True"):
        decode(mixing_model(), [[1, MASK, 2]], replace(CONFIG, infill=False))
    with pytest.raises(ValueError, match="infill is True and stop_at_eos is True"):
        replace(CONFIG, stop_at_eos=True)
    with pytest.raises(ValueError, match=r"infill is True and stop_strings is \('end',\)"):
        replace(CONFIG, stop_strings=["end"])
    with pytest.raises(ValueError, match="infill and hide_future_blocks are True"):
        replace(CONFIG, hide_future_blocks=True)
    with pytest.raises(TypeError, match="infill must be true or false, got 1"):
        replace(CONFIG, infill=1)
