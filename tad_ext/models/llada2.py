"""LLaDA2.0 and LLaDA2.1 (Bie et al., arXiv 2512.15745), and DMax's: GLM-4.5's layers with experts, block-causal.

Beside names, three things differ from transformers' Glm4Moe: queries, keys and values come from one matrix, whose rows
are those of the query heads, the key heads and the value heads, in this order; blocks of 32, from the first token of
the prompt on; and half of each head's dimensions are rotated, if config.json says nothing else.
"""

import math
import re
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import Glm4MoeConfig, Glm4MoeForCausalLM
from transformers.core_model_loading import WeightRenaming
from transformers.models.glm4_moe.modeling_glm4_moe import Glm4MoeAttention, Glm4MoeDecoderLayer

from tad_ext.models.base import MaskedDiffusionMixin
from tad_ext.models.config import SIZES, Rule
from tad_ext.models.experts import ExpertsConfig, store_experts_apart
from tad_ext.models.last_layer import AttentionOfSome, LastLayer


class LLaDA2MoeConfig(ExpertsConfig, Glm4MoeConfig):
    """Configuration of :class:`LLaDA2MoeModelLM`: Glm4Moe's, with config.json in the fields of the original."""

    model_type = "llada2_moe"
    mask_token = "<|mask|>"

    NAMES: ClassVar[dict[str, str]] = {
        **{
            name: name
            for name in (
                *SIZES, "head_dim", "tie_word_embeddings", "rms_norm_eps", "attention_dropout", "initializer_range",
                "hidden_act", "mask_token_id", "bos_token_id", "eos_token_id", "pad_token_id", "causal_block_length",
                "num_experts_per_tok", "moe_intermediate_size", "n_group", "topk_group", "first_k_dense_replace",
                "routed_scaling_factor", "norm_topk_prob", "use_qk_norm",
            )
        },
        "num_experts": "n_routed_experts", "num_shared_experts": "n_shared_experts",
    }  # fmt: skip
    DEFAULTS: ClassVar[dict[str, Any]] = {
        "attention_dropout": 0.0, "bos_token_id": None, "causal_block_length": 32, "eos_token_id": 156892,
        "hidden_act": "silu", "initializer_range": 0.02, "mask_token_id": 156895, "pad_token_id": 156892,
        "moe_router_enable_expert_bias": True, "norm_head": False, "norm_topk_prob": True,
        "partial_rotary_factor": 0.5, "rms_norm_eps": 1e-5, "router_dtype": "fp32", "rope_scaling": None,
        "score_function": "sigmoid", "tie_word_embeddings": False,
        "use_qk_norm": True,
    }  # fmt: skip
    DERIVED: ClassVar[dict[str, Rule]] = {}
    SUPPORTED: ClassVar[dict[str, tuple[Any, ...]]] = {
        "hidden_act": ("silu",), "tie_word_embeddings": (False, True), "use_qk_norm": (True,),
        "norm_topk_prob": (True, False), "score_function": ("sigmoid",), "moe_router_enable_expert_bias": (True,),
        "router_dtype": ("fp32",), "use_bias": (False, None), "use_qkv_bias": (False, None),
        "norm_head": (False, None), "use_rmsnorm": (True, None), "use_sliding_window": (False, None),
        "embedding_dropout": (0.0, None), "output_dropout": (0.0, None), "quantization_config": (None,),
    }  # fmt: skip
    HARMLESS: ClassVar[tuple[str, ...]] = (
        "max_window_layers", "sliding_window",  # with use_sliding_window
        "output_router_logits", "num_nextn_predict_layers", "mtp_loss_scaling_factor",  # of training
        "rotary_dim",  # follows from partial_rotary_factor
    )  # fmt: skip
    SIZES = (*ExpertsConfig.SIZES, "n_routed_experts", "n_shared_experts", "n_group", "topk_group")
    END_OF_TURN: ClassVar[dict[int, int]] = {}

    @classmethod
    def rotation(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """See `OriginalConfig`."""
        return {**super().rotation(fields), "partial_rotary_factor": float(fields["partial_rotary_factor"])}

    @classmethod
    def check_ranges(cls, fields: dict[str, Any]) -> None:
        """See `OriginalConfig`."""
        super().check_ranges(fields)
        share, dense = fields["partial_rotary_factor"], fields.get("first_k_dense_replace")
        if not (isinstance(share, (int, float)) and 0 < share <= 1):
            raise ValueError(f"partial_rotary_factor is {share!r}; expected 0 < number <= 1")
        scale: Any = fields.get("routed_scaling_factor")
        if type(scale) not in (int, float) or not 0 < scale < math.inf:
            raise ValueError(f"routed_scaling_factor is {scale!r}; expected a finite number > 0")
        if type(dense) is not int or dense < 0:
            raise ValueError(f"first_k_dense_replace is {dense!r}; expected an integer >= 0")
        experts, groups, chosen = (fields[name] for name in ("num_experts", "n_group", "topk_group"))
        if experts % groups or experts < 2 * groups:
            raise ValueError(f"num_experts is {experts}; expected n_group, {groups}, times an integer >= 2")
        if chosen > groups or fields["num_experts_per_tok"] > experts // groups * chosen:
            raise ValueError(
                f"topk_group is {chosen} and num_experts_per_tok is {fields['num_experts_per_tok']}; expected at most "
                f"n_group, {groups}, and at most the experts of so many groups, {experts // groups * chosen}"
            )

    def to_diff_dict(self) -> dict[str, Any]:
        """See `OriginalConfig`."""
        return {**super().to_diff_dict(), "partial_rotary_factor": self.rope_parameters["partial_rotary_factor"]}


class LLaDA2AttentionOfSome(AttentionOfSome, Glm4MoeAttention):
    """Glm4Moe's, with one matrix for queries, keys and values."""

    norms = True

    def projected(self, asking: Tensor, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `AttentionOfSome`."""
        config, size = self.config, self.head_dim
        sizes = [heads * size for heads in (config.num_attention_heads, *[config.num_key_value_heads] * 2)]
        query, key, value = self.query_key_value(states).split(sizes, dim=-1)
        return query if asking is states else self.query_key_value(asking)[..., : sizes[0]], key, value


class LLaDA2LastLayer(LastLayer, Glm4MoeDecoderLayer):
    """Glm4Moe's."""


# Part of a weight's name here -> in an original checkpoint.
_WEIGHT_NAMES = {
    "model.embed_tokens.": "model.word_embeddings.", ".self_attn.query_key_value.": ".attention.query_key_value.",
    ".self_attn.o_proj.": ".attention.dense.", ".self_attn.q_norm.": ".attention.query_layernorm.",
    ".self_attn.k_norm.": ".attention.key_layernorm.",
    ".mlp.gate.e_score_correction_bias": ".mlp.gate.expert_bias",
}  # fmt: skip


class LLaDA2MoeModelLM(MaskedDiffusionMixin, Glm4MoeForCausalLM):
    """LLaDA2; its interface is `MaskedDiffusionMixin`'s. Adapters go on all but the routed experts."""

    config_class = LLaDA2MoeConfig
    layer_classes = (LLaDA2AttentionOfSome, LLaDA2LastLayer)
    weight_names = _WEIGHT_NAMES
    linear_names = ("query_key_value", "o_proj", "gate_proj", "up_proj", "down_proj")
    config: LLaDA2MoeConfig

    def __init__(self, config: LLaDA2MoeConfig) -> None:
        super().__init__(config)
        self.model.embed_tokens.padding_idx = None  # which is the end of sequence, too, and is trained
        rows = (config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim
        for layer in self.model.layers:
            attention = layer.self_attn
            attention.query_key_value = nn.Linear(config.hidden_size, rows, bias=False)
            self._init_weights(attention.query_key_value)
            del attention.q_proj, attention.k_proj, attention.v_proj


store_experts_apart(
    LLaDA2MoeModelLM.__name__,
    *(WeightRenaming(re.escape(original), ours) for ours, original in _WEIGHT_NAMES.items()),
)
