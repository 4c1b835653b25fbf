"""Policies that decode one position per forward until the model is sure enough of all, and then reveal everything.

Both measure sureness by the mean gap between the logits of the two best tokens, over the row's eligible positions;
`rows.logit_gap` says how it is derived, and what happens when sampling. With the whole canvas as one block these are
all the masks that are left, with smaller blocks those of the created blocks. Published progress is the step number over
a fixed number of steps, each revealing equally many positions. Here it is the revealed share of the canvas, which is
the same there and stays meaningful after a block was revealed at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tad_ext.ops import DecodeState, TokenStatistics

from .base import NamedPolicy, NonNegative
from .rows import candidates, logit_gap, mean_of, revealed_share


@dataclass(frozen=True)
class Prophet(
    NamedPolicy,
    name="prophet",
    rule="everything once the mean top-2 logit gap >= early, mid or late (progress < 0.33, < 0.67, later)",
    source="Prophet, arXiv 2508.19982",
):
    """Reveal everything once the mean logit gap reaches a threshold that falls in two steps; else one position.

    The threshold, in nats, is `early` while the revealed share of the canvas is < 0.33, `mid` while it is < 0.67, and
    `late` from there on.

    Prophet, arXiv 2508.19982, with its published thresholds. It measures the gap over the part of the text that holds
    the answer, where a template fixes that part; here all eligible positions count.
    """

    early: NonNegative = 7.5
    mid: NonNegative = 5.0
    late: NonNegative = 2.5

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """Score by confidence; accept all or nothing."""
        progress = revealed_share(state)
        threshold = torch.where(progress < 0.33, self.early, torch.where(progress < 0.67, self.mid, self.late))
        return statistics.confidence, _all_if_sure(statistics, state, threshold)


@dataclass(frozen=True)
class SchED(
    NamedPolicy,
    name="sched",
    rule="everything once the mean top-2 logit gap >= a schedule from high to low over progress",
    source="SchED, arXiv 2512.02892",
):
    """Reveal everything once the mean logit gap reaches a threshold that falls smoothly; else one position.

    With progress p, the revealed share of the canvas, the threshold in nats is

        linear    high + (low - high) p
        cosine    low + (high - low) (1 + cos(pi p)) / 2
        exp       low + (high - low) exp(-rate p)

    SchED, arXiv 2512.02892, which publishes 7.5 to 2.5 and the three schedules. That cosine is the default, and a
    `rate` of 2, are our choices.
    """

    high: NonNegative = 7.5
    low: NonNegative = 2.5
    schedule: Literal["cosine", "linear", "exp"] = "cosine"
    rate: NonNegative = 2.0

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """Score by confidence; accept all or nothing."""
        threshold = self.low + (self.high - self.low) * self._remaining(revealed_share(state))
        return statistics.confidence, _all_if_sure(statistics, state, threshold)

    def _remaining(self, progress: Tensor) -> Tensor:
        """The part of the way from high to low that is still ahead, 1 at the start."""
        if self.schedule == "linear":
            return 1 - progress
        if self.schedule == "cosine":
            return (1 + (math.pi * progress).cos()) / 2
        return (-self.rate * progress).exp()


def _all_if_sure(statistics: TokenStatistics, state: DecodeState, threshold: Tensor) -> Tensor:
    """(B, W) bool: every candidate of the rows whose mean logit gap is >= `threshold` (B, 1)."""
    candidate = candidates(statistics, state)
    return candidate & (mean_of(logit_gap(statistics), candidate) >= threshold)
