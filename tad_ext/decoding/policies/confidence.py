"""Policies that look at each position's confidence, the probability of its chosen token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tad_ext.ops import DecodeState, TokenStatistics

from .base import Count, NamedPolicy, NonNegative, Probability
from .rows import best_first, candidates, in_place


@dataclass(frozen=True)
class TopK(
    NamedPolicy, name="topk", rule="the k most confident positions of the row", source="LLaDA, arXiv 2502.09992"
):
    """Reveal the `k` most confident eligible positions of each row in each forward; ties go to the lowest position.

    `TopK(1)` is the one-token-per-forward decoding (low-confidence remasking) of LLaDA, arXiv 2502.09992.
    """

    k: Count = 1

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """Score by confidence; accept the k best."""
        candidate = candidates(statistics, state)
        best = best_first(statistics.confidence, candidate)[..., : self.k]
        return statistics.confidence, torch.zeros_like(candidate).scatter(-1, best, True) & candidate


@dataclass(frozen=True)
class ConfidenceThreshold(
    NamedPolicy, name="confidence", rule="confidence >= threshold", source="Fast-dLLM, arXiv 2505.22618"
):
    """Reveal every eligible position whose token has probability >= `threshold`; otherwise the most confident one.

    Fast-dLLM, arXiv 2505.22618, which publishes 0.9. `threshold` is in [0, 1]; 0 accepts everything.
    """

    threshold: Probability = 0.9

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """Score by confidence; accept from the threshold up."""
        return statistics.confidence, state.eligible & (statistics.confidence >= self.threshold)


@dataclass(frozen=True)
class ConfidenceFactor(
    NamedPolicy,
    name="factor",
    rule="the n-th most confident position if its confidence >= 1 - factor / (n + 1); n = 1 always",
    source="Fast-dLLM, arXiv 2505.22618",
):
    """Reveal the n most confident positions of a row for the largest n that their confidence allows.

    With a row's confidences sorted descending, p_1 >= p_2 >= ..., rank n is revealed if p_n >= 1 - factor / (n + 1),
    and rank 1 always: the more tokens at once, the surer each must be. Confidences fall and bounds rise with n, so the
    ranks revealed are the first ones.

    Fast-dLLM, arXiv 2505.22618, whose code publishes factor 1. Unlike that code, which lets the last rank pass with the
    one before it, every rank but the first meets its bound here. A row's positions of all created blocks are ranked
    together. `factor` >= 0; 0 asks for certainty.
    """

    factor: NonNegative = 1.0

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """Score by confidence; accept the ranks that meet their bound."""
        candidate = candidates(statistics, state)
        order = best_first(statistics.confidence, candidate)
        rank = torch.arange(1, order.shape[-1] + 1, dtype=torch.float64, device=order.device)
        accept = (statistics.confidence.gather(-1, order) >= 1 - self.factor / (rank + 1)) | (rank == 1)
        return statistics.confidence, in_place(order, accept) & candidate
