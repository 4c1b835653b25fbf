"""The policy that looks at how far apart the two best tokens are."""

from __future__ import annotations

from dataclasses import dataclass

from tad_ext.ops import Selection
from tad_ext.settings import Probability

from .base import BySelection, NamedPolicy


@dataclass(frozen=True)
class MarginThreshold(
    BySelection,
    NamedPolicy,
    name="margin",
    rule="p1 - p2 of the two best tokens >= threshold",
    source="order: arXiv 2502.06768",
):
    """Reveal every eligible position whose two best tokens are at least `threshold` apart in probability.

    Otherwise the position of the largest margin. Margins as the order of reveals are of arXiv 2502.06768 (top-k
    probability margin; Dream's topk_margin); the threshold on them is ours, so there is no published default.
    `threshold` is in [0, 1]; 0 accepts everything.
    """

    threshold: Probability

    @property
    def selection(self) -> Selection:
        """By rule `margin`."""
        return Selection("margin", self.threshold)
