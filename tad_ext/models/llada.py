"""LLaDA (Nie et al., arXiv 2502.09992): Llama's layers, bidirectional, under the names of the original checkpoints.

Three things differ from transformers' Llama: the names of configuration fields and weights, attention in both
directions, and queries and keys that are rotated in float32 whatever the model's dtype (``rope_full_precision``):
rotated in bfloat16, 4 % of the predicted tokens change.
"""

import re
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming

from tad_ext.models.base import MaskedDiffusionMixin
from tad_ext.models.config import OriginalConfig, Rule


class LLaDAConfig(OriginalConfig, LlamaConfig):
    """Configuration of :class:`LLaDAModelLM`: Llama's names in memory, LLaDA's own in config.json."""

    model_type = "llada"
    mask_token = "<|mdm_mask|>"  # what the tokenizer calls it, without declaring it

    NAMES: ClassVar[dict[str, str]] = {
        "d_model": "hidden_size", "n_heads": "num_attention_heads", "n_kv_heads": "num_key_value_heads",
        "n_layers": "num_hidden_layers", "mlp_hidden_size": "intermediate_size", "embedding_size": "vocab_size",
        "max_sequence_length": "max_position_embeddings", "weight_tying": "tie_word_embeddings",
        "rms_norm_eps": "rms_norm_eps", "attention_dropout": "attention_dropout", "init_std": "initializer_range",
        "rope_full_precision": "rope_full_precision", "mask_token_id": "mask_token_id",
        "eos_token_id": "eos_token_id", "pad_token_id": "pad_token_id",
    }  # fmt: skip
    DEFAULTS: ClassVar[dict[str, Any]] = {
        "activation_type": "swiglu", "alibi": False, "attention_dropout": 0.1, "attention_layer_norm": False,
        "bias_for_layer_norm": None, "block_group_size": 1, "block_type": "sequential", "embedding_dropout": 0.1,
        "embedding_size": None, "include_bias": False, "include_qkv_bias": False, "init_std": 0.02,
        "input_emb_norm": False, "layer_norm_type": "default", "layer_norm_with_affine": True,
        "mlp_hidden_size": None, "mlp_ratio": 4, "multi_query_attention": None, "n_kv_heads": None,
        "residual_dropout": 0.1, "rms_norm_eps": 1e-5, "rope": False, "rope_full_precision": True,
        "scale_logits": False, "weight_tying": True,
    }  # fmt: skip
    DERIVED: ClassVar[dict[str, Rule]] = {
        "embedding_size": lambda fields: fields.get("vocab_size"),
        "mlp_hidden_size": lambda fields: fields["mlp_ratio"] * fields.get("d_model", 0),
        "n_kv_heads": lambda fields: 1 if fields["multi_query_attention"] else fields.get("n_heads"),
    }
    SUPPORTED: ClassVar[dict[str, tuple[Any, ...]]] = {
        "block_type": ("llama",), "activation_type": ("silu",), "layer_norm_type": ("rms",), "rope": (True,),
        "alibi": (False,), "attention_layer_norm": (False,), "input_emb_norm": (False,), "scale_logits": (False,),
        "include_bias": (False,), "include_qkv_bias": (False, None), "bias_for_layer_norm": (False, None),
        "layer_norm_with_affine": (True,), "residual_dropout": (0.0,), "embedding_dropout": (0.0,),
        "block_group_size": (1,), "rope_full_precision": (True, False), "weight_tying": (False, True),
        "quantization_config": (None,),
    }  # fmt: skip
    HARMLESS: ClassVar[tuple[str, ...]] = (
        "alibi_bias_max", "attention_layer_norm_with_affine",  # of options that are refused
        "flash_attention", "precision",  # which kernel, and how it was trained
        "init_cutoff_factor", "init_device", "init_fn",  # how weights began
        "vocab_size",  # of the tokenizer; the layers have embedding_size, if it is given
    )  # fmt: skip
    END_OF_TURN: ClassVar[dict[int, int]] = {126081: 126348}  # <|endoftext|>: <|eot_id|>

    rope_full_precision: bool = True
    bos_token_id: int | None = None


# Part of a weight's name here -> in an original checkpoint. The head comes first: a block's ff_out is another weight.
_WEIGHT_NAMES = {
    "lm_head.": "model.transformer.ff_out.", "model.embed_tokens.": "model.transformer.wte.",
    "model.norm.": "model.transformer.ln_f.", "model.layers.": "model.transformer.blocks.",
    ".input_layernorm.": ".attn_norm.", ".post_attention_layernorm.": ".ff_norm.",
    ".self_attn.q_proj.": ".q_proj.", ".self_attn.k_proj.": ".k_proj.", ".self_attn.v_proj.": ".v_proj.",
    ".self_attn.o_proj.": ".attn_out.",
    ".mlp.gate_proj.": ".ff_proj.", ".mlp.up_proj.": ".up_proj.", ".mlp.down_proj.": ".ff_out.",
}  # fmt: skip


class LLaDAModelLM(MaskedDiffusionMixin, LlamaForCausalLM):
    """LLaDA; its interface is `MaskedDiffusionMixin`'s. Saved and loaded under the original names of its weights."""

    config_class = LLaDAConfig
    weight_names = _WEIGHT_NAMES
    config: LLaDAConfig

    def __init__(self, config: LLaDAConfig) -> None:
        super().__init__(config)
        trunk: Any = self.model
        # Llama would never train the padding token's embedding, and LLaDA pads with its end-of-sequence token.
        trunk.embed_tokens.padding_idx = None
        if config.rope_full_precision:
            trunk.rotary_emb = Float32Rotation(config)

    @classmethod
    def own_name(cls, name: str) -> str:
        """See `MaskedDiffusionMixin`. Some original names are parts of ours, so that the whole name tells."""
        return super().own_name(name) if "model.transformer." in name else name


class Float32Rotation(nn.Module):
    """Cosines and sines of rotary positions, in float32 whatever the model's dtype, (1, L, head_dim) each.

    Computed from the configuration in every forward, not from a buffer, which `model.to(torch.bfloat16)` would round.
    """

    def __init__(self, config: LLaDAConfig) -> None:
        super().__init__()
        self.theta = config.rope_parameters["rope_theta"]
        self.head_dim = config.head_dim

    @torch.no_grad()
    def forward(self, hidden_states: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """For position_ids (1 or B, L), int64."""
        pairs = torch.arange(0, self.head_dim, 2, dtype=torch.float32, device=hidden_states.device)
        angles = position_ids[..., None].float() * (1.0 / self.theta ** (pairs / self.head_dim))
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos(), angles.sin()


# transformers applies these on loading and, reversed, on saving.
register_checkpoint_conversion_mapping(
    LLaDAModelLM.__name__,
    [WeightRenaming(re.escape(original), ours) for ours, original in _WEIGHT_NAMES.items()],
    overwrite=True,
)
