"""Policies that look at each position's confidence, the probability of its chosen token."""

from __future__ import annotations

from dataclasses import dataclass

from tad_ext.ops import Selection

from .base import BySelection, Count, NamedPolicy, NonNegative, Probability


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

    Fast-dLLM, arXiv 2505.22618, which publishes 0.9. `threshold` is in [0, 1]; 0 accepts everything.
    """

    threshold: Probability = 0.9

    @property
    def selection(self) -> Selection:
        """By rule `confidence`."""
        return Selection("confidence", self.threshold)


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

    Fast-dLLM, arXiv 2505.22618, whose code publishes factor 1. Unlike that code, which lets the last rank pass with the
    one before it, every rank but the first meets its bound here. A row's positions of all created blocks are ranked
    together. `factor` >= 0; 0 asks for certainty.
    """

    factor: NonNegative = 1.0

    @property
    def selection(self) -> Selection:
        """By rule `factor`."""
        return Selection("factor", self.factor)
