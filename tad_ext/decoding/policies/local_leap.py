"""LocalLeap: sure positions vouch for their neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from tad_ext.ops import DecodeState, TokenStatistics
from tad_ext.settings import Between, Probability

from .base import NamedPolicy
from .rows import candidates


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
