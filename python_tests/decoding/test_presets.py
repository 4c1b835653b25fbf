"""The published settings by name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tad_ext.decoding import PRESETS, DecodeConfig, EntropyThreshold, TopK, decode, preset


@pytest.mark.parametrize(
    ("name", "policy", "add", "decoded"),
    [
        ("one-per-step", "topk:1", 1.0, 1.0),
        ("tad", "entropy:0.5", 0.1, 0.95),
        ("tad-dream", "entropy:0.4", 0.1, 0.95),
        ("fast-dllm", "confidence:0.9", 1.0, 1.0),
        ("fast-dllm-factor", "factor:1.0", 1.0, 1.0),
        ("dparallel", "entropy:0.5", 1.0, 1.0),
        ("d2f", "confidence:0.9", 0.1, 0.95),
        ("d3llm-llada", "entropy:0.5", 0.1, 0.95),
        ("d3llm-dream", "entropy:0.4", 0.1, 0.95),
    ],
)
def test_published_values(name, policy, add, decoded):
    config = preset(name)
    assert str(config.policy) == policy
    assert (config.block_add_threshold, config.decoded_token_threshold) == (add, decoded)
    assert (config.gen_length, config.block_length) == (256, 32)
    assert PRESETS[name].source


def test_changes_override_and_add():
    assert preset("tad", gen_length=512, policy=TopK(2), seed=7) == DecodeConfig(
        gen_length=512,
        block_length=32,
        policy=TopK(2),
        block_add_threshold=0.1,
        decoded_token_threshold=0.95,
        seed=7,
    )
    assert preset("tad").policy == EntropyThreshold(0.5)  # the preset is as it was


def test_an_unknown_name_is_told_the_known_ones():
    with pytest.raises(ValueError, match=r"preset 'tda': unknown name; expected one of one-per-step, tad, tad-dream"):
        preset("tda")


def test_fields_are_checked():
    with pytest.raises(ValueError, match="gen_length must be a multiple of block_length"):
        preset("tad", gen_length=100)
    with pytest.raises(TypeError, match="gen_lenght"):
        preset("tad", gen_lenght=512)


def test_presets_cannot_be_changed():
    with pytest.raises(TypeError):
        PRESETS["tad"] = replace(PRESETS["tad"], gen_length=8)  # type: ignore[index]


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_decodes(mixing_model, name):
    result = decode(mixing_model(), [[1], [2, 3]], preset(name, gen_length=8, block_length=4))
    assert (result.reveal_step > 0).all()
