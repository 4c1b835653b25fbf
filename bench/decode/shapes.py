"""Models of the sizes that benchmarks speak of, with random weights."""

from typing import Any

import torch

from tad_ext.models.dream import DreamConfig, DreamModel
from tad_ext.models.llada import LLaDAConfig, LLaDAModelLM

# LLaDA-8B-Instruct's config.json, as far as it decides about the work.
LLADA_8B: dict[str, Any] = {
    "d_model": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 32, "mlp_hidden_size": 12288, "vocab_size": 126464,
    "embedding_size": 126464, "max_sequence_length": 4096, "block_type": "llama", "activation_type": "silu",
    "layer_norm_type": "rms", "rope": True, "rope_theta": 500000.0, "weight_tying": False, "include_bias": False,
    "attention_dropout": 0.0, "residual_dropout": 0.0, "embedding_dropout": 0.0, "mask_token_id": 126336,
    "eos_token_id": 126081, "pad_token_id": 126081,
}  # fmt: skip
TINY = LLADA_8B | {
    "d_model": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 4, "mlp_hidden_size": 128, "vocab_size": 512,
    "embedding_size": 512, "mask_token_id": 510, "eos_token_id": 508, "pad_token_id": 508,
}  # fmt: skip
# Layers small enough for a CPU below LLaDA's vocabulary.
CPU = LLADA_8B | {"d_model": 256, "n_layers": 4, "n_heads": 4, "n_kv_heads": 4, "mlp_hidden_size": 768}
# Dream-v0-Instruct-7B's.
DREAM_7B: dict[str, Any] = {
    "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
    "intermediate_size": 18944, "vocab_size": 152064, "max_position_embeddings": 131072, "rope_theta": 1000000.0,
    "rms_norm_eps": 1e-6, "attention_dropout": 0.0, "tie_word_embeddings": False, "mask_token_id": 151666,
    "bos_token_id": 151643, "eos_token_id": 151643, "pad_token_id": 151643,
}  # fmt: skip
TINY_DREAM = DREAM_7B | {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 128, "vocab_size": 512, "mask_token_id": 510, "bos_token_id": 508, "eos_token_id": 508,
    "pad_token_id": 508,
}  # fmt: skip
SHAPES = {"cpu": CPU, "tiny": TINY, "llada-8b": LLADA_8B, "dream-7b": DREAM_7B}


def random_model(
    shape: dict[str, Any], device: torch.device | str, dtype: torch.dtype = torch.bfloat16
) -> LLaDAModelLM | DreamModel:
    """Weights drawn where they will be used: 16 GB would take minutes to come from the host."""
    model_class, config_class = (LLaDAModelLM, LLaDAConfig) if "d_model" in shape else (DreamModel, DreamConfig)
    with torch.device(device):
        model = model_class._from_config(config_class.from_dict(shape), dtype=dtype)
    return model.eval()
