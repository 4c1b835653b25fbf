"""Decoding: prompts and a masked diffusion model in, responses and the forward that revealed each token out."""

from tad_ext.ops import Policy

from .config import DecodeConfig
from .loop import decode
from .policies import (
    KLASS,
    ConfidenceFactor,
    ConfidenceThreshold,
    Credit,
    EntropyBudget,
    EntropyThreshold,
    Hierarchical,
    LocalLeap,
    MarginThreshold,
    NamedPolicy,
    Prophet,
    SchED,
    TopK,
    parse_policy,
)
from .presets import PRESETS, preset
from .result import TOKENS_PER_FORWARD_DEFINITION, DecodeResult

__all__ = [
    "KLASS",
    "PRESETS",
    "TOKENS_PER_FORWARD_DEFINITION",
    "ConfidenceFactor",
    "ConfidenceThreshold",
    "Credit",
    "DecodeConfig",
    "DecodeResult",
    "EntropyBudget",
    "EntropyThreshold",
    "Hierarchical",
    "LocalLeap",
    "MarginThreshold",
    "NamedPolicy",
    "Policy",
    "Prophet",
    "SchED",
    "TopK",
    "decode",
    "parse_policy",
    "preset",
]
