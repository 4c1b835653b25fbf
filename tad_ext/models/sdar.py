"""SDAR (Cheng et al., arXiv 2510.06303) and TraDo: Qwen3's layers, block-causal, each position predicting itself.

Weights have Qwen3's names; SDAR-30B-A3B has Qwen3's experts. A checkpoint is trained for one block length,
``block_size`` in its config.json: 4, unless its name says otherwise (-b8 to -b64).
"""

from typing import Any, ClassVar

from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from tad_ext.models.base import MaskedDiffusionMixin
from tad_ext.models.experts import ExpertsConfig, store_experts_apart
from tad_ext.models.qwen import (
    Qwen3AttentionOfSome,
    Qwen3LastLayer,
    Qwen3MoeAttentionOfSome,
    Qwen3MoeLastLayer,
    QwenConfig,
)


class _SDARFields(QwenConfig):
    mask_token = "<|MASK|>"

    NAMES: ClassVar[dict[str, str]] = {
        **QwenConfig.NAMES, "head_dim": "head_dim", "block_size": "causal_block_length",
    }  # fmt: skip
    DEFAULTS: ClassVar[dict[str, Any]] = {**QwenConfig.DEFAULTS, "head_dim": 128, "block_size": 4}
    HARMLESS: ClassVar[tuple[str, ...]] = (*QwenConfig.HARMLESS, "fuse_cross_entropy")  # how it was trained


class SDARConfig(_SDARFields, Qwen3Config):
    """Configuration of :class:`SDARForCausalLM`: Qwen3's, with config.json in the fields of the original."""

    model_type = "sdar"


class SDARForCausalLM(MaskedDiffusionMixin, Qwen3ForCausalLM):
    """SDAR; its interface is `MaskedDiffusionMixin`'s."""

    config_class = SDARConfig
    tokenizer_class = Qwen2Tokenizer
    layer_classes = (Qwen3AttentionOfSome, Qwen3LastLayer)
    config: SDARConfig


class SDARMoeConfig(_SDARFields, ExpertsConfig, Qwen3MoeConfig):
    """Configuration of :class:`SDARMoeForCausalLM`: Qwen3's with experts in every layer."""

    model_type = "sdar_moe"

    NAMES: ClassVar[dict[str, str]] = {
        **_SDARFields.NAMES,
        **{name: name for name in ("moe_intermediate_size", "num_experts", "num_experts_per_tok", "norm_topk_prob")},
    }
    SUPPORTED: ClassVar[dict[str, tuple[Any, ...]]] = {
        **_SDARFields.SUPPORTED, "norm_topk_prob": (True, False), "decoder_sparse_step": (1, None),
        "mlp_only_layers": ([], None),
    }  # fmt: skip
    # How the router was trained.
    HARMLESS: ClassVar[tuple[str, ...]] = (*_SDARFields.HARMLESS, "output_router_logits", "router_aux_loss_coef")


class SDARMoeForCausalLM(MaskedDiffusionMixin, Qwen3MoeForCausalLM):
    """SDAR with experts; its interface is `MaskedDiffusionMixin`'s. Adapters go on the attention alone."""

    config_class = SDARMoeConfig
    tokenizer_class = Qwen2Tokenizer
    layer_classes = (Qwen3MoeAttentionOfSome, Qwen3MoeLastLayer)
    linear_names = ("q_proj", "k_proj", "v_proj", "o_proj")
    config: SDARMoeConfig


store_experts_apart(SDARMoeForCausalLM.__name__)
