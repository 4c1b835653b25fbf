"""What is published for models that attend block-causally: tokens, reveal steps and forwards of the loops."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from published import dmax, fast_dllm_v2, llada21, sdar
from published.models import PackageModel

from python_tests.decoding.conftest import EOS, MASK, RAGGED, UNUSED, random_transformer
from tad_ext.decoding import (
    BlockCache,
    BlockEditing,
    BlockPartsCache,
    BlockSteps,
    FastDLLMv2,
    SoftParallel,
    decode,
    parse_policy,
    preset,
)

LENGTH = 24
SPECIAL = {"mask_id": MASK, "suppress": [UNUSED]}


@cache
def model_of(family, block, seed, device):
    model = random_transformer(family, seed, device)
    model.config.causal_block_length, model.config.max_position_embeddings = block, 64
    return model


def remembered(function):
    """The same, of each tensor once: with other settings a loop asks for much of the same."""
    known = {}

    def ask(tensor):
        key = tensor.numpy().tobytes()
        if key not in known:
            known[key] = function(tensor)
        return known[key]

    return torch.no_grad()(ask)


@cache
def predicts(model):
    return remembered(lambda ids: model(ids[None].to(model.device)).logits[0].cpu())


@cache
def from_embeddings(model):
    """(embed, predict) of a model's own trunk, with an attention mask that is written out."""
    block = model.config.causal_block_length

    def embed(ids):
        return model.model.embed_tokens(ids.to(model.device)).cpu()

    def predict(embeddings):
        place = torch.arange(len(embeddings), device=model.device) // block
        mask = (place[None, :] <= place[:, None])[None, None]
        trunk = model.model(None, mask, None, None, embeddings[None].to(model.device), use_cache=False)
        return model.lm_head(trunk.last_hidden_state)[0].cpu()

    return remembered(embed), remembered(predict)


def check(family, block, config, loop, device, asked=predicts, seeds=8, **settings):
    """Ragged prompts in one batch, with and without an end, against the loop for each by itself: 14 rows a seed."""
    forwards = []
    for seed in range(seeds):
        model = model_of(family, block, seed, device)
        for stops in (True, False):
            stop_when = config.stop_when if stops else "revealed"
            result = decode(model, RAGGED, replace(config, stop_at_eos=stops, stop_when=stop_when, batch_size=4))
            for number, prompt in enumerate(RAGGED):
                special = {**SPECIAL, "eos_ids": [EOS] if stops else ()}
                expected = loop(asked(model), prompt, gen_length=LENGTH, block_length=block, **settings, **special)
                tokens = expected.tokens[:LENGTH]
                length = tokens.index(EOS) + 1 if stops and EOS in tokens else LENGTH
                assert result.canvases()[number][:length] == tokens[:length]
                assert result.reveal_step[number, :length].tolist() == expected.reveal_step[:length]
                assert result.forwards[number] == expected.forwards
                if stops:
                    assert result.response_lengths[number] == length
                forwards.append(expected.forwards)
    assert len(forwards) == 14 * seeds >= 70
    assert len(set(forwards)) > 1
    return forwards


@pytest.mark.slow
@pytest.mark.parametrize(
    ("block", "strategy", "threshold", "steps"),
    [(4, "dynamic", 0.4, 0), (6, "dynamic", 0.6, 4), (6, "static", 0.0, 4), (4, "sequential", 0.0, 3)],
)
def test_sdar(device, block, strategy, threshold, steps):
    policy = BlockSteps(strategy, threshold, steps)
    config = preset("sdar", gen_length=LENGTH, block_length=block, policy=policy)
    settings = {"strategy": strategy, "threshold": threshold, "steps": steps or block}
    check("llada", block, config, sdar.loop, device, **settings)


@pytest.mark.slow
@pytest.mark.parametrize(("part", "threshold"), [(2, 0.6), (3, 0.3), (8, 0.3)])
def test_fast_dllm_v2(device, part, threshold):
    config = preset("fast-dllm-v2", gen_length=LENGTH, block_length=8, policy=FastDLLMv2(threshold, part))
    check("dream", 8, config, fast_dllm_v2.loop, device, part=part, threshold=threshold)


@pytest.mark.slow
def test_fast_dllm_v2_with_its_cache_within_a_block(device):
    """In parts of 3 and, at the end of a block, 2."""
    cache, policy = BlockPartsCache(3), FastDLLMv2(0.25, 3)
    config = preset("fast-dllm-v2-dual", gen_length=LENGTH, block_length=8, policy=policy, cache=cache)
    loop = fast_dllm_v2.cached
    check("dream", 8, config, loop, device, asked=PackageModel, seeds=5, part=3, threshold=0.25)


@pytest.mark.slow
@pytest.mark.parametrize(("threshold", "editing", "most"), [(0.4, 0.2, 16), (0.7, 0.35, 16), (0.4, 0.1, 2)])
def test_llada21(device, threshold, editing, most):
    config = preset("llada2.1", gen_length=LENGTH, block_length=6, policy=BlockEditing(threshold, editing, most))
    settings = {"threshold": threshold, "editing": editing, "most": most}
    check("llada", 6, config, llada21.loop, device, **settings)


@pytest.mark.slow
@pytest.mark.parametrize(("threshold", "sure"), [(0.3, 0.6), (0.5, 0.9), (0.15, 0.3)])
def test_dmax(device, threshold, sure):
    config = preset("dmax", gen_length=LENGTH, block_length=6, policy=SoftParallel(threshold, sure))
    settings = {"threshold": threshold, "sure": sure}
    check("llada", 6, config, dmax.loop, device, asked=from_embeddings, **settings)


def test_published_values():
    for name, policy, block, stop_when in (
        ("sdar", "block-steps:strategy=dynamic,threshold=0.85,steps=0", 4, "block"),
        ("sdar-static", "block-steps:strategy=static,steps=0", 4, "block"),
        ("sdar-sequential", "block-steps:strategy=sequential,steps=0", 4, "block"),
        ("llada2", "block-steps:strategy=dynamic,threshold=0.95,steps=0", 32, "block"),
        ("llada2.1", "block-edit:threshold=0.95,editing_threshold=0.9,most_edits=16", 32, "block"),
        ("dmax", "dmax:threshold=0.5,sure=0.9", 32, "block"),
        ("fast-dllm-v2", "fast-dllm-v2:threshold=0.9,part=8", 32, "reached"),
    ):
        config = preset(name)
        assert config.policy == parse_policy(policy)
        assert (config.block_length, config.stop_when, config.cache) == (block, stop_when, BlockCache())
        assert (config.block_add_threshold, config.decoded_token_threshold) == (1.0, 1.0)
    assert preset("fast-dllm-v2-dual") == preset("fast-dllm-v2", cache=BlockPartsCache(8))
