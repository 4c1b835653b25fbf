"""What is refused of LLaDA, LLaDA-MoE and Dream checkpoints: by file, key, value and expectation, before memory is
filled.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import write_dream, write_llada, write_llada_moe
from transformers import PreTrainedModel

from tad_ext.models import load_model


@pytest.fixture(autouse=True)
def memory_is_never_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PreTrainedModel, "from_pretrained", None)


def refused(folder: Path, *parts: str) -> None:
    with pytest.raises(ValueError) as caught:
        load_model(folder)
    for part in (str(folder), *parts):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alibi": True}, "alibi is True; supported: False"),
        ({"rope": False}, "rope is False; supported: True"),
        ({"activation_type": "gelu"}, "activation_type is 'gelu'; supported: 'silu'"),
        ({"activation_type": "swiglu"}, "activation_type is 'swiglu'; supported: 'silu'"),
        ({"block_type": "sequential"}, "block_type is 'sequential'; supported: 'llama'"),
        ({"layer_norm_type": "default"}, "layer_norm_type is 'default'; supported: 'rms'"),
        ({"attention_layer_norm": True}, "attention_layer_norm is True; supported: False"),
        ({"input_emb_norm": True}, "input_emb_norm is True"),
        ({"scale_logits": True}, "scale_logits is True"),
        ({"include_bias": True}, "include_bias is True; supported: False"),
        ({"include_qkv_bias": True}, "include_qkv_bias is True; supported: False or None"),
        ({"bias_for_layer_norm": True}, "bias_for_layer_norm is True"),
        ({"layer_norm_with_affine": False}, "layer_norm_with_affine is False; supported: True"),
        ({"block_group_size": 2}, "block_group_size is 2; supported: 1"),
        ({"residual_dropout": 0.1}, "residual_dropout is 0.1; supported: 0.0"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling is {'type': 'linear'}; supported: None"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is {'bits': 4}; supported: None"),
        ({"d_model": "wide"}, "d_model is 'wide'; expected an integer >= 1"),
        ({"n_layers": 0}, "n_layers is 0; expected an integer >= 1"),
        ({"n_heads": 5}, "d_model is 64; expected a multiple of n_heads, 5"),
        ({"n_kv_heads": 3}, "n_heads is 4; expected a multiple of n_kv_heads, 3"),
        ({"rope_theta": -1}, "rope_theta is -1; expected a finite number > 0"),
        ({"rms_norm_eps": None}, "rms_norm_eps is None; expected a finite number > 0"),
        ({"attention_dropout": 2}, "attention_dropout is 2; expected 0 <= number < 1"),
        ({"mask_token_id": 9999}, "mask_token_id is 9999; expected an id in [0, 443), the embedding_size"),
        ({"mask_token_id": None}, "mask_token_id is None; expected an id in"),
        ({"eos_token_id": None}, "eos_token_id is None; expected an id in"),
        ({"eos_token_id": []}, "eos_token_id is []; expected an id in"),
        (
            {"eos_token_ids": [3, -1]},
            "eos_token_ids is [3, -1]; expected a list of ids in [0, 443), the embedding_size",
        ),
        ({"eos_token_ids": 3}, "eos_token_ids is 3; expected a list of ids in"),
        ({"pad_token_id": 443}, "pad_token_id is 443; expected an id in"),
        ({"suppress_token_ids": ["a"]}, "suppress_token_ids is ['a']; expected a list of ids in"),
        ({"torch_dtype": "int8"}, "torch_dtype is 'int8'; supported: None or 'bfloat16' or"),
        ({"weight_tying": 1}, "weight_tying is 1; supported: False or True"),
        ({"init_std": "small"}, "initializer_range"),
    ],
)
def test_llada_options(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_llada(tmp_path, config=changes)
    refused(tmp_path, "config.json", message)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("d_model", "d_model is missing; expected an integer >= 1"),
        ("max_sequence_length", "max_sequence_length is missing"),
        ("block_type", "block_type is 'sequential' (the original's default; config.json does not name it)"),
        ("activation_type", "activation_type is 'swiglu' (the original's default"),
        ("mask_token_id", "mask_token_id is missing; expected an id in"),
    ],
)
def test_llada_fields_that_are_missing(tmp_path: Path, missing: str, message: str) -> None:
    config = write_llada(tmp_path).config
    (tmp_path / "config.json").write_text(json.dumps({name: config[name] for name in config if name != missing}))
    refused(tmp_path, "config.json", message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; supported: 'silu'"),
        ({"use_sliding_window": True}, "use_sliding_window is True; supported: False"),
        ({"use_mrope": True}, "use_mrope is True; supported: False"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_scaling is {'type': 'yarn', 'factor': 4.0}"),
        ({"num_key_value_heads": 3}, "num_attention_heads is 4; expected a multiple of num_key_value_heads, 3"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True; expected an integer >= 1"),
        ({"mask_token_id": 9999}, "mask_token_id is 9999; expected an id in [0, 442), the vocab_size"),
    ],
)
def test_dream_options(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_dream(tmp_path, config=changes)
    refused(tmp_path, "config.json", message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"moe_router_enable_expert_bias": True}, "moe_router_enable_expert_bias is True; supported: False or None"),
        ({"moe_router_score_function": "sigmoid"}, "moe_router_score_function is 'sigmoid'; supported: 'softmax' or"),
        ({"shared_expert_intermediate_size": 24}, "shared_expert_intermediate_size is 24; supported: None"),
        ({"moe_layer_freq": [0, 1]}, "moe_layer_freq is [0, 1]; supported: None or 1 in every layer"),
        ({"moe_layer_freq": [1]}, "moe_layer_freq is [1]; supported: None or 1 in every layer"),
        ({"clip_qkv": 8.0}, "clip_qkv is 8.0; supported: None"),
        ({"qk_layernorm": False}, "qk_layernorm is False; supported: True"),
        ({"qk_layernorm": None}, "qk_layernorm is None; supported: True"),
        ({"attention_bias": True}, "attention_bias is True; supported: False or None"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5; supported: 1 or None"),
        ({"norm_topk_prob": True}, "norm_topk_prob is True; supported: None or False"),
        ({"routed_scaling_factor": 2.5}, "routed_scaling_factor is 2.5; supported: 1 or None"),
        ({"router_num_group": 8}, "router_num_group is 8; supported: None"),
        ({"router_topk_group": 4}, "router_topk_group is 4; supported: None"),
        ({"num_experts_per_tok": 9}, "num_experts_per_tok is 9; expected at most num_experts, 8"),
        ({"expert_intermediate_size": -1}, "expert_intermediate_size is -1; expected an integer >= 1"),
        ({"rope_theta": -1}, "rope_theta is -1; expected a finite number > 0"),
        ({"architectures": None}, "a key that is not understood"),  # then it is LLaDA-8B's
    ],
)
def test_llada_moe_options(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_llada_moe(tmp_path, config=changes)
    refused(tmp_path, "config.json", message)


@pytest.mark.parametrize(
    "model_type",
    ["llada_moe", "lladamoe", "llada2", "sdar-moe", "SDAR", "open_dcoder", "a2d-qwen2", "dream", ["llada"]],
)
def test_other_families(tmp_path: Path, model_type: object) -> None:
    write_llada(tmp_path, config={"model_type": model_type})
    known = "Dream, Fast_dLLM_Qwen, llada, llada2_moe, sdar, sdar_moe, tad_tiny"
    refused(tmp_path, "config.json", f"model_type {model_type!r}; supported are {known}")


@pytest.mark.parametrize(
    ("write", "architectures", "known"),
    [
        (write_llada, ["LLaDAModel"], "LLaDAModelLM or LLaDAMoEModelLM"),
        (write_llada, 3, "LLaDAModelLM or LLaDAMoEModelLM"),
        (write_dream, ["DreamForCausalLM"], "DreamModel"),
    ],
)
def test_other_architectures_under_the_same_model_type(
    tmp_path: Path, write: Any, architectures: object, known: str
) -> None:
    """Block-causal relatives of Dream that do not shift have model_type Dream, too."""
    write(tmp_path, config={"architectures": architectures})
    refused(tmp_path, "config.json", f"with architectures {architectures!r}; supported with this model_type is {known}")


@pytest.mark.parametrize("write", [write_llada, write_dream])
def test_weights_by_their_original_names(tmp_path: Path, write: Any) -> None:
    written = write(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    names = sorted(name for name in weights if "up_proj" in name)
    weights[names[1] + ".extra"] = weights.pop(names[1])
    weights[names[0]] = torch.zeros(3, 4)
    save_file(weights, tmp_path / "model.safetensors")
    shape = tuple(written.weights[names[0]].shape)
    refused(
        tmp_path,
        f"missing weights: {names[1]};",
        f"unexpected weights: {names[1]}.extra;",
        f"wrong shape: {names[0]} (3, 4) instead of {shape}",
    )


def test_the_head_of_a_tied_model_is_unexpected(tmp_path: Path) -> None:
    write_llada(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"weight_tying": True}))
    refused(tmp_path, "unexpected weights: model.transformer.ff_out.weight")


def test_dream_without_biases(tmp_path: Path) -> None:
    write_dream(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({name: weights[name] for name in weights if "bias" not in name}, tmp_path / "model.safetensors")
    refused(tmp_path, "missing weights: model.layers.0.self_attn.k_proj.bias")


@pytest.mark.parametrize("write", [write_llada, write_dream])
def test_a_missing_shard(tmp_path: Path, write: Any) -> None:
    write(tmp_path, shards=3)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    refused(tmp_path, "model.safetensors.index.json names missing files model-00002-of-00003.safetensors")


@pytest.mark.parametrize("write", [write_llada, write_dream])
def test_pickle_only(tmp_path: Path, write: Any) -> None:
    write(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model-00001-of-00001.bin")
    refused(tmp_path, "pickle only (pytorch_model-00001-of-00001.bin)", "expected model.safetensors")
