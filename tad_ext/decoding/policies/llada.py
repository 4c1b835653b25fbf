"""LLaDA's own decoding: a fixed number of steps, and which positions they leave masked again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tad_ext.ops import DecodeState, TokenStatistics

from .base import NamedPolicy, Steps
from .rows import block_clock, candidates, first_block, leading, noise


def next_step(state: DecodeState, name: str, steps: int) -> tuple[Tensor, Tensor]:
    """The number of this forward's step, from 0 over all blocks, and how many positions it reveals: (B, 1) int64 each.

    `steps` are those of the canvas, 0 as many as it has positions. Steps that would reveal nothing are left out.
    """
    length = state.reveal_step.shape[1]
    in_block = max((steps or length) * state.block_length // length, 1)
    step, masks = block_clock(state, name)
    count = masks // in_block + (step < masks % in_block)
    return first_block(state) * in_block + step, count.clamp(min=1)


@dataclass(frozen=True)
class LLaDASteps(
    NamedPolicy,
    name="llada",
    rule="as many of the most confident positions as the step has to reveal; a block's steps share its masks evenly",
    source="LLaDA, arXiv 2502.09992",
):
    """Reveal the canvas in `steps` steps, the same number for each block: its masks divided by them.

    Where that leaves a remainder, a block's first steps reveal one more each. The most confident positions are
    revealed, or, with `remasking` `random`, random ones, by numbers of the row's seed. `ends` `last` ranks positions
    whose token is an end of sequence behind all others (the code's confidence_eos_eot_inf).

    LLaDA, arXiv 2502.09992, and its code, with its defaults. `steps` 0 stands for the length of the canvas, one
    position per step; where there are more steps than positions, those without one are left out. Ties go to the lowest
    position.
    """

    steps: Steps = 0
    remasking: Literal["low_confidence", "random"] = "low_confidence"
    ends: Literal["ranked", "last"] = "ranked"

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """Score by confidence or at random; accept the step's share."""
        candidate = candidates(statistics, state)
        score = self._score(statistics, state)
        _, count = next_step(state, "llada", self.steps)
        return score, leading(score, candidate, count)

    def _score(self, statistics: TokenStatistics, state: DecodeState) -> Tensor:
        score = statistics.log_odds
        if self.remasking == "random":
            score = noise(state, step=state.forwards[:, None] + 1).float()
        for end in state.end_token_ids if self.ends == "last" else ():
            score = score.masked_fill(statistics.token == end, -torch.inf)
        return score
