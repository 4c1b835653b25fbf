"""Policies that look at each position's confidence, the probability of its chosen token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from tad_ext.ops import DecodeState, Selection, TokenStatistics
from tad_ext.settings import Count, NonNegative, Probability

from .base import BySelection, NamedPolicy
from .rows import block_clock, candidates, in_first_block


@dataclass(frozen=True)
class TopK(
    BySelection,
    NamedPolicy,
    name="topk",
    rule="the k most confident positions of the row",
    source="LLaDA, arXiv 2502.09992",
):
    """Reveal the `k` most confident eligible positions of each row in each forward; ties go to the lowest position.

    `TopK(1)` is the one-token-per-forward decoding (low-confidence remasking) of LLaDA, arXiv 2502.09992.
    """

    k: Count = 1

    @property
    def selection(self) -> Selection:
        """By rule `topk`."""
        return Selection("topk", self.k)


@dataclass(frozen=True)
class ConfidenceThreshold(
    BySelection, NamedPolicy, name="confidence", rule="confidence >= threshold", source="Fast-dLLM, arXiv 2505.22618"
):
    """Reveal every eligible position whose token has probability >= `threshold`; otherwise the most confident one.

    Fast-dLLM, arXiv 2505.22618, which publishes 0.9. `threshold` is in [0, 1]; 0 accepts everything. With `accept`
    `above` the probability must be > `threshold`, as D2F has it.
    """

    threshold: Probability = 0.9
    accept: Literal["from", "above"] = "from"

    @property
    def selection(self) -> Selection:
        """By rule `confidence`."""
        if self.accept == "from":
            return Selection("confidence", self.threshold)
        return Selection("confidence", float(np.nextafter(np.float32(self.threshold), np.float32(2))))


@dataclass(frozen=True)
class ConfidenceFactor(
    BySelection,
    NamedPolicy,
    name="factor",
    rule="the n-th most confident position if its confidence >= 1 - factor / (n + 1); n = 1 always",
    source="Fast-dLLM, arXiv 2505.22618",
):
    """Reveal the n most confident positions of a row for the largest n that their confidence allows.

    With a row's confidences sorted descending, p_1 >= p_2 >= ..., rank n is revealed if p_n >= 1 - factor / (n + 1),
    and rank 1 always: the more tokens at once, the surer each must be. Confidences fall and bounds rise with n, so the
    ranks revealed are the first ones.

    Fast-dLLM, arXiv 2505.22618, whose code publishes factor 1. With `variant` `code` the last of all ranks passes with
    the one before it, as in that code, so a block may end one forward earlier. A row's positions of all created blocks
    are ranked together. `factor` >= 0; 0 asks for certainty.
    """

    factor: NonNegative = 1.0
    variant: Literal["paper", "code"] = "paper"

    @property
    def selection(self) -> Selection:
        """By rule `factor`, or `factor-code`."""
        return Selection("factor" if self.variant == "paper" else "factor-code", self.factor)


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
