"""Fast-dLLM's decoding of Dream with a cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tad_ext.ops import DecodeState, TokenStatistics
from tad_ext.settings import Probability

from .base import NamedPolicy
from .rows import block_clock, candidates, in_first_block


@dataclass(frozen=True)
class FastDLLMDream(
    NamedPolicy,
    name="fast-dllm-dream",
    rule="a block's first position alone in its first forward; then confidence >= threshold",
    source="Fast-dLLM, arXiv 2505.22618, its code for Dream with a cache",
):
    """Reveal a block's first position, and nothing else, in the block's first forward; then as `ConfidenceThreshold`.

    What Fast-dLLM's code does for Dream, where it keeps keys and values: the first forward of a block computes the
    whole row, and its first position is predicted from the column before, which later forwards leave out. Goes with
    `PrefixCacheAtBlock` and `DualCacheAtBlock`, which do the same.
    """

    threshold: Probability = 0.9
    opens_blocks: ClassVar[bool] = True

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """Score by log-odds; accept the first position, or from the threshold up."""
        candidate = candidates(statistics, state)
        step, _ = block_clock(state, "fast-dllm-dream")
        opening = in_first_block(state) & (state.positions % state.block_length == 0)
        first = (step == 0) & opening.any(dim=-1, keepdim=True)
        return statistics.log_odds, candidate & torch.where(first, opening, statistics.confidence >= self.threshold)
