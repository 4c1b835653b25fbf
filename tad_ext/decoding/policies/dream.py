"""Dream's own decoding: a schedule of how many positions each step reveals, and several orders of which.

Time goes from 1 to EPSILON in equal steps. The step from t to s reveals the share 1 - s / t of the masks that are left,
rounded down, and the last step all of them. Dream 7B, arXiv 2508.15487, whose code this follows to the last bit, with
one difference: a step that reveals nothing changes nothing, and is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tad_ext.ops import DecodeState, TokenStatistics, margin_log_odds

from .base import NamedPolicy, Steps
from .rows import candidates, leading, noise, remembered

EPSILON = 1e-3
Order = Literal["maskgit_plus", "topk_margin", "entropy"]


def times(steps: int, device: torch.device) -> Tensor:
    """(steps + 1,) float32: the times between which the steps go."""
    return torch.linspace(1, EPSILON, steps + 1, device=device)


def next_step(state: DecodeState, name: str, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """The steps that this forward stands for: (B, 1) int64 each. For policies that see all masks.

    Returns:
        The first of them, from 0; the last, which is the first one that reveals something; and how many it reveals.
    """
    memory = remembered(state, f"{name}.step", 1)
    first, masks = memory.clone(), state.present.sum(dim=-1, keepdim=True)
    time = times(steps, masks.device)
    counts = (masks * (1 - time[1:] / time[:-1])).to(torch.int64)  # (B, steps)
    counts[:, -1:] = masks
    step = torch.arange(steps, device=masks.device)
    last = ((counts > 0) & (step >= first)).int().argmax(dim=-1, keepdim=True).clamp(min=first)
    memory.copy_((last + 1).clamp(max=steps - 1))
    return first, last, counts.gather(1, last)


@dataclass(frozen=True)
class DreamOrder(
    NamedPolicy,
    name="dream",
    rule="as many positions as the step's time says, in the order of confidence, margin or entropy, or at random",
    source="Dream 7B, arXiv 2508.15487",
):
    """Reveal, in a fixed number of steps, as many positions as Dream's schedule says.

    Which: for `maskgit_plus` those of the highest confidence, for `topk_margin` of the largest margin, for `entropy` of
    the lowest entropy, ties to the lowest position. For `origin` every mask by itself with the step's probability
    1 - s / t, as often as it takes to hit one; its random numbers are of the row's seed.

    Dream 7B, arXiv 2508.15487, and its code, whose default is `origin`. `steps` is what its callers choose; 0 stands
    for the length of the canvas. Dream decodes the canvas as one block. Confidences are those of temperature 1; Dream's
    own are of the tempered and truncated distribution, which makes no difference to a greedy decode.
    """

    order: Literal["origin", Order] = "origin"
    steps: Steps = 0
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
