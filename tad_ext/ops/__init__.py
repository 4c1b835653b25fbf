"""The operators: compiled kernels with their Python face, and `reference`, their plain-PyTorch meaning."""

from . import reference
from .backend import (
    commit_reveal,
    eligible_positions,
    fused_linear_tad_loss,
    fused_tad_loss,
    masked_log_softmax,
    select_reveal,
    token_statistics,
    truncate_logits,
)
from .library import backend_info
from .philox import pack_offsets, uniform_noise
from .selection import Selection, best_first, in_place, margin_log_odds, select
from .types import DecodeState, ForcedProgress, TADLoss, TokenStatistics
from .unmask import Policy, unmask_step

__all__ = [
    "DecodeState",
    "ForcedProgress",
    "Policy",
    "Selection",
    "TADLoss",
    "TokenStatistics",
    "backend_info",
    "best_first",
    "commit_reveal",
    "eligible_positions",
    "fused_linear_tad_loss",
    "fused_tad_loss",
    "in_place",
    "margin_log_odds",
    "masked_log_softmax",
    "pack_offsets",
    "reference",
    "select",
    "select_reveal",
    "token_statistics",
    "truncate_logits",
    "uniform_noise",
    "unmask_step",
]
