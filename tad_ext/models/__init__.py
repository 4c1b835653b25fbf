"""Masked diffusion language models: their classes, loading, and LoRA adapters."""

from .base import MaskedDiffusionMixin, MaskedDiffusionOutput
from .dream import DreamConfig, DreamModel
from .identity import model_fingerprint
from .llada import LLaDAConfig, LLaDAModelLM
from .loading import load_config, load_model, load_tokenizer
from .lora import add_lora, base_model, load_adapter, merge_adapter, save_adapter, teacher
from .tiny import TinyDiffusionConfig, TinyDiffusionLM

__all__ = [
    "DreamConfig",
    "DreamModel",
    "LLaDAConfig",
    "LLaDAModelLM",
    "MaskedDiffusionMixin",
    "MaskedDiffusionOutput",
    "TinyDiffusionConfig",
    "TinyDiffusionLM",
    "add_lora",
    "base_model",
    "load_adapter",
    "load_config",
    "load_model",
    "load_tokenizer",
    "merge_adapter",
    "model_fingerprint",
    "save_adapter",
    "teacher",
]
