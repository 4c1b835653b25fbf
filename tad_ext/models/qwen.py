"""What models made from Qwen share: fields of config.json, and layers with queries of some positions."""

from typing import Any, ClassVar

from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention, Qwen2DecoderLayer
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention, Qwen3DecoderLayer
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeAttention, Qwen3MoeDecoderLayer

from tad_ext.models.config import SIZES, OriginalConfig, Rule
from tad_ext.models.last_layer import AttentionOfSome, LastLayer


class QwenConfig(OriginalConfig):
    """Fields that all of them have; a family adds its own."""

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
        "use_sliding_window": False,
    }  # fmt: skip
    DERIVED: ClassVar[dict[str, Rule]] = {"num_key_value_heads": lambda fields: fields.get("num_attention_heads")}
    SUPPORTED: ClassVar[dict[str, tuple[Any, ...]]] = {
        "hidden_act": ("silu",), "use_sliding_window": (False,), "tie_word_embeddings": (False, True),
        "quantization_config": (None,),
    }  # fmt: skip
    HARMLESS: ClassVar[tuple[str, ...]] = ("max_window_layers", "sliding_window")  # with use_sliding_window
    END_OF_TURN: ClassVar[dict[int, int]] = {151643: 151645}  # <|endoftext|>: <|im_end|>


class Qwen2AttentionOfSome(AttentionOfSome, Qwen2Attention):
    """Qwen2's."""


class Qwen2LastLayer(LastLayer, Qwen2DecoderLayer):
    """Qwen2's."""


class Qwen3AttentionOfSome(AttentionOfSome, Qwen3Attention):
    """Qwen3's."""

    norms = True


class Qwen3LastLayer(LastLayer, Qwen3DecoderLayer):
    """Qwen3's."""


class Qwen3MoeAttentionOfSome(AttentionOfSome, Qwen3MoeAttention):
    """Qwen3's beside experts."""

    norms = True


class Qwen3MoeLastLayer(LastLayer, Qwen3MoeDecoderLayer):
    """Qwen3's with experts."""
