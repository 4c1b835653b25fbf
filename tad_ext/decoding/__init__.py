"""Decoding: prompts and a masked diffusion model in, responses and the forward that revealed each token out."""

from tad_ext.ops import Policy

from .caches import (
    CacheScheme,
    D3LLMCache,
    DelayedCache,
    DualCache,
    DualCacheAtBlock,
    PrefixCache,
    PrefixCacheAtBlock,
    parse_cache,
)
from .config import DecodeConfig
from .loop import decode, decode_stream
from .policies import (
    KLASS,
    ConfidenceFactor,
    ConfidenceThreshold,
    Credit,
    DreamOrder,
    EntropyBudget,
    EntropyThreshold,
    FastDLLMDream,
    Hierarchical,
    LLaDASteps,
    LocalLeap,
    MarginThreshold,
    NamedPolicy,
    Prophet,
    SchED,
    TopK,
    parse_policy,
)
from .presets import PRESETS, preset
from .result import TOKENS_PER_FORWARD_DEFINITION, DecodedRow, DecodeResult

__all__ = [
    "KLASS",
    "PRESETS",
    "TOKENS_PER_FORWARD_DEFINITION",
    "CacheScheme",
    "ConfidenceFactor",
    "ConfidenceThreshold",
    "Credit",
    "D3LLMCache",
    "DecodeConfig",
    "DecodeResult",
    "DecodedRow",
    "DelayedCache",
    "DreamOrder",
    "DualCache",
    "DualCacheAtBlock",
    "EntropyBudget",
    "EntropyThreshold",
    "FastDLLMDream",
    "Hierarchical",
    "LLaDASteps",
    "LocalLeap",
    "MarginThreshold",
    "NamedPolicy",
    "Policy",
    "PrefixCache",
    "PrefixCacheAtBlock",
    "Prophet",
    "SchED",
    "TopK",
    "decode",
    "decode_stream",
    "parse_cache",
    "parse_policy",
    "preset",
]
