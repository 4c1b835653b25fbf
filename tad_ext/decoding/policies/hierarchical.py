"""dInfer's hierarchical decoding: reveals spread over the gaps instead of clustering."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tad_ext.ops import DecodeState, TokenStatistics, best_first, in_place
from tad_ext.settings import Probability

from .base import NamedPolicy
from .rows import candidates


@dataclass(frozen=True)
class Hierarchical(
    NamedPolicy,
    name="hierarchical",
    rule="the best of each run of neighbouring masks if its confidence > low; every confidence > threshold",
    source="dInfer, arXiv 2510.08666",
):
    """Reveal the most confident position of each contiguous run of masks, and whatever is very confident anyway.

    A position is revealed if its confidence is > `threshold`, or if it is > `low` and the best one of its run. Each
    reveal inside a run splits it in two, so the next forward reveals on both sides: at best a gap of n masks is filled
    in about log2(n) forwards. Ties in a run go to the lowest position. A run ends where a block ends, so that each
    block decodes as it would alone.

    dInfer, arXiv 2510.08666. 0.4 is its code's default for `low`; it has none for `threshold`, and the 0.9 here is that
    of its plain threshold. Its rule that the best position is always revealed is the decoding loop's forced progress.
    """

    threshold: Probability = 0.9
    low: Probability = 0.4

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """Score by log-odds; accept the best of each run above `low`, and all above `threshold`."""
        confidence, candidate = statistics.confidence, candidates(statistics, state)
        best = _best_of_each(_runs(state), statistics.log_odds, candidate)
        return statistics.log_odds, candidate & ((best & (confidence > self.low)) | (confidence > self.threshold))


def _runs(state: DecodeState) -> Tensor:
    """(B, W) int64: the number, within its row, of the run of neighbouring masks that an entry belongs to."""
    positions = state.positions
    starts = torch.ones_like(positions, dtype=torch.bool)
    starts[..., 1:] = (positions[..., 1:] != positions[..., :-1] + 1) | (positions[..., 1:] % state.block_length == 0)
    return starts.cumsum(dim=-1)


def _best_of_each(group: Tensor, score: Tensor, candidate: Tensor) -> Tensor:
    """(B, W) bool: the best-scored candidate of each group (int64 numbers) of a row, ties to the lowest position."""
    order = best_first(score, candidate)
    order = order.gather(-1, group.gather(-1, order).argsort(dim=-1, stable=True))
    number = group.gather(-1, order)
    first = torch.ones_like(candidate)
    first[..., 1:] = number[..., 1:] != number[..., :-1]
    return in_place(order, first) & candidate
