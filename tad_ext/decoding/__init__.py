"""Decoding: prompts and a masked diffusion model in, responses and the forward that revealed each token out."""

from tad_ext.ops import Policy

from .caches import CacheScheme, DelayedCache, DualCache, PrefixCache, parse_cache
from .config import DecodeConfig
from .loop import decode, decode_stream
from .policies import ConfidenceThreshold, EntropyThreshold, TopK, parse_policy
from .result import TOKENS_PER_FORWARD_DEFINITION, DecodedRow, DecodeResult

__all__ = [
    "TOKENS_PER_FORWARD_DEFINITION",
    "CacheScheme",
    "ConfidenceThreshold",
    "DecodeConfig",
    "DecodeResult",
    "DecodedRow",
    "DelayedCache",
    "DualCache",
    "EntropyThreshold",
    "Policy",
    "PrefixCache",
    "TopK",
    "decode",
    "decode_stream",
    "parse_cache",
    "parse_policy",
]
