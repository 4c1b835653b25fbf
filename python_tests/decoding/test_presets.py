"""The published settings by name."""

from dataclasses import replace

import pytest

from tad_ext.decoding import PRESETS, DecodeConfig, EntropyThreshold, RhoEOS, TopK, decode, parse_policy, preset
from tad_ext.decoding.policies.base import resizes


@pytest.mark.parametrize(
    ("name", "policy", "add", "decoded", "forced", "cache"),
    [
        ("one-per-step", "topk:1", 1.0, 1.0, "row", "None"),
        ("tad", "entropy:0.5", 0.1, 0.95, "row", "None"),
        ("tad-dream", "entropy:0.4", 0.1, 0.95, "row", "None"),
        ("tad-one-per-step", "entropy:0.0", 1.0, 1.0, "row", "None"),
        ("fast-dllm", "confidence:0.9", 1.0, 1.0, "row", "None"),
        ("fast-dllm-factor", "factor:factor=1.0,variant=code", 1.0, 1.0, "row", "None"),
        ("fast-dllm-dream-prefix", "fast-dllm-dream:0.9", 1.0, 1.0, "row", "prefix-at-block"),
        ("fast-dllm-dream-dual", "fast-dllm-dream:0.9", 1.0, 1.0, "row", "dual-at-block"),
        ("dparallel", "entropy:0.5", 1.0, 1.0, "row", "None"),
        ("d2f", "confidence:threshold=0.9,accept=above", 0.1, 0.95, "blocks", "block"),
        ("d3llm-llada", "entropy:0.5", 0.1, 0.95, "row", "None"),
        ("d3llm-llada-gsm8k", "entropy:0.5", 0.1, 0.95, "row", "d3llm:2,3"),
        ("d3llm-llada-math", "entropy:0.5", 0.1, 0.95, "row", "d3llm:1,never"),
        ("d3llm-llada-mbpp", "entropy:0.5", 0.1, 0.95, "row", "d3llm:1,never"),
        ("d3llm-llada-humaneval", "entropy:0.5", 1.0, 1.0, "row", "d3llm:2,4"),
        ("d3llm-dream", "entropy:0.4", 0.1, 0.95, "block", "None"),
    ],
)
def test_published_values(name, policy, add, decoded, forced, cache):
    config = preset(name)
    assert str(config.policy) == policy
    assert (config.block_add_threshold, config.decoded_token_threshold) == (add, decoded)
    assert (config.forced_progress, str(config.cache)) == (forced, cache)
    assert (config.gen_length, config.block_length) == (256, 32)
    assert not config.hide_future_blocks
    assert config.block_causal == (name == "d2f")
    assert PRESETS[name].source


@pytest.mark.parametrize(
    ("name", "policy", "length"),
    [("llada", "llada", 128), ("dream", "dream", 512), ("adablock", "adablock", 512), ("rho-eos", "rho-eos", 2048)],
)
def test_published_settings_of_one_block(name, policy, length):
    config = preset(name)
    assert config.policy == parse_policy(policy)
    assert config.gen_length == config.block_length == length


def test_a_canvas_of_published_length_at_most():
    for name in ("rho-eos", "daedal"):
        config = preset(name)
        assert (config.gen_length, config.policy.initial, config.policy.threshold) == (2048, 64, 0.9)
    assert config.block_length == RhoEOS().block == 32


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
@pytest.mark.parametrize("transformer", ["llada", "dream"], indirect=True)
def test_every_preset_decodes(transformer, name):
    if name == "wino" and transformer.config.shift:
        pytest.skip("refused: test_wino.py")
    if str(PRESETS[name].cache).startswith("block") and not PRESETS[name].block_causal:
        transformer.config.causal_block_length = 4
    result = decode(transformer, [[1], [2, 3]], preset(name, gen_length=8, block_length=4))
    assert (result.reveal_step > 0).all() or resizes(preset(name).policy)
