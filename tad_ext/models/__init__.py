"""Masked diffusion language models: their classes, loading, and LoRA adapters."""

from .base import MaskedDiffusionMixin as MaskedDiffusionMixin
from .base import MaskedDiffusionOutput as MaskedDiffusionOutput
from .dream import DreamConfig as DreamConfig
from .dream import DreamModel as DreamModel
from .gradient_checkpointing import enable_gradient_checkpointing as enable_gradient_checkpointing
from .identity import model_fingerprint as model_fingerprint
from .llada import LLaDAConfig as LLaDAConfig
from .llada import LLaDAModelLM as LLaDAModelLM
from .loading import load_config as load_config
from .loading import load_model as load_model
from .loading import load_tokenizer as load_tokenizer
from .lora import add_lora as add_lora
from .lora import base_model as base_model
from .lora import load_adapter as load_adapter
from .lora import merge_adapter as merge_adapter
from .lora import save_adapter as save_adapter
from .lora import teacher as teacher
from .tiny import TinyDiffusionConfig as TinyDiffusionConfig
from .tiny import TinyDiffusionLM as TinyDiffusionLM
