"""Policies that go by the number of the step: LLaDA's and Dream's own decoding, and Fast-dLLM's of Dream with a cache.

Dream's time goes from 1 to EPSILON in equal steps. The step from t to s reveals the share 1 - s / t of the masks that
are left, rounded down, and the last step all of them. Dream 7B, arXiv 2508.15487, whose code this follows to the last
bit, with one difference: a step that reveals nothing changes nothing, and is left out.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from tad_ext.ops import DecodeState, TokenStatistics, margin_log_odds
from tad_ext.settings import Probability

from .base import NamedPolicy, Steps
from .rows import block_clock, candidates, first_block, in_first_block, leading, noise, remembered

EPSILON = 1e-3
Order = Literal["maskgit_plus", "topk_margin", "entropy"]


@dataclass(frozen=True)
class LLaDASteps(
    NamedPolicy,
    name="llada",
    rule="as many of the most confident positions as the step has to reveal; a block's steps share its masks evenly",
    source="LLaDA, arXiv 2502.09992",
):
    """Reveal the canvas in `steps` steps, the same number for each block: its masks divided by them.

    Where that leaves a remainder, a block's first steps reveal one more each. The most confident positions are
    revealed, ties to the lowest, or, with `remasking` `random`, random ones, by the row's seed. `ends` `last` ranks
    positions whose token is an end of sequence behind all others (the code's confidence_eos_eot_inf).

    LLaDA, arXiv 2502.09992, and its code, with its defaults. `steps` 0 stands for the length of the canvas, one
    position per step. Steps that would reveal nothing are left out.
    """

    steps: Steps = 0
    remasking: Literal["low_confidence", "random"] = "low_confidence"
    ends: Literal["ranked", "last"] = "ranked"

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """Score by confidence or at random; accept the step's share."""
        score = statistics.log_odds
        if self.remasking == "random":
            score = noise(state, step=state.forwards[:, None] + 1).float()
        for end in state.end_token_ids if self.ends == "last" else ():
            score = score.masked_fill(statistics.token == end, -torch.inf)
        _, count = llada_step(state, "llada", self.steps)
        return score, leading(score, candidates(statistics, state), count)


def llada_step(state: DecodeState, name: str, steps: int) -> tuple[Tensor, Tensor]:
    """The number of this forward's step, from 0 over all blocks, and how many positions it reveals: (B, 1) int64 each.

    `steps` are those of the canvas, 0 as many as it has positions.
    """
    length = state.reveal_step.shape[1]
    in_block = max((steps or length) * state.block_length // length, 1)
    step, masks = block_clock(state, name)
    count = masks // in_block + (step < masks % in_block)
    return first_block(state) * in_block + step, count.clamp(min=1)


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

    Dream 7B, arXiv 2508.15487, and its code, whose default is `origin`. `steps` 0 stands for the length of the canvas,
    which Dream decodes as one block. Confidences are those of temperature 1; Dream's own are of the tempered and
    truncated distribution, which makes no difference to a greedy decode.
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
        _, _, count = dream_step(state, "dream", steps)
        return score, leading(score, candidate, count)


def score_of(order: Order, statistics: TokenStatistics) -> Tensor:
    """(B, W): what an order goes by, the highest first."""
    if order == "maskgit_plus":
        return statistics.log_odds
    return margin_log_odds(statistics) if order == "topk_margin" else -statistics.entropy


def times(steps: int, device: torch.device) -> Tensor:
    """(steps + 1,) float32: the times between which the steps go."""
    return torch.linspace(1, EPSILON, steps + 1, device=device)


def dream_step(state: DecodeState, name: str, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of the steps that this forward stands for, (B, 1) int64 each: the first, from 0; the last, which is the first one
    that reveals something; and how many it reveals. For policies that see all masks.
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


def _step_of_each(state: DecodeState, steps: int) -> Tensor:
    """(B, W) int64: the step that reveals each position, by its one random number.

    After the step from t to s a position is still masked with probability s: the product of all s / t so far. So it is
    if its number is at most s, and the first step for which it is not reveals it.
    """
    number = noise(state, step=0)
    until = times(steps, number.device)[1:-1].double().flip(0).contiguous()  # ascending; the last step takes all
    return steps - 1 - torch.searchsorted(until, number.contiguous())


@dataclass(frozen=True)
class FastDLLMDream(
    NamedPolicy,
    name="fast-dllm-dream",
    rule="a block's first position alone in its first forward; then confidence >= threshold",
    source="Fast-dLLM, arXiv 2505.22618, its code for Dream with a cache",
):
    """Reveal a block's first position, and nothing else, in the block's first forward; then as `ConfidenceThreshold`.

    Fast-dLLM's code does so for Dream with a cache: a block's first position is predicted from the column before it,
    which only the block's first forward computes. Goes with `PrefixCacheAtBlock` and `DualCacheAtBlock`.
    """

    threshold: Probability = 0.9
    opens_blocks: ClassVar[bool] = True

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """Score by log-odds; accept the first position, or from the threshold up."""
        step, _ = block_clock(state, "fast-dllm-dream")
        opening = in_first_block(state) & (state.positions % state.block_length == 0)
        first = (step == 0) & opening.any(dim=-1, keepdim=True)
        accept = torch.where(first, opening, statistics.confidence >= self.threshold)
        return statistics.log_odds, candidates(statistics, state) & accept
