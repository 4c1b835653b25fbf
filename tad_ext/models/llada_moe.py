"""LLaDA-MoE (Zhu et al., arXiv 2509.24389): Qwen3's layers with experts, bidirectional; names of weights are Qwen3's.

An expert's share is the router's probability as it is: those of the chosen ones are not brought to a sum of 1. What
the authors' code can do beside, and the published checkpoint does not ask for (a shared expert, dense layers, biases
of experts, clipped projections, ...), is refused.
"""

from typing import Any, ClassVar

from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from tad_ext.models.base import MaskedDiffusionMixin
from tad_ext.models.config import SIZES, Rule
from tad_ext.models.experts import ExpertsConfig, store_experts_apart
from tad_ext.models.qwen import Qwen3MoeAttentionOfSome, Qwen3MoeLastLayer


class LLaDAMoEConfig(ExpertsConfig, Qwen3MoeConfig):
    """Configuration of :class:`LLaDAMoEModelLM`: Qwen3Moe's, with config.json in the fields of the original."""

    model_type = "llada"  # LLaDA-8B's, too
    mask_token = "<|mask|>"

    NAMES: ClassVar[dict[str, str]] = {
        **{
            name: name
            for name in (
                *SIZES, "tie_word_embeddings", "rms_norm_eps", "attention_dropout", "initializer_range", "hidden_act",
                "mask_token_id", "bos_token_id", "eos_token_id", "pad_token_id", "num_experts", "num_experts_per_tok",
            )
            if name != "intermediate_size"
        },
        "dense_intermediate_size": "intermediate_size", "expert_intermediate_size": "moe_intermediate_size",
    }  # fmt: skip
    DEFAULTS: ClassVar[dict[str, Any]] = {
        "attention_dropout": 0.0, "bos_token_id": None, "eos_token_id": 156892, "hidden_act": "silu",
        "initializer_range": 0.02, "mask_token_id": 156895, "moe_layer_freq": None, "num_key_value_heads": None,
        "pad_token_id": 156892, "qk_layernorm": None, "rms_norm_eps": 1e-5, "rope_scaling": None,
        "tie_word_embeddings": False,
    }  # fmt: skip
    DERIVED: ClassVar[dict[str, Rule]] = {"num_key_value_heads": lambda fields: fields.get("num_attention_heads")}
    SUPPORTED: ClassVar[dict[str, tuple[Any, ...]]] = {
        "hidden_act": ("silu",), "tie_word_embeddings": (False, True), "qk_layernorm": (True,),
        "attention_bias": (False, None), "clip_qkv": (None,), "partial_rotary_factor": (1, None),
        "shared_expert_intermediate_size": (None,), "moe_router_enable_expert_bias": (False, None),
        "moe_router_score_function": ("softmax", None), "norm_topk_prob": (None, False), "router_num_group": (None,),
        "router_topk_group": (None,), "routed_scaling_factor": (1, None), "quantization_config": (None,),
    }  # fmt: skip
    # How the router was trained.
    HARMLESS: ClassVar[tuple[str, ...]] = ("output_router_logits", "router_aux_loss_coef")
    END_OF_TURN: ClassVar[dict[int, int]] = {}

    norm_topk_prob: bool = False

    @classmethod
    def check_ranges(cls, fields: dict[str, Any]) -> None:
        """See `OriginalConfig`."""
        super().check_ranges(fields)
        layers = fields["moe_layer_freq"]
        if layers is not None and layers != [1] * fields["num_hidden_layers"]:
            raise ValueError(f"moe_layer_freq is {layers!r}; supported: None or 1 in every layer, 0 is a dense one")

    def to_diff_dict(self) -> dict[str, Any]:
        """See `OriginalConfig`."""
        return {**super().to_diff_dict(), "moe_layer_freq": [1] * self.num_hidden_layers}


class LLaDAMoEModelLM(MaskedDiffusionMixin, Qwen3MoeForCausalLM):
    """LLaDA-MoE; its interface is `MaskedDiffusionMixin`'s. Adapters go on the attention alone."""

    config_class = LLaDAMoEConfig
    also_called = ("LLaDAMoEModel",)  # in the published config.json
    layer_classes = (Qwen3MoeAttentionOfSome, Qwen3MoeLastLayer)
    linear_names = ("q_proj", "k_proj", "v_proj", "o_proj")
    config: LLaDAMoEConfig

    def __init__(self, config: LLaDAMoEConfig) -> None:
        super().__init__(config)
        self.model.embed_tokens.padding_idx = None  # which is the end of sequence, too, and is trained


store_experts_apart(LLaDAMoEModelLM.__name__)
