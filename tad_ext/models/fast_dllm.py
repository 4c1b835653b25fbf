"""Fast-dLLM v2 (Wu et al., arXiv 2509.26328): Qwen2's layers, block-causal, each position predicted one earlier.

Made from Qwen2.5, it predicts the next token, too. So a block's first token comes from the last position of the block
before, which sees that block and no later one: it is decoded autoregressively. Weights have Qwen2's names.
"""

from typing import Any, ClassVar

from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from tad_ext.models.base import MaskedDiffusionMixin
from tad_ext.models.qwen import Qwen2AttentionOfSome, Qwen2LastLayer, QwenConfig


class FastDLLMConfig(QwenConfig, Qwen2Config):
    """Configuration of :class:`Fast_dLLM_QwenForCausalLM`: Qwen2's, with config.json in the fields of the original."""

    model_type = "Fast_dLLM_Qwen"
    mask_token = "|<MASK>|"
    shift = 1

    NAMES: ClassVar[dict[str, str]] = {**QwenConfig.NAMES, "bd_size": "causal_block_length"}
    DEFAULTS: ClassVar[dict[str, Any]] = {**QwenConfig.DEFAULTS, "bd_size": 32, "mask_token_id": 151665}


class Fast_dLLM_QwenForCausalLM(MaskedDiffusionMixin, Qwen2ForCausalLM):
    """Fast-dLLM v2; its interface is `MaskedDiffusionMixin`'s, with the shift by one position inside."""

    config_class = FastDLLMConfig
    tokenizer_class = Qwen2Tokenizer
    layer_classes = (Qwen2AttentionOfSome, Qwen2LastLayer)
    config: FastDLLMConfig
