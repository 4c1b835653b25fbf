"""LLaDA-MoE, told from LLaDA-8B by its architecture: what its configuration says, merging, decoding."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from every_family import edit_json
from safetensors.torch import load_file
from tiny_checkpoints import write_llada_moe
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

from tad_ext.decoding import ConfidenceThreshold, DecodeConfig, decode
from tad_ext.jobs.merge.config import MergeConfig
from tad_ext.jobs.merge.run import merge
from tad_ext.models import add_lora, load_config, load_model, load_tokenizer, save_adapter
from tad_ext.models.llada_moe import LLaDAMoEConfig, LLaDAMoEModelLM
from tad_ext.models.loading import save_model


def random_ids(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 400, shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("architecture", ["LLaDAMoEModel", "LLaDAMoEModelLM"])
def test_it_is_told_by_either_name_of_its_architecture(tmp_path: Path, architecture: str) -> None:
    """After it was saved, too, and by transformers' own classes."""
    written = write_llada_moe(tmp_path / "first", config={"architectures": [architecture]})
    save_model(load_model(written.folder), load_tokenizer(written.folder), tmp_path / "second")
    for folder in (tmp_path / "first", tmp_path / "second"):
        assert json.loads((folder / "config.json").read_text())["architectures"] == [architecture]
        assert type(load_model(folder)) is LLaDAMoEModelLM
        assert type(AutoConfig.from_pretrained(folder)) is LLaDAMoEConfig
        assert type(AutoConfig.for_model("llada", architectures=[architecture])) is LLaDAMoEConfig
        for automatic in (AutoModelForMaskedLM, AutoModelForCausalLM):
            assert type(automatic.from_pretrained(folder)) is LLaDAMoEModelLM


def test_what_the_published_file_leaves_out(tmp_path: Path) -> None:
    def as_published(fields: dict[str, object]) -> None:
        for name in ("mask_token_id", "eos_token_id", "pad_token_id", "rms_norm_eps", "num_key_value_heads"):
            del fields[name]
        fields["vocab_size"] = 157184

    edit_json(write_llada_moe(tmp_path).folder / "config.json", as_published)
    config = load_config(tmp_path)
    assert (config.mask_token_id, config.eos_token_ids, config.pad_token_id) == (156895, [156892], 156892)
    assert (config.rms_norm_eps, config.num_key_value_heads, config.causal_block_length) == (1e-5, 4, None)


@torch.no_grad()
def test_a_model_made_here_has_a_complete_config(tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 2}
    sizes |= {"moe_intermediate_size": 8, "num_experts": 4, "num_experts_per_tok": 2}
    ids = {"vocab_size": 50, "mask_token_id": 48, "eos_token_id": 49, "eos_token_ids": [49], "pad_token_id": 49}
    rope = {"rope_type": "default", "rope_theta": 12345.0}
    model = LLaDAMoEModelLM(LLaDAMoEConfig(**sizes, **ids, rope_parameters=rope)).eval()
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["expert_intermediate_size"], config["moe_layer_freq"], config["qk_layernorm"]) == (8, [1] * 3, True)
    assert torch.equal(load_model(tmp_path)(random_ids(1, 5) % 50).logits, model(random_ids(1, 5) % 50).logits)


def test_every_embedding_is_trained(tmp_path: Path) -> None:
    model, end = load_model(write_llada_moe(tmp_path).folder), load_config(tmp_path).pad_token_id
    model(torch.tensor([[5, end, end]])).logits.square().sum().backward()
    assert model.model.embed_tokens.weight.grad[end].abs().sum() > 0


def test_it_is_merged_into_the_files_that_it_had(tmp_path: Path) -> None:
    base, adapter, output = (tmp_path / name for name in ("base", "adapter", "output"))
    write_llada_moe(base, shards=3)
    adapted = add_lora(load_model(base), rank=2, alpha=4.0)
    name = "model.layers.0.self_attn.q_proj"
    torch.nn.init.ones_(adapted.get_base_model().get_submodule(name).lora_B["default"].weight)
    save_adapter(adapted, adapter)
    merge(MergeConfig(model=str(base), adapter=str(adapter), output=str(output)))
    changed = []
    for file in base.glob("*.safetensors"):
        before, now = load_file(file), load_file(output / file.name)
        assert before.keys() == now.keys()
        changed += [weight for weight in before if not torch.equal(before[weight], now[weight])]
    assert changed == [name + ".weight"]
    assert type(load_model(output)) is LLaDAMoEModelLM


def test_ragged_batches_decode_as_alone(tmp_path: Path) -> None:
    model = load_model(write_llada_moe(tmp_path).folder)
    config = DecodeConfig(gen_length=16, block_length=8, policy=ConfidenceThreshold(0.05), batch_size=1)
    prompts = [random_ids(length, seed=length).tolist() for length in (3, 8, 13)]
    alone = decode(model, prompts, config)
    assert decode(model, prompts, replace(config, batch_size=3)).sequences == alone.sequences
    assert alone.mean_tokens_per_forward() > 1
