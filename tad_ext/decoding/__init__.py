"""Decoding: prompts and a masked diffusion model in, responses and the forward that revealed each token out."""

from tad_ext.ops import Policy

from .config import DecodeConfig
from .loop import decode
from .policies import ConfidenceThreshold, EntropyThreshold, TopK, parse_policy
from .result import TOKENS_PER_FORWARD_DEFINITION, DecodeResult

__all__ = [
    "TOKENS_PER_FORWARD_DEFINITION",
    "ConfidenceThreshold",
    "DecodeConfig",
    "DecodeResult",
    "EntropyThreshold",
    "Policy",
    "TopK",
    "decode",
    "parse_policy",
]
