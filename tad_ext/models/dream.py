"""Dream (Ye et al., arXiv 2508.15487): Qwen2's layers, bidirectional, each position predicted one position earlier.

Dream-7B was made from Qwen2.5 and predicts the NEXT token, too: the prediction for position i comes from the hidden
state at position i - 1, and that for position 0 from its own. Weights have Qwen2's names.
"""

from typing import Any, ClassVar

from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention, Qwen2DecoderLayer

from tad_ext.models.base import MaskedDiffusionMixin
from tad_ext.models.config import SIZES, OriginalConfig, Rule
from tad_ext.models.last_layer import AttentionOfSome, LastLayer


class DreamConfig(OriginalConfig, Qwen2Config):
    """Configuration of :class:`DreamModel`: Qwen2's, with config.json in the fields of the original."""

    model_type = "Dream"
    mask_token = "<|mask|>"

    NAMES: ClassVar[dict[str, str]] = {
        name: name
        for name in (
            *SIZES, "tie_word_embeddings", "rms_norm_eps", "attention_dropout", "initializer_range", "hidden_act",
            "mask_token_id", "bos_token_id", "eos_token_id", "pad_token_id",
        )
    }  # fmt: skip
    DEFAULTS: ClassVar[dict[str, Any]] = {
        "attention_dropout": 0.0, "bos_token_id": None, "hidden_act": "silu", "initializer_range": 0.02,
        "num_key_value_heads": None, "rms_norm_eps": 1e-6, "rope_scaling": None, "tie_word_embeddings": False,
        "use_mrope": False, "use_sliding_window": False,
    }  # fmt: skip
    DERIVED: ClassVar[dict[str, Rule]] = {"num_key_value_heads": lambda fields: fields.get("num_attention_heads")}
    SUPPORTED: ClassVar[dict[str, tuple[Any, ...]]] = {
        "hidden_act": ("silu",), "use_mrope": (False,), "use_sliding_window": (False,),
        "tie_word_embeddings": (False, True), "quantization_config": (None,),
    }  # fmt: skip
    HARMLESS: ClassVar[tuple[str, ...]] = ("max_window_layers", "sliding_window")  # with use_sliding_window
    END_OF_TURN: ClassVar[dict[int, int]] = {151643: 151645}  # <|endoftext|>: <|im_end|>


class Qwen2AttentionOfSome(AttentionOfSome, Qwen2Attention):
    """Qwen2's."""


class Qwen2LastLayer(LastLayer, Qwen2DecoderLayer):
    """Qwen2's."""


class DreamModel(MaskedDiffusionMixin, Qwen2ForCausalLM):
    """Dream; its interface is `MaskedDiffusionMixin`'s, with the shift by one position inside."""

    config_class = DreamConfig
    tokenizer_class = Qwen2Tokenizer
    layer_classes = (Qwen2AttentionOfSome, Qwen2LastLayer)
    shift = 1
    config: DreamConfig
