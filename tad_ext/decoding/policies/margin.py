"""The policy that looks at how far apart the two best tokens are."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tad_ext.ops import DecodeState, TokenStatistics

from .base import NamedPolicy, Probability


@dataclass(frozen=True)
class MarginThreshold(
    NamedPolicy, name="margin", rule="p1 - p2 of the two best tokens >= threshold", source="order: arXiv 2502.06768"
):
    """Reveal every eligible position whose two best tokens are at least `threshold` apart in probability.

    Otherwise the position of the largest margin. Margins as the order of reveals are of arXiv 2502.06768 (top-k
    probability margin; Dream's topk_margin); the threshold on them is ours, so there is no published default.
    `threshold` is in [0, 1]; 0 accepts everything.
    """

    threshold: Probability

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """Score by margin; accept from the threshold up."""
        return statistics.margin, state.eligible & (statistics.margin >= self.threshold)
