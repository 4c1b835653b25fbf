"""The operators: compiled kernels with their Python face, and `reference`, their plain-PyTorch meaning."""

from . import reference
from .backend import (
    commit_reveal,
    fused_linear_tad_loss,
    fused_tad_loss,
    masked_log_softmax,
    token_statistics,
)
from .library import backend_info
from .philox import pack_offsets
from .types import DecodeState, TADLoss, TokenStatistics
from .unmask import Policy, unmask_step

__all__ = [
    "DecodeState",
    "Policy",
    "TADLoss",
    "TokenStatistics",
    "backend_info",
    "commit_reveal",
    "fused_linear_tad_loss",
    "fused_tad_loss",
    "masked_log_softmax",
    "pack_offsets",
    "reference",
    "token_statistics",
    "unmask_step",
]
