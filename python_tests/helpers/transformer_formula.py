"""The models as equations in plain torch, reading the original key names: what their classes are compared with.

RMSNorm, rotary positions on half-split pairs, SwiGLU and softmax attention over all positions (or, exactly, over those
that `attends`, (L, L) bool, has for a query's row), in any dtype. With
float64 it is the exact answer; with bfloat16 it rounds where the published code does, and `rotation` says whether
queries and keys are rotated in float32 (LLaDA) or in the model's dtype (Dream).
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

LLADA_NAMES = {
    "embedding": "model.transformer.wte", "norm": "model.transformer.ln_f", "head": "model.transformer.ff_out",
    "layer": "model.transformer.blocks.", "norm1": "attn_norm", "norm2": "ff_norm", "q": "q_proj", "k": "k_proj",
    "v": "v_proj", "o": "attn_out", "gate": "ff_proj", "up": "up_proj", "down": "ff_out",
}  # fmt: skip
DREAM_NAMES = {
    "embedding": "model.embed_tokens", "norm": "model.norm", "head": "lm_head", "layer": "model.layers.",
    "norm1": "input_layernorm", "norm2": "post_attention_layernorm", "q": "self_attn.q_proj", "k": "self_attn.k_proj",
    "v": "self_attn.v_proj", "o": "self_attn.o_proj", "gate": "mlp.gate_proj", "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}  # fmt: skip


def stored_weights(folder: Path) -> dict[str, Tensor]:
    """Every weight of a folder, whatever the files are called."""
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def llada_logits(
    weights: dict[str, Tensor], config: dict[str, Any], ids: Tensor, *, dtype: torch.dtype, rotation: torch.dtype,
    attends: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """(L,) token ids -> (L, V) logits; row i predicts position i. `config`: the fields of an original config.json."""
    sizes = (config["n_layers"], config["n_heads"], config["n_kv_heads"])
    hidden = _trunk(
        weights, LLADA_NAMES, ids, sizes, config["rope_theta"], config["rms_norm_eps"], dtype, rotation, attends
    )
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
        half = x.shape[-1] // 2
        speed = 1 / theta ** (torch.arange(half, dtype=exact) / half)
        angle = torch.arange(len(ids), dtype=exact)[:, None] * speed
        cosine, sine = angle.cos().to(rotation), angle.sin().to(rotation)
        first, second = x[..., :half].to(rotation), x[..., half:].to(rotation)
        return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1).to(dtype)

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
        gate = linear(h, layer + names["gate"]).to(exact)
        activated = (gate * torch.sigmoid(gate)).to(dtype)
        x = x + linear(activated * linear(h, layer + names["up"]), layer + names["down"])
    return norm(x, names["norm"])
