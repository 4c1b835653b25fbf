"""SDAR (Cheng et al., arXiv 2510.06303) and TraDo: Qwen3's layers, block-causal, each position predicting itself.

Weights have Qwen3's names. A checkpoint is trained for one block length, ``block_size`` in its config.json: 4, unless
its name says otherwise (-b8 to -b64).
"""

from typing import Any, ClassVar

from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM

from tad_ext.models.base import MaskedDiffusionMixin
from tad_ext.models.qwen import Qwen3AttentionOfSome, Qwen3LastLayer, QwenConfig


class SDARConfig(QwenConfig, Qwen3Config):
    """Configuration of :class:`SDARForCausalLM`: Qwen3's, with config.json in the fields of the original."""

    model_type = "sdar"
    mask_token = "<|MASK|>"

    NAMES: ClassVar[dict[str, str]] = {
        **QwenConfig.NAMES, "head_dim": "head_dim", "block_size": "causal_block_length"
    }  # fmt: skip
    DEFAULTS: ClassVar[dict[str, Any]] = {**QwenConfig.DEFAULTS, "head_dim": 128, "block_size": 4}
    HARMLESS: ClassVar[tuple[str, ...]] = (*QwenConfig.HARMLESS, "fuse_cross_entropy")  # how it was trained


class SDARForCausalLM(MaskedDiffusionMixin, Qwen3ForCausalLM):
    """SDAR; its interface is `MaskedDiffusionMixin`'s."""

    config_class = SDARConfig
    tokenizer_class = Qwen2Tokenizer
    layer_classes = (Qwen3AttentionOfSome, Qwen3LastLayer)
    config: SDARConfig
