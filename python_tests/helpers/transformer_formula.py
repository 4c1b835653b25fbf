"""The models as equations in plain torch, reading the original key names: what their classes are compared with.

RMSNorm, rotary positions on half-split pairs, SwiGLU and softmax attention over all positions (or, exactly, over those
that `attends`, (L, L) bool, has for a query's row), in any dtype. With
float64 it is the exact answer; with bfloat16 it rounds where the published code does, and `rotation` says whether
queries and keys are rotated in float32 (LLaDA) or in the model's dtype (Dream).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

Router = Callable[[Tensor, Tensor | None], dict[int, float]]  # (E,) logits, their bias -> the share of each chosen one

LLADA_NAMES = {
    "embedding": "model.transformer.wte", "norm": "model.transformer.ln_f", "head": "model.transformer.ff_out",
    "layer": "model.transformer.blocks.", "norm1": "attn_norm", "norm2": "ff_norm", "q": "q_proj", "k": "k_proj",
    "v": "v_proj", "o": "attn_out", "mlp": "", "gate": "ff_proj", "up": "up_proj", "down": "ff_out",
}  # fmt: skip
DREAM_NAMES = {
    "embedding": "model.embed_tokens", "norm": "model.norm", "head": "lm_head", "layer": "model.layers.",
    "norm1": "input_layernorm", "norm2": "post_attention_layernorm", "q": "self_attn.q_proj", "k": "self_attn.k_proj",
    "v": "self_attn.v_proj", "o": "self_attn.o_proj", "mlp": "mlp.", "gate": "gate_proj", "up": "up_proj",
    "down": "down_proj",
}  # fmt: skip


def stored_weights(folder: Path) -> dict[str, Tensor]:
    """Every weight of a folder, whatever the files are called."""
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def llada_logits(
    weights: dict[str, Tensor], config: dict[str, Any], ids: Tensor, *, dtype: torch.dtype, rotation: torch.dtype,
    attends: Tensor | None = None, places: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """(L,) token ids -> (L, V) logits; row i predicts position i. `config`: the fields of an original config.json.

    places: (L,) int64, where the tokens stand; None: 0, 1, ...
    """
    sizes = (config["n_layers"], config["n_heads"], config["n_kv_heads"])
    hidden = _trunk(
        weights, LLADA_NAMES, ids, sizes, config["rope_theta"], config["rms_norm_eps"], dtype, rotation, attends,
        places=places,
    )  # fmt: skip
    head = "embedding" if config["weight_tying"] else "head"
    return hidden @ weights[LLADA_NAMES[head] + ".weight"].to(dtype).T


def dream_logits(
    weights: dict[str, Tensor], config: dict[str, Any], ids: Tensor, *, dtype: torch.dtype, rotation: torch.dtype,
    attends: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """As `llada_logits`; row i comes from position i - 1, row 0 from position 0."""
    sizes = (config["num_hidden_layers"], config["num_attention_heads"], config["num_key_value_heads"])
    hidden = _trunk(
        weights, DREAM_NAMES, ids, sizes, config["rope_theta"], config["rms_norm_eps"], dtype, rotation, attends
    )
    head = "embedding" if config["tie_word_embeddings"] else "head"
    logits = hidden @ weights[DREAM_NAMES[head] + ".weight"].to(dtype).T
    return torch.stack([logits[max(position - 1, 0)] for position in range(len(ids))])


def sdar_logits(
    weights: dict[str, Tensor], config: dict[str, Any], ids: Tensor, *, dtype: torch.dtype, rotation: torch.dtype,
    attends: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """As `llada_logits`, block-causal unless `attends` says otherwise."""
    sizes = (config["num_hidden_layers"], config["num_attention_heads"], config["num_key_value_heads"])
    attends = block_causal(len(ids), config["block_size"]) if attends is None else attends
    hidden = _trunk(
        weights, DREAM_NAMES, ids, sizes, config["rope_theta"], config["rms_norm_eps"], dtype, rotation, attends
    )
    head = "embedding" if config["tie_word_embeddings"] else "head"
    return hidden @ weights[DREAM_NAMES[head] + ".weight"].to(dtype).T


def sdar_moe_logits(
    weights: dict[str, Tensor], config: dict[str, Any], ids: Tensor, *, dtype: torch.dtype, rotation: torch.dtype,
    attends: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """As `sdar_logits`: the most probable experts, by a softmax over all, their shares brought to a sum of 1."""

    def router(logits: Tensor, _: Tensor | None) -> dict[int, float]:
        chosen = _most_probable(config["num_experts_per_tok"], logits)
        total = sum(chosen.values())
        return {expert: probability / total for expert, probability in chosen.items()}

    attends = block_causal(len(ids), config["block_size"]) if attends is None else attends
    return _with_experts(weights, config, ids, router, 1.0, dtype, rotation, attends)


def llada_moe_logits(
    weights: dict[str, Tensor], config: dict[str, Any], ids: Tensor, *, dtype: torch.dtype, rotation: torch.dtype,
    attends: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """As `llada_logits`: the most probable experts, by a softmax over all, whose shares are these probabilities."""

    def router(logits: Tensor, _: Tensor | None) -> dict[int, float]:
        return _most_probable(config["num_experts_per_tok"], logits)

    return _with_experts(weights, config, ids, router, 1.0, dtype, rotation, attends)


def llada2_logits(
    weights: dict[str, Tensor], config: dict[str, Any], ids: Tensor, *, dtype: torch.dtype, rotation: torch.dtype,
    attends: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """As `sdar_logits`. Experts are chosen by sigmoid and bias, within the groups whose two best sum up highest, and
    their shares are their sigmoids, brought to a sum of ``routed_scaling_factor``.
    """
    heads, kv_heads, size = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
    own = {name.replace("word_embeddings", "embed_tokens"): weight for name, weight in weights.items()}
    for number in range(config["num_hidden_layers"]):
        layer = f"model.layers.{number}."
        rows = weights[layer + "attention.query_key_value.weight"].split(
            [heads * size, kv_heads * size, kv_heads * size]
        )
        own |= {f"{layer}self_attn.{part}_proj.weight": matrix for part, matrix in zip("qkv", rows, strict=True)}
        own[layer + "self_attn.o_proj.weight"] = weights[layer + "attention.dense.weight"]
        own[layer + "self_attn.q_norm.weight"] = weights[layer + "attention.query_layernorm.weight"]
        own[layer + "self_attn.k_norm.weight"] = weights[layer + "attention.key_layernorm.weight"]

    def router(logits: Tensor, bias: Tensor | None) -> dict[int, float]:
        assert bias is not None
        score = torch.sigmoid(logits).tolist()
        choice = [one + other for one, other in zip(score, bias.to(dtype).tolist(), strict=True)]
        width = len(score) // config["n_group"]
        groups = [range(first, first + width) for first in range(0, len(score), width)]
        best_two = [sum(sorted(choice[e] for e in group)[-2:]) for group in groups]
        kept = sorted(range(len(groups)), key=lambda g: -best_two[g])[: config["topk_group"]]
        experts = [e for g in kept for e in groups[g]]
        chosen = sorted(experts, key=lambda e: -choice[e])[: config["num_experts_per_tok"]]
        total = sum(score[e] for e in chosen)
        return {e: config["routed_scaling_factor"] * score[e] / total for e in chosen}

    share = config["partial_rotary_factor"]
    attends = block_causal(len(ids), config["causal_block_length"]) if attends is None else attends
    return _with_experts(own, config, ids, router, share, dtype, rotation, attends)


def _most_probable(count: int, logits: Tensor) -> dict[int, float]:
    probability = logits.softmax(-1).tolist()
    chosen = sorted(range(len(probability)), key=lambda expert: -probability[expert])[:count]
    return {expert: probability[expert] for expert in chosen}


def _with_experts(
    weights: dict[str, Tensor], config: dict[str, Any], ids: Tensor, router: Router, turning: float,
    dtype: torch.dtype, rotation: torch.dtype, attends: Tensor | None,
) -> Tensor:  # fmt: skip
    sizes = (config["num_hidden_layers"], config["num_attention_heads"], config["num_key_value_heads"])
    hidden = _trunk(
        weights, DREAM_NAMES, ids, sizes, config["rope_theta"], config["rms_norm_eps"], dtype, rotation, attends,
        turning=turning, router=router,
    )  # fmt: skip
    head = "embedding" if config["tie_word_embeddings"] else "head"
    return hidden @ weights[DREAM_NAMES[head] + ".weight"].to(dtype).T


def fast_dllm_logits(
    weights: dict[str, Tensor], config: dict[str, Any], ids: Tensor, *, dtype: torch.dtype, rotation: torch.dtype,
    attends: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """As `dream_logits`, block-causal unless `attends` says otherwise."""
    attends = block_causal(len(ids), config["bd_size"]) if attends is None else attends
    return dream_logits(weights, config, ids, dtype=dtype, rotation=rotation, attends=attends)


def block_causal(length: int, block: int) -> Tensor:
    """(L, L) bool: a query sees the keys of its own block and of earlier ones, counted from the first position."""
    attends = torch.zeros(length, length, dtype=torch.bool)
    for query in range(length):
        attends[query, : (query // block + 1) * block] = True
    return attends


def _trunk(
    weights: dict[str, Tensor], names: dict[str, str], ids: Tensor, sizes: tuple[int, int, int], theta: float,
    epsilon: float, dtype: torch.dtype, rotation: torch.dtype, attends: Tensor | None,
    *, turning: float = 1.0, router: Router | None = None, places: Tensor | None = None,
) -> Tensor:  # fmt: skip
    layers, heads, kv_heads = sizes
    exact = torch.promote_types(dtype, torch.float32)

    def linear(x: Tensor, name: str) -> Tensor:
        product = x.to(exact) @ weights[name + ".weight"].to(dtype).to(exact).T
        bias = weights.get(name + ".bias")
        return (product if bias is None else product + bias.to(dtype).to(exact)).to(dtype)

    def norm(x: Tensor, name: str) -> Tensor:
        scaled = x.to(exact) / (x.to(exact).square().mean(-1, keepdim=True) + epsilon).sqrt()
        return weights[name + ".weight"].to(dtype) * scaled.to(dtype)

    def norm_of_heads(x: Tensor, name: str) -> Tensor:  # (heads, L, d), of a model that has them
        return norm(x, name) if name + ".weight" in weights else x

    def rotate(x: Tensor) -> Tensor:  # (heads, L, d); dimension j turns with dimension j + d/2
        whole, x = x, x[..., : int(turning * x.shape[-1])]
        half = x.shape[-1] // 2
        speed = 1 / theta ** (torch.arange(half, dtype=exact) / half)
        angle = (torch.arange(len(ids)) if places is None else places).to(exact)[:, None] * speed
        cosine, sine = angle.cos().to(rotation), angle.sin().to(rotation)
        first, second = x[..., :half].to(rotation), x[..., half:].to(rotation)
        turned = torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1).to(dtype)
        return torch.cat((turned, whole[..., x.shape[-1] :]), dim=-1)

    def feed_forward(h: Tensor, name: str) -> Tensor:
        gate = linear(h, name + names["gate"]).to(exact)
        activated = (gate * torch.sigmoid(gate)).to(dtype)
        return linear(activated * linear(h, name + names["up"]), name + names["down"])

    def mixture(h: Tensor, name: str) -> Tensor:  # a layer without a router is a dense one
        if name + "gate.weight" not in weights:
            return feed_forward(h, name)
        rows = []
        for row in h:
            chosen = router(weights[name + "gate.weight"].to(dtype) @ row, weights.get(name + "gate.expert_bias"))
            parts = [share * feed_forward(row[None], f"{name}experts.{expert}.")[0] for expert, share in chosen.items()]
            rows.append(torch.stack(parts).sum(dim=0))
        routed = torch.stack(rows)
        shared = name + "shared_experts."
        return routed + feed_forward(h, shared) if shared + "up_proj.weight" in weights else routed

    x = weights[names["embedding"] + ".weight"].to(dtype)[ids]
    for number in range(layers):
        layer = f"{names['layer']}{number}."
        h = norm(x, layer + names["norm1"])
        q, k, v = (
            linear(h, layer + names[part]).view(len(ids), count, -1).transpose(0, 1)
            for part, count in (("q", heads), ("k", kv_heads), ("v", kv_heads))
        )
        q, k = (rotate(norm_of_heads(x, f"{layer}self_attn.{part}_norm")) for x, part in ((q, "q"), (k, "k")))
        k, v = (part.repeat_interleave(heads // kv_heads, dim=0) for part in (k, v))
        if dtype == exact:
            scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
            attended = (scores if attends is None else scores.where(attends, -torch.inf)).softmax(-1) @ v
        else:  # the rounding inside attention is the kernel's; the published code calls this one
            attended = functional.scaled_dot_product_attention(q[None], k[None], v[None])[0]
        x = x + linear(attended.transpose(0, 1).flatten(1), layer + names["o"])
        h = norm(x, layer + names["norm2"])
        x = x + (feed_forward(h, layer + names["mlp"]) if router is None else mixture(h, layer + "mlp."))
    return norm(x, names["norm"])
