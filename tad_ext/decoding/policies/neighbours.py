"""Policies that look at what stands beside a position."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from tad_ext.ops import DecodeState, TokenStatistics, best_first, in_place
from tad_ext.settings import Between, Probability

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

    A position is revealed if its confidence is > `threshold`, or if it is > `low` and the best one of its run, ties to
    the lowest. Each reveal splits its run in two, so that at best n masks are filled in about log2(n) forwards. A run
    ends where a block ends, so that each block decodes as it would alone.

    dInfer, arXiv 2510.08666, with its code's default for `low`; it has none for `threshold`, and 0.9 is its plain
    threshold's. Its rule that the best position is always revealed is the decoding loop's forced progress.
    """

    threshold: Probability = 0.9
    low: Probability = 0.4

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """Score by log-odds; accept the best of each run above `low`, and all above `threshold`."""
        confidence, candidate = statistics.confidence, candidates(statistics, state)
        best = _best_of_runs(state, statistics.log_odds, candidate)
        return statistics.log_odds, candidate & ((best & (confidence > self.low)) | (confidence > self.threshold))


@dataclass(frozen=True)
class LocalLeap(
    NamedPolicy,
    name="localleap",
    rule="confidence >= threshold (anchors); >= relaxed within radius positions of an anchor",
    source="LocalLeap, arXiv 2510.07081",
):
    """Reveal anchors, positions of confidence >= `threshold`, and near them all of confidence >= `relaxed`.

    Near is at most `radius` canvas positions from an anchor of this forward, on either side and across block borders.
    LocalLeap, arXiv 2510.07081, with its anchors at 0.9. The defaults of `relaxed` and `radius` are ours.
    """

    threshold: Probability = 0.9
    relaxed: Probability = 0.75
    radius: Annotated[int, Between(0, 2**31)] = 4

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """Score by log-odds; accept anchors, and neighbours from the relaxed threshold up."""
        confidence, candidate = statistics.confidence, candidates(statistics, state)
        anchor = candidate & (confidence >= self.threshold)
        # Positions ascend, so the nearest anchors on both sides are running extremes.
        far = state.reveal_step.shape[1] + self.radius + 1
        before = torch.where(anchor, state.positions, -far).cummax(dim=-1).values
        after = torch.where(anchor, state.positions, 2 * far).flip(-1).cummin(dim=-1).values.flip(-1)
        distance = torch.minimum(state.positions - before, after - state.positions)
        return statistics.log_odds, anchor | (candidate & (distance <= self.radius) & (confidence >= self.relaxed))


def _best_of_runs(state: DecodeState, score: Tensor, candidate: Tensor) -> Tensor:
    """(B, W) bool: the best-scored candidate of each run of neighbouring masks, ties to the lowest position."""
    positions = state.positions
    starts = torch.ones_like(candidate)
    starts[..., 1:] = (positions[..., 1:] != positions[..., :-1] + 1) | (positions[..., 1:] % state.block_length == 0)
    run = starts.cumsum(dim=-1)
    order = best_first(score, candidate)
    order = order.gather(-1, run.gather(-1, order).argsort(dim=-1, stable=True))
    run_in_order = run.gather(-1, order)
    first = torch.ones_like(candidate)
    first[..., 1:] = run_in_order[..., 1:] != run_in_order[..., :-1]
    return in_place(order, first) & candidate
