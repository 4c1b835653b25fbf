"""Dream's own decoding orders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from tad_ext.ops import DecodeState, TokenStatistics, margin_log_odds
from tad_ext.settings import Between

from .base import NamedPolicy
from .rows import candidates, leading, noise
from .time_schedule import next_step, times

Order = Literal["maskgit_plus", "topk_margin", "entropy"]


@dataclass(frozen=True)
class DreamOrder(
    NamedPolicy,
    name="dream",
    rule="as many positions as the step's time says, in the order of confidence, margin or entropy, or at random",
    source="Dream 7B, arXiv 2508.15487",
):
    """Reveal, in a fixed number of steps, as many positions as Dream's schedule says (`time_schedule.py`).

    Which: for `maskgit_plus` those of the highest confidence, for `topk_margin` of the largest margin, for `entropy` of
    the lowest entropy, ties to the lowest position. For `origin` every mask by itself with the step's probability
    1 - s / t, as often as it takes to hit one; its random numbers are of the row's seed.

    Dream 7B, arXiv 2508.15487, and its code, whose default is `origin`. `steps` is what its callers choose; 0 stands
    for the length of the canvas. Dream decodes the canvas as one block. Confidences are those of temperature 1; Dream's
    own are of the tempered and truncated distribution, which makes no difference to a greedy decode.
    """

    order: Literal["origin", Order] = "origin"
    steps: Annotated[int, Between(0, 2**20)] = 0
    sees = "masks"

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """Score and accept by the order."""
        steps, candidate = self.steps or state.reveal_step.shape[1], candidates(statistics, state)
        if self.order == "origin":
            when = _step_of_each(state, steps)
            return -when.float(), candidate & (when == when.masked_fill(~candidate, steps).amin(-1, keepdim=True))
        score = score_of(self.order, statistics)
        _, _, count = next_step(state, "dream", steps)
        return score, leading(score, candidate, count)


def score_of(order: Order, statistics: TokenStatistics) -> Tensor:
    """(B, W): what an order goes by, the highest first."""
    if order == "maskgit_plus":
        return statistics.log_odds
    return margin_log_odds(statistics) if order == "topk_margin" else -statistics.entropy


def _step_of_each(state: DecodeState, steps: int) -> Tensor:
    """(B, W) int64: the step that reveals each position, by its one random number.

    After the step from t to s a position is still masked with probability s: the product of all s / t so far. So it is
    if its number is at most s, and the first step for which it is not reveals it.
    """
    number = noise(state, step=0)
    until = times(steps, number.device)[1:-1].double().flip(0).contiguous()  # ascending; the last step takes all
    return steps - 1 - torch.searchsorted(until, number.contiguous())
