"""Dream (Ye et al., arXiv 2508.15487): Qwen2's layers, bidirectional, each position predicted one position earlier.

Dream-7B was made from Qwen2.5 and predicts the NEXT token, too: the prediction for position i comes from the hidden
state at position i - 1, and that for position 0 from its own. Weights have Qwen2's names.
"""

from typing import Any, ClassVar

from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from tad_ext.models.base import MaskedDiffusionMixin
from tad_ext.models.qwen import Qwen2AttentionOfSome, Qwen2LastLayer, QwenConfig


class DreamConfig(QwenConfig, Qwen2Config):
    """Configuration of :class:`DreamModel`: Qwen2's, with config.json in the fields of the original."""

    model_type = "Dream"
    mask_token = "<|mask|>"
    shift = 1

    DEFAULTS: ClassVar[dict[str, Any]] = {**QwenConfig.DEFAULTS, "use_mrope": False}
    SUPPORTED: ClassVar[dict[str, tuple[Any, ...]]] = {**QwenConfig.SUPPORTED, "use_mrope": (False,)}


class DreamModel(MaskedDiffusionMixin, Qwen2ForCausalLM):
    """Dream; its interface is `MaskedDiffusionMixin`'s, with the shift by one position inside."""

    config_class = DreamConfig
    tokenizer_class = Qwen2Tokenizer
    layer_classes = (Qwen2AttentionOfSome, Qwen2LastLayer)
    config: DreamConfig
