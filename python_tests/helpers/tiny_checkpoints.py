"""Writes tiny random checkpoints as their authors publish them: original key names and config fields.

Nothing here imports the package or transformers' models, so that a test which loads such a folder compares two
independent readings of the format. The ids of the special tokens are those a tokenizer of a few hundred tokens has;
everything else is shaped as in GSAI-ML/LLaDA-8B-Instruct and Dream-org/Dream-v0-Instruct-7B.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE
from torch import Tensor

TEXTS = (
    "Anna has 12 apples. She gives 3 apples to each of her 2 friends. How many apples does she have left?",
    "Anna gives away 3 * 2 = 6 apples, so she has 12 - 6 = 6 apples left. The answer is \\boxed{6}.",
    "A train travels 60 miles per hour for 2.5 hours. How far does it travel? 60 * 2.5 = 150 miles. #### 150",
    "Please reason step by step, and put your final answer within \\boxed{}. You are a helpful assistant.",
    "Reference answer: first find the total cost, $1,250 in all, then divide by the number of people, 5.",
)
LLADA_CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first %}{{ bos_token }}{% endif %}"
    "<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n{{ message['content'] | trim }}<|eot_id|>"
    "{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"  # plain text would lose a newline here
)
LLADA2_CHAT_TEMPLATE = (
    "{% for message in messages %}<role>{{ message['role'] | upper }}</role>{{ message['content'] }}<|role_end|>"
    "{% endfor %}{% if add_generation_prompt %}<role>ASSISTANT</role>{% endif %}"
)
DREAM_CHAT_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLADA_SPECIAL_TOKENS = (
    "<|startoftext|>", "<|endoftext|>", "<|mdm_mask|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
)  # fmt: skip
LLADA2_SPECIAL_TOKENS = ("<|startoftext|>", "<|endoftext|>", "<|mask|>", "<role>", "</role>", "<|role_end|>")
DREAM_SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|beginoftext|>", "<|mask|>")
SDAR_SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|MASK|>")
FAST_DLLM_SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "|<MASK>|")
# The splitting of Qwen2's tokenizer, as published.
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class TinyCheckpoint:
    """What was written, for a test to compare with: the folder, config.json's fields, the weights, the token ids."""

    folder: Path
    config: dict[str, Any]
    weights: dict[str, Tensor]
    token_ids: dict[str, int]  # of every token


def write_llada(
    folder: str | Path,
    *,
    layers: int = 2,
    width: int = 64,
    heads: int = 4,
    kv_heads: int = 4,
    mlp: int = 96,
    max_positions: int = 2048,
    vocabulary: int = 400,
    unassigned: int = 37,
    tied: bool = False,
    dtype: torch.dtype = torch.float32,
    shards: int = 1,
    seed: int = 0,
    texts: Sequence[str] = TEXTS,
    config: dict[str, Any] | None = None,
) -> TinyCheckpoint:
    """A complete LLaDA folder: config.json, weights, tokenizer.json and tokenizer_config.json with a chat template.

    Args:
        vocabulary: most tokens the tokenizer learns from `texts`, without the special ones.
        unassigned: ids beyond the last token that the logits cover all the same.
        shards: files of weights; more than one gives model.safetensors.index.json.
        config: fields of config.json to replace or add; a value of None stays None.
    """
    folder = _new(folder)
    ids = _write_llada_tokenizer(folder, texts, vocabulary)
    size = len(ids) + unassigned
    fields: dict[str, Any] = {
        "activation_type": "silu", "alibi": False, "alibi_bias_max": 8.0, "architectures": ["LLaDAModelLM"],
        "attention_dropout": 0.0, "attention_layer_norm": False, "attention_layer_norm_with_affine": True,
        "auto_map": {
            "AutoConfig": "configuration_llada.LLaDAConfig", "AutoModelForCausalLM": "modeling_llada.LLaDAModelLM",
            "AutoModel": "modeling_llada.LLaDAModelLM",
        },
        "bias_for_layer_norm": False, "block_group_size": 1, "block_type": "llama", "d_model": width,
        "embedding_dropout": 0.0, "embedding_size": size, "eos_token_id": ids["<|endoftext|>"],
        "eos_token_ids": [ids["<|endoftext|>"], ids["<|eot_id|>"]], "flash_attention": False, "include_bias": False,
        "include_qkv_bias": False, "init_cutoff_factor": None, "init_device": "meta", "init_fn": "mitchell",
        "init_std": 0.02, "input_emb_norm": False, "layer_norm_type": "rms", "layer_norm_with_affine": True,
        "mask_token_id": ids["<|mdm_mask|>"], "max_sequence_length": max_positions, "mlp_hidden_size": mlp,
        "mlp_ratio": 4, "model_type": "llada", "multi_query_attention": None, "n_heads": heads,
        "n_kv_heads": kv_heads, "n_layers": layers, "pad_token_id": ids["<|endoftext|>"], "precision": "amp_bf16",
        "residual_dropout": 0.0, "rms_norm_eps": 1e-05, "rope": True, "rope_full_precision": True,
        "rope_theta": 500000.0, "scale_logits": False, "transformers_version": "4.46.3", "use_cache": False,
        "vocab_size": size, "weight_tying": tied,
    }  # fmt: skip
    fields |= config or {}

    normal, norm = _random(seed, dtype)
    kv_width = width // heads * kv_heads
    weights = {"model.transformer.wte.weight": normal(size, width, scale=1.0)}
    for layer in range(layers):
        block = f"model.transformer.blocks.{layer}."
        weights |= {
            block + "attn_norm.weight": norm(width),
            block + "q_proj.weight": normal(width, width),
            block + "k_proj.weight": normal(kv_width, width),
            block + "v_proj.weight": normal(kv_width, width),
            block + "attn_out.weight": normal(width, width),
            block + "ff_norm.weight": norm(width),
            block + "ff_proj.weight": normal(mlp, width),
            block + "up_proj.weight": normal(mlp, width),
            block + "ff_out.weight": normal(width, mlp),
        }
    weights["model.transformer.ln_f.weight"] = norm(width)
    if not tied:
        weights["model.transformer.ff_out.weight"] = normal(size, width)
    _write_json(folder / "config.json", fields)
    _write_weights(folder, weights, shards)
    return TinyCheckpoint(folder, fields, weights, ids)


def write_dream(folder: str | Path, *, tied: bool = False, **options: Any) -> TinyCheckpoint:
    """A complete Dream folder: config.json, weights, vocab.json, merges.txt and a tokenizer_config.json that names the
    class DreamTokenizer by auto_map. There is no tokenizer.json, as in the original. Arguments as in `write_llada`.
    """
    fields = {
        "architectures": ["DreamModel"], "use_mrope": False, "model_type": "Dream",
        "auto_map": {"AutoConfig": "configuration_dream.DreamConfig", "AutoModel": "modeling_dream.DreamModel"},
    }  # fmt: skip
    return _write_qwen(folder, fields, DREAM_SPECIAL_TOKENS, tied=tied, biased=True, **options)


def write_sdar(folder: str | Path, *, head: int = 32, block: int = 4, **options: Any) -> TinyCheckpoint:
    """A complete SDAR folder, whose heads are wider than hidden_size / heads, as those of SDAR-4B."""
    fields = {
        "architectures": ["SDARForCausalLM"], "model_type": "sdar", "head_dim": head, "block_size": block,
        "attention_bias": False, "fuse_cross_entropy": True,
        "auto_map": {
            "AutoConfig": "configuration_sdar.SDARConfig", "AutoModelForCausalLM": "modeling_sdar.SDARForCausalLM"
        },
    }  # fmt: skip
    return _write_qwen(folder, fields, SDAR_SPECIAL_TOKENS, head=head, **options)


def write_fast_dllm(folder: str | Path, *, block: int = 8, **options: Any) -> TinyCheckpoint:
    """A complete folder of Fast-dLLM v2."""
    fields = {
        "architectures": ["Fast_dLLM_QwenForCausalLM"], "model_type": "Fast_dLLM_Qwen", "bd_size": block,
        "layer_types": ["full_attention"] * options.get("layers", 2),
        "auto_map": {
            "AutoConfig": "configuration.Fast_dLLM_QwenConfig",
            "AutoModelForCausalLM": "modeling.Fast_dLLM_QwenForCausalLM",
        },
    }  # fmt: skip
    return _write_qwen(folder, fields, FAST_DLLM_SPECIAL_TOKENS, biased=True, **options)


def write_sdar_moe(folder: str | Path, *, head: int = 32, block: int = 4, **options: Any) -> TinyCheckpoint:
    """A complete folder of SDAR with experts."""
    fields = {
        "architectures": ["SDARMoeForCausalLM"], "model_type": "sdar_moe", "head_dim": head, "block_size": block,
        "attention_bias": False, "decoder_sparse_step": 1, "mlp_only_layers": [], "moe_intermediate_size": 24,
        "norm_topk_prob": True, "num_experts": 8, "num_experts_per_tok": 3, "output_router_logits": False,
        "router_aux_loss_coef": 0.001,
        "auto_map": {
            "AutoConfig": "configuration_sdar_moe.SDARMoeConfig",
            "AutoModelForCausalLM": "modeling_sdar_moe.SDARMoeForCausalLM",
        },
    }  # fmt: skip
    return _write_qwen(folder, fields, SDAR_SPECIAL_TOKENS, head=head, **options)


def write_llada_moe(
    folder: str | Path,
    *,
    layers: int = 2,
    kv_heads: int = 2,
    tied: bool = False,
    shards: int = 1,
    config: dict[str, Any] | None = None,
) -> TinyCheckpoint:
    """A complete LLaDA-MoE folder. Its config.json names the mask, which the original does not."""
    folder, width, heads, mlp, experts = _new(folder), 64, 4, 96, (8, 24)
    ids = _write_llada_tokenizer(folder, TEXTS, 400, LLADA2_SPECIAL_TOKENS)
    size = len(ids) + 37
    fields: dict[str, Any] = {
        "architectures": ["LLaDAMoEModel"], "attention_bias": False, "attention_dropout": 0.0,
        "auto_map": {
            "AutoConfig": "configuration_lladamoe.LLaDAConfig", "AutoModel": "modeling_lladamoe.LLaDAMoEModelLM",
            "AutoModelForCausalLM": "modeling_lladamoe.LLaDAMoEModelLM",
        },
        "clip_qkv": None, "dense_intermediate_size": mlp, "eos_token_id": ids["<|endoftext|>"],
        "expert_intermediate_size": experts[1], "hidden_act": "silu", "hidden_size": width, "initializer_range": 0.02,
        "mask_token_id": ids["<|mask|>"], "max_position_embeddings": 8192, "model_type": "llada",
        "moe_layer_freq": [1] * layers, "moe_router_enable_expert_bias": False, "moe_router_score_function": "softmax",
        "norm_topk_prob": None, "num_attention_heads": heads, "num_experts": experts[0], "num_experts_per_tok": 3,
        "num_hidden_layers": layers, "num_key_value_heads": kv_heads, "output_router_logits": False,
        "pad_token_id": ids["<|endoftext|>"], "partial_rotary_factor": 1, "qk_layernorm": True, "rms_norm_eps": 1e-05,
        "rope_scaling": None, "rope_theta": 50000, "routed_scaling_factor": 1, "router_aux_loss_coef": 0.01,
        "router_num_group": None, "router_topk_group": None, "shared_expert_intermediate_size": None,
        "tie_word_embeddings": tied, "torch_dtype": "float32", "transformers_version": "4.46.2", "use_cache": False,
        "vocab_size": size, **(config or {}),
    }  # fmt: skip
    sizes = (size, layers, width, heads, kv_heads, width // heads, mlp)
    weights = _qwen_weights(*sizes, experts, False, tied, *_random(0, torch.float32))
    _write_json(folder / "config.json", fields)
    _write_weights(folder, weights, shards)
    return TinyCheckpoint(folder, fields, weights, ids)


def write_llada2(
    folder: str | Path,
    *,
    layers: int = 2,
    width: int = 64,
    heads: int = 4,
    kv_heads: int = 2,
    head: int = 32,
    mlp: int = 96,
    experts: int = 8,
    groups: int = 4,
    block: int | None = 4,
    vocabulary: int = 400,
    unassigned: int = 37,
    tied: bool = False,
    shards: int = 1,
    seed: int = 0,
    config: dict[str, Any] | None = None,
) -> TinyCheckpoint:
    """A complete LLaDA2 folder, whose first layer is dense. Its blocks are shorter than the published 32, which the
    original names nowhere.
    """
    folder, dtype = _new(folder), torch.float32
    ids = _write_llada_tokenizer(folder, TEXTS, vocabulary, LLADA2_SPECIAL_TOKENS)
    size = len(ids) + unassigned
    fields: dict[str, Any] = {
        "architectures": ["LLaDA2MoeModelLM"], "attention_dropout": 0.0,
        "auto_map": {
            "AutoConfig": "configuration_llada2_moe.LLaDA2MoeConfig",
            "AutoModelForCausalLM": "modeling_llada2_moe.LLaDA2MoeModelLM",
        },
        "embedding_dropout": 0.0, "eos_token_id": ids["<|endoftext|>"], "first_k_dense_replace": 1, "head_dim": head,
        "hidden_act": "silu", "hidden_size": width, "initializer_range": 0.02, "intermediate_size": mlp,
        "mask_token_id": ids["<|mask|>"], "max_position_embeddings": 16384, "max_window_layers": 20,
        "model_type": "llada2_moe", "moe_intermediate_size": 24, "moe_router_enable_expert_bias": True,
        "n_group": groups, "norm_topk_prob": True, "num_attention_heads": heads, "num_experts": experts,
        "num_experts_per_tok": 3, "num_hidden_layers": layers, "num_key_value_heads": kv_heads,
        "num_shared_experts": 1, "output_dropout": 0.0, "output_router_logits": False,
        "pad_token_id": ids["<|endoftext|>"], "partial_rotary_factor": 0.5, "rms_norm_eps": 1e-06,
        "rope_scaling": None, "rope_theta": 600000, "routed_scaling_factor": 2.5, "router_dtype": "fp32",
        "score_function": "sigmoid", "sliding_window": 4096, "tie_word_embeddings": tied, "topk_group": groups // 2,
        "torch_dtype": "float32", "transformers_version": "4.57.1", "use_bias": False, "use_cache": True,
        "use_qk_norm": True, "use_qkv_bias": False, "use_rmsnorm": True, "use_sliding_window": False,
        "vocab_size": size, **({} if block is None else {"causal_block_length": block}), **(config or {}),
    }  # fmt: skip

    normal, norm = _random(seed, dtype)
    weights = {"model.word_embeddings.weight": normal(size, width, scale=1.0)}

    def add_mlp(name: str, inner: int) -> None:
        weights[f"{name}.gate_proj.weight"] = normal(inner, width)
        weights[f"{name}.up_proj.weight"] = normal(inner, width)
        weights[f"{name}.down_proj.weight"] = normal(width, inner)

    for number in range(layers):
        layer = f"model.layers.{number}."
        weights |= {
            layer + "input_layernorm.weight": norm(width), layer + "post_attention_layernorm.weight": norm(width),
            layer + "attention.query_key_value.weight": normal((heads + 2 * kv_heads) * head, width),
            layer + "attention.dense.weight": normal(width, heads * head),
            layer + "attention.query_layernorm.weight": norm(head),
            layer + "attention.key_layernorm.weight": norm(head),
        }  # fmt: skip
        if number == 0:
            add_mlp(layer + "mlp", mlp)
            continue
        weights[layer + "mlp.gate.weight"] = normal(experts, width)
        weights[layer + "mlp.gate.expert_bias"] = normal(experts, scale=0.1)
        for expert in range(experts):
            add_mlp(f"{layer}mlp.experts.{expert}", 24)
        add_mlp(layer + "mlp.shared_experts", 24)
    weights["model.norm.weight"] = norm(width)
    if not tied:
        weights["lm_head.weight"] = normal(size, width)
    _write_json(folder / "config.json", fields)
    _write_weights(folder, weights, shards)
    return TinyCheckpoint(folder, fields, weights, ids)


def _write_qwen(
    folder: str | Path,
    own_fields: dict[str, Any],
    special: Sequence[str],
    *,
    layers: int = 2,
    width: int = 64,
    heads: int = 4,
    kv_heads: int = 2,
    head: int | None = None,
    mlp: int = 96,
    max_positions: int = 2048,
    vocabulary: int = 400,
    unassigned: int = 37,
    tied: bool = False,
    biased: bool = False,
    dtype: torch.dtype = torch.float32,
    shards: int = 1,
    seed: int = 0,
    texts: Sequence[str] = TEXTS,
    config: dict[str, Any] | None = None,
) -> TinyCheckpoint:
    """A model made from Qwen: from Qwen2 with biases, or else from Qwen3, with norms of queries and keys."""
    folder = _new(folder)
    ids = _write_qwen_tokenizer(folder, texts, vocabulary, special)
    size = len(ids) + unassigned
    fields: dict[str, Any] = {
        "attention_dropout": 0.0, "bos_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|endoftext|>"],
        "eos_token_ids": [ids["<|endoftext|>"], ids["<|im_end|>"]], "hidden_act": "silu", "hidden_size": width,
        "initializer_range": 0.02, "intermediate_size": mlp, "mask_token_id": ids[special[-1]],
        "max_position_embeddings": max_positions, "max_window_layers": layers,
        "num_attention_heads": heads, "num_hidden_layers": layers, "num_key_value_heads": kv_heads,
        "pad_token_id": ids["<|endoftext|>"], "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 1000000.0,
        "sliding_window": None, "tie_word_embeddings": tied, "torch_dtype": str(dtype).removeprefix("torch."),
        "transformers_version": "4.46.2", "use_cache": True, "use_sliding_window": False, "vocab_size": size,
        **own_fields, **(config or {}),
    }  # fmt: skip

    experts = (fields["num_experts"], fields["moe_intermediate_size"]) if "num_experts" in fields else None
    head = width // heads if head is None else head
    sizes = (size, layers, width, heads, kv_heads, head, mlp)
    weights = _qwen_weights(*sizes, experts, biased, tied, *_random(seed, dtype))
    _write_json(folder / "config.json", fields)
    _write_weights(folder, weights, shards)
    return TinyCheckpoint(folder, fields, weights, ids)


def _qwen_weights(
    size: int, layers: int, width: int, heads: int, kv_heads: int, head: int, mlp: int,
    experts: tuple[int, int] | None,  # how many in each layer, and how wide
    biased: bool, tied: bool, normal: Callable[..., Tensor], norm: Callable[[int], Tensor],
) -> dict[str, Tensor]:  # fmt: skip
    weights = {"model.embed_tokens.weight": normal(size, width, scale=1.0)}
    for layer in range(layers):
        attention, feed_forward = f"model.layers.{layer}.self_attn.", f"model.layers.{layer}.mlp."
        weights[f"model.layers.{layer}.input_layernorm.weight"] = norm(width)
        for name, count in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
            weights[attention + f"{name}_proj.weight"] = normal(count * head, width)
            if biased:
                weights[attention + f"{name}_proj.bias"] = normal(count * head, scale=0.5)
            elif name != "v":
                weights[attention + f"{name}_norm.weight"] = norm(head)
        weights[attention + "o_proj.weight"] = normal(width, heads * head)
        weights[f"model.layers.{layer}.post_attention_layernorm.weight"] = norm(width)
        parts, inner = [feed_forward], mlp
        if experts is not None:
            count, inner = experts
            weights[feed_forward + "gate.weight"] = normal(count, width)
            parts = [f"{feed_forward}experts.{expert}." for expert in range(count)]
        for part in parts:
            weights[part + "gate_proj.weight"] = normal(inner, width)
            weights[part + "up_proj.weight"] = normal(inner, width)
            weights[part + "down_proj.weight"] = normal(width, inner)
    weights["model.norm.weight"] = norm(width)
    if not tied:
        weights["lm_head.weight"] = normal(size, width)
    return weights


def _write_llada_tokenizer(
    folder: Path, texts: Sequence[str], vocabulary: int, special: Sequence[str] = LLADA_SPECIAL_TOKENS
) -> dict[str, int]:
    tokenizer = _byte_level_bpe(texts, vocabulary, pre_tokenizers.ByteLevel(add_prefix_space=False))
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = tokenizer.get_vocab(with_added_tokens=True)
    template = LLADA_CHAT_TEMPLATE if special == LLADA_SPECIAL_TOKENS else LLADA2_CHAT_TEMPLATE
    # As published: the mask token is an added one and not declared as mask_token.
    config = {
        "add_bos_token": False, "add_eos_token": False,
        "added_tokens_decoder": _added_tokens(ids, special), "bos_token": "<|startoftext|>",
        "chat_template": template, "clean_up_tokenization_spaces": False, "eos_token": "<|endoftext|>",
        "fast_tokenizer": True, "merges_file": None, "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 1000000000000000019884624838656, "pad_token": "<|endoftext|>",
        "tokenizer_class": "PreTrainedTokenizerFast", "trust_remote_code": True, "vocab_file": None,
    }  # fmt: skip
    _write_json(folder / "tokenizer_config.json", config)
    return ids


def _write_qwen_tokenizer(
    folder: Path, texts: Sequence[str], vocabulary: int, special: Sequence[str]
) -> dict[str, int]:
    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer = _byte_level_bpe(texts, vocabulary, split)
    tokenizer.model.save(str(folder))  # vocab.json and merges.txt, without the special tokens
    ids = tokenizer.get_vocab()
    ids |= {token: len(ids) + place for place, token in enumerate(special)}
    config = {
        "add_bos_token": False, "add_prefix_space": False, "added_tokens_decoder": _added_tokens(ids, special),
        "additional_special_tokens": list(special[3:]), "chat_template": DREAM_CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False, "eos_token": "<|endoftext|>", "errors": "replace",
        "mask_token": special[-1], "model_max_length": 131072, "pad_token": "<|endoftext|>",
        "split_special_tokens": False, "tokenizer_class": "Qwen2Tokenizer", "unk_token": None,
    }  # fmt: skip
    if special == DREAM_SPECIAL_TOKENS:
        config |= {
            "bos_token": "<|beginoftext|>", "tokenizer_class": "DreamTokenizer",
            "auto_map": {"AutoTokenizer": ["tokenization_dream.DreamTokenizer", None]},
        }  # fmt: skip
    _write_json(folder / "tokenizer_config.json", config)
    # Older copies of the same facts, which the published folder holds as well.
    _write_json(folder / "added_tokens.json", {token: ids[token] for token in special})
    names = ("bos_token", "eos_token", "mask_token", "pad_token", "additional_special_tokens")
    _write_json(folder / "special_tokens_map.json", {name: config[name] for name in names if name in config})
    return ids


def _byte_level_bpe(texts: Sequence[str], vocabulary: int, split: Any) -> Tokenizer:
    tokenizer = Tokenizer(BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _added_tokens(ids: dict[str, int], tokens: Sequence[str]) -> dict[str, dict[str, Any]]:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {str(ids[token]): {"content": token, **flags} for token in tokens}


def _random(seed: int, dtype: torch.dtype) -> tuple[Callable[..., Tensor], Callable[[int], Tensor]]:
    """Makers of random matrices (1.5 / sqrt(fan in), so that logits and attention are far from uniform) and norms."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float | None = None) -> Tensor:
        return (torch.randn(shape, generator=generator) * (scale or 1.5 / shape[-1] ** 0.5)).to(dtype)

    def norm(width: int) -> Tensor:
        return (1 + 0.2 * torch.randn(width, generator=generator)).to(dtype)

    return normal, norm


def _write_weights(folder: Path, weights: dict[str, Tensor], shards: int) -> None:
    if shards == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return
    files = [f"model-{number + 1:05d}-of-{shards:05d}.safetensors" for number in range(shards)]
    weight_map = {name: files[place * shards // len(weights)] for place, name in enumerate(weights)}
    for file in files:
        part = {name: weights[name] for name in weights if weight_map[name] == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    size = sum(weight.numel() * weight.element_size() for weight in weights.values())
    _write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": weight_map})


def _new(folder: str | Path) -> Path:
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
