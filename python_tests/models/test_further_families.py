"""Families beside LLaDA and Dream, from original checkpoints: an independent formula, decoding, saving back."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from every_family import edit_json
from safetensors.torch import load_file
from tiny_checkpoints import TinyCheckpoint, write_fast_dllm, write_llada2, write_llada_moe, write_sdar, write_sdar_moe
from tiny_models import tiny_model
from torch import Tensor
from transformer_formula import (
    block_causal,
    fast_dllm_logits,
    llada2_logits,
    llada_moe_logits,
    sdar_logits,
    sdar_moe_logits,
    stored_weights,
)

from tad_ext.decoding import BlockCache, ConfidenceThreshold, DecodeConfig, decode
from tad_ext.models import add_lora, load_config, load_model, load_tokenizer, save_adapter
from tad_ext.models.identity import model_identity
from tad_ext.models.loading import save_model
from tad_ext.models.lora import load_merged

BLOCK_CAUSAL = {
    "sdar": (write_sdar, sdar_logits, "block_size"),
    "fast_dllm": (write_fast_dllm, fast_dllm_logits, "bd_size"),
    "sdar_moe": (write_sdar_moe, sdar_moe_logits, "block_size"),
    "llada2": (write_llada2, llada2_logits, "causal_block_length"),
}
FAMILIES = {**BLOCK_CAUSAL, "llada_moe": (write_llada_moe, llada_moe_logits, None)}
Family = tuple[Callable[..., TinyCheckpoint], Callable[..., Tensor], Any]


@pytest.fixture(params=BLOCK_CAUSAL)
def family(request: pytest.FixtureRequest) -> Family:
    """With the field of config.json that says how long blocks are."""
    return BLOCK_CAUSAL[request.param]


@pytest.fixture(params=FAMILIES)
def any_family(request: pytest.FixtureRequest) -> Family:
    """Also those of full attention, which have no such field: None."""
    return FAMILIES[request.param]


def random_ids(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 400, shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("options", [{}, {"kv_heads": 4, "block": 3}, {"tied": True}, {"shards": 3, "layers": 3}])
def test_logits_are_those_of_the_formula(
    any_family: Family, tmp_path: Path, implementation: str, options: dict[str, Any]
) -> None:
    writer, formula, name = any_family
    written = writer(tmp_path, **{key: value for key, value in options.items() if key != "block" or name})
    model = load_model(tmp_path, dtype="float64")
    assert written.config["architectures"][0] in (type(model).__name__, *model.also_called)
    model.set_attn_implementation(implementation)
    ids, lengths = random_ids(2, 41), [41, 23]
    logits = model(ids, lengths=torch.tensor(lengths)).logits
    exact = {"dtype": torch.float64, "rotation": torch.float64}
    for row, length in enumerate(lengths):
        wanted = formula(stored_weights(tmp_path), written.config, ids[row, :length], **exact)
        torch.testing.assert_close(logits[row, :length], wanted, rtol=0, atol=1e-4)
        otherwise = block_causal(length, length if name else 4)
        other = formula(stored_weights(tmp_path), written.config, ids[row, :length], attends=otherwise, **exact)
        assert (wanted - other).abs().max() > 1e-2  # the comparison sees the attention
    positions = torch.tensor([[0, 40, 7], [41 + 22, 41, 41 + 9]])
    chosen = model(ids, lengths=torch.tensor(lengths), positions=positions).logits
    torch.testing.assert_close(chosen, logits.flatten(0, 1)[positions], rtol=0, atol=1e-6)  # routers are in float32


@torch.no_grad()
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_all_blocks_are_seen_at_once_as_each_stands_while_it_is_decoded(
    family: Family, tmp_path: Path, implementation: str
) -> None:
    writer, _, _ = family
    writer(tmp_path)
    model = load_model(tmp_path, dtype="float64")
    model.set_attn_implementation(implementation)
    block, lengths = model.config.causal_block_length, [19, 14]
    clean, noisy = random_ids(2, 19), random_ids(2, 19, seed=1)
    positions = torch.tensor([[18, 0, block, 5], [19 + 13, 19, 19 + 2 * block, 19 + 1]])
    seen = {"lengths": torch.tensor(lengths), "clean": clean}
    found = model(noisy, **seen).logits
    for row, length in enumerate(lengths):
        for first in range(0, length, block):
            end = min(first + block, length)
            alone = torch.cat((clean[row, :first], noisy[row, first:end]))
            wanted = model(alone[None]).logits[0, first:]
            torch.testing.assert_close(found[row, first:end], wanted, rtol=0, atol=1e-5)  # routers are in float32
    for chosen in (positions, positions.flatten()):
        some = model(noisy, positions=chosen, **seen).logits
        torch.testing.assert_close(some, found.flatten(0, 1)[chosen], rtol=0, atol=1e-5)


def test_clean_tokens_where_they_make_no_sense_are_refused() -> None:
    ids = torch.zeros(1, 8, dtype=torch.int64)
    with pytest.raises(ValueError, match="clean needs blocks, or a model of blocks, and no cache"):
        tiny_model()(ids, clean=ids)
    with pytest.raises(ValueError, match=r"clean must have input_ids' shape, \(1, 8\), got \(1, 7\)"):
        tiny_model(causal_block_length=4)(ids, clean=ids[:, 1:])


@pytest.mark.parametrize("batch_size", [1, 3])
def test_it_is_decoded_with_the_exact_cache(family: Family, tmp_path: Path, batch_size: int) -> None:
    writer, _, _ = family
    writer(tmp_path)
    model = load_model(tmp_path)
    block = model.config.causal_block_length
    config = DecodeConfig(gen_length=4 * block, block_length=block, policy=ConfidenceThreshold(0.05))
    prompts = [random_ids(length, seed=length).tolist() for length in (3, 8, 13)]
    found = decode(model, prompts, replace(config, cache=BlockCache(), batch_size=batch_size))
    assert found.sequences == decode(model, prompts, config).sequences
    assert found.mean_tokens_per_forward() > 1


def test_it_is_saved_as_it_was_published(any_family: Family, tmp_path: Path) -> None:
    writer, _, name = any_family
    written = writer(tmp_path / "first")
    save_model(load_model(tmp_path / "first"), load_tokenizer(tmp_path / "first"), tmp_path / "second")
    weights = load_file(tmp_path / "second" / "model.safetensors")
    assert weights.keys() == written.weights.keys()
    assert all(torch.equal(weights[key], written.weights[key]) for key in weights)
    fields = json.loads((tmp_path / "second" / "config.json").read_text())
    published = {key: value for key, value in written.config.items() if key != "layer_types"}  # which says nothing
    assert {**fields, **published, "transformers_version": fields["transformers_version"]} == fields
    assert load_config(tmp_path / "second").causal_block_length == written.config.get(name)


def test_it_takes_an_adapter(any_family: Family, tmp_path: Path) -> None:
    """On all layers that it names; trained, stored, loaded and merged under its original names."""
    writer, _, _ = any_family
    written = writer(tmp_path / "base")
    adapted = add_lora(load_model(tmp_path / "base"), rank=2, alpha=4.0)
    ids = random_ids(2, 12)
    loss = adapted(ids).logits.square().mean()
    loss.backward()
    trained = [weight for weight in adapted.parameters() if weight.requires_grad]
    assert all(weight.grad is not None for weight in trained)
    with torch.no_grad():
        for weight in trained:
            weight.add_(0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel())))
        wanted = adapted(ids).logits
    save_adapter(adapted, tmp_path / "adapter")
    names = {name.partition(".lora_")[0] for name in load_file(tmp_path / "adapter" / "adapter_model.safetensors")}
    assert {name.removeprefix("base_model.model.") + ".weight" for name in names} <= written.weights.keys()
    with torch.no_grad():
        merged = load_merged(tmp_path / "base", tmp_path / "adapter")
        torch.testing.assert_close(merged(ids).logits, wanted, rtol=0, atol=1e-4)
        assert (merged(ids).logits - load_model(tmp_path / "base")(ids).logits).abs().max() > 1e-2
    save_model(merged, load_tokenizer(tmp_path / "base"), tmp_path / "merged")
    assert load_file(tmp_path / "merged" / "model.safetensors").keys() == written.weights.keys()


@pytest.mark.parametrize(
    ("writer", "changes", "message"),
    [
        (write_sdar_moe, {"num_experts_per_tok": 9}, "num_experts_per_tok is 9; expected at most num_experts, 8"),
        (write_sdar_moe, {"mlp_only_layers": [0]}, r"mlp_only_layers is \[0\]; supported: \[\] or None"),
        (write_sdar_moe, {"decoder_sparse_step": 2}, "decoder_sparse_step is 2; supported: 1 or None"),
        (write_sdar_moe, {"num_experts": 0}, "num_experts is 0; expected an integer >= 1"),
        (write_llada2, {"score_function": "softmax"}, "score_function is 'softmax'; supported: 'sigmoid'"),
        (write_llada2, {"n_group": 3}, "num_experts is 8; expected n_group, 3, times an integer >= 2"),
        (write_llada2, {"topk_group": 5}, "topk_group is 5 and num_experts_per_tok is 3"),
        (write_llada2, {"partial_rotary_factor": 0}, "partial_rotary_factor is 0; expected 0 < number <= 1"),
        (write_llada2, {"moe_router_enable_expert_bias": False}, "moe_router_enable_expert_bias is False; supported"),
        (write_llada2, {"image_token_offset": 157184}, "image_token_offset is 157184, a key that is not understood"),
    ],
)
def test_what_is_not_here_is_refused(tmp_path: Path, writer: Any, changes: dict[str, Any], message: str) -> None:
    writer(tmp_path, config=changes)
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path)


@pytest.mark.parametrize("value", [0, 4.0, None])
def test_a_bad_block_length_is_named(family: Family, tmp_path: Path, value: object) -> None:
    writer, _, name = family
    writer(tmp_path, config={name: value})
    with pytest.raises(ValueError, match=f"{name} is {value}; expected an integer >= 1"):
        load_config(tmp_path)


def test_a_block_length_that_is_not_named_is_the_authors(family: Family, tmp_path: Path) -> None:
    writer, _, name = family
    writer(tmp_path)
    edit_json(tmp_path / "config.json", lambda fields: fields.pop(name))
    assert load_config(tmp_path).causal_block_length == (4 if name == "block_size" else 32)


def test_heads_of_their_own_size(tmp_path: Path) -> None:
    writer, *_ = FAMILIES["sdar"]
    model = load_model(writer(tmp_path, head=24).folder)
    assert model.model.layers[0].self_attn.head_dim == 24
    with pytest.raises(ValueError, match="head_dim is 0; expected an integer >= 1"):
        load_config(writer(tmp_path / "none", config={"head_dim": 0}).folder)


@pytest.mark.parametrize(
    ("writer", "changes"),
    [
        (write_sdar_moe, {"num_experts_per_tok": 2}),
        (write_sdar_moe, {"norm_topk_prob": False}),
        (write_llada_moe, {"num_experts_per_tok": 2}),
        (write_llada2, {"routed_scaling_factor": 1.0}),
        (write_llada2, {"partial_rotary_factor": 1.0}),
        (write_llada2, {"topk_group": 3}),
        (write_sdar, {"block_size": 8}),
    ],
)
def test_what_changes_logits_changes_the_identity(tmp_path: Path, writer: Any, changes: dict[str, Any]) -> None:
    first, other = writer(tmp_path / "first").folder, writer(tmp_path / "other", config=changes).folder
    ids = random_ids(1, 9)
    with torch.no_grad():
        assert not torch.equal(load_model(first)(ids).logits, load_model(other)(ids).logits)
    assert model_identity(first) != model_identity(other)


class Collected:
    """A streamer."""

    def __init__(self) -> None:
        self.tokens: list[int] = []

    def put(self, value: Tensor) -> None:
        self.tokens += value.flatten().tolist()

    def end(self) -> None:
        self.tokens.append(-1)


@pytest.mark.parametrize("preset", ["sdar", "llada2.1", "dmax"])
def test_it_generates_as_transformers_users_ask(tmp_path: Path, preset: str) -> None:
    """In its own blocks, which are not asked for; a streamer is given what the response is, though tokens change."""
    model = load_model(write_sdar(tmp_path).folder)
    ids, streamer = random_ids(1, 7), Collected()
    found = model.generate(ids, preset=preset, max_new_tokens=6, streamer=streamer)
    assert found.shape[1] <= 13
    assert streamer.tokens == [*found[0].tolist(), -1]
    assert torch.equal(model.generate(ids, preset=preset, max_new_tokens=6), found)
