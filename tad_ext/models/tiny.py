"""TinyDiffusionLM: a masked diffusion language model small enough to train on a CPU in minutes.

Llama's layers, bidirectional; 300 thousand parameters in its default size.
"""

import dataclasses
from typing import Any

from transformers import LlamaConfig, LlamaForCausalLM

from tad_ext.models.base import MaskedDiffusionMixin
from tad_ext.models.config import DiffusionConfig, read_keys


class TinyDiffusionConfig(DiffusionConfig, LlamaConfig):
    """Configuration of :class:`TinyDiffusionLM`: Llama's, with small defaults."""

    model_type = "tad_tiny"

    vocab_size: int = 24
    hidden_size: int = 96
    intermediate_size: int = 192
    num_hidden_layers: int = 3
    num_attention_heads: int = 3
    max_position_embeddings: int = 128
    initializer_range: float = 0.1
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """The configuration described by a config.json. ValueError for what is not understood, as `read_keys`."""
        fields = read_keys(config_dict, understood=(field.name for field in dataclasses.fields(cls)))
        theta, dtype = fields.pop("rope_theta", None), fields.pop("torch_dtype", None)
        rotation = None if theta is None else {"rope_type": "default", "rope_theta": theta}
        return super().from_dict({**fields, "rope_parameters": rotation, "dtype": dtype}, **kwargs)


class TinyDiffusionLM(MaskedDiffusionMixin, LlamaForCausalLM):
    """A small masked diffusion language model; its interface is `MaskedDiffusionMixin`'s."""

    config_class = TinyDiffusionConfig
    config: TinyDiffusionConfig
