"""The operators: compiled kernels with their Python face, and `reference`, their plain-PyTorch meaning."""

from . import reference
from .library import backend_info, operators_wait
from .log_softmax import masked_log_softmax
from .loss import fused_linear_tad_loss, fused_tad_loss
from .philox import pack_offsets, uniform_noise
from .reveal import Policy, commit_reveal, eligible_positions, select_reveal, unmask_step
from .selection import Selection, best_first, in_place, margin_log_odds, select
from .statistics import token_statistics, truncate_logits
from .types import DecodeState, ForcedProgress, TADLoss, TokenStatistics

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
    "operators_wait",
    "pack_offsets",
    "reference",
    "select",
    "select_reveal",
    "token_statistics",
    "truncate_logits",
    "uniform_noise",
    "unmask_step",
]
