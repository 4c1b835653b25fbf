"""Policies that decode by a schedule until the model is sure enough of all, and then reveal everything.

Both compare the mean gap between the logits of the two best tokens, in nats, with a threshold that falls with progress,
the number of the step over a fixed number of steps. Everything means every mask, also of blocks not created yet.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from tad_ext.ops import DecodeState, TokenStatistics
from tad_ext.settings import NonNegative

from .base import NamedPolicy, Steps
from .by_step import Order, dream_step, llada_step, score_of
from .rows import candidates, columns_of, leading, remembered_columns


@dataclass(frozen=True)
class Prophet(
    NamedPolicy,
    name="prophet",
    rule="everything once the mean top-2 logit gap >= early, mid or late (progress < 0.33, < 0.67, later)",
    source="Prophet, arXiv 2508.19982",
):
    """Reveal everything once the mean logit gap of the answer reaches a threshold that falls in two steps.

    Until then a block's steps share its masks as LLaDA's do, the most confident first. The threshold, in nats, is
    `early` while the progress, the number of the step (from 1) over `steps`, is < 0.33, `mid` while it is < 0.67, and
    `late` from there on. The gap is the mean over `length` columns of the canvas from `start` on, whether masked or
    revealed; `length` 0 stands for all from there on.

    Prophet, arXiv 2508.19982, and its code, with its thresholds. A template fixes where the answer stands; the default
    here is the whole canvas. `steps` 0 stands for the length of the canvas.
    """

    early: NonNegative = 7.5
    mid: NonNegative = 5.0
    late: NonNegative = 2.5
    start: Steps = 0
    length: Steps = 0
    steps: Steps = 0
    sees = "canvas"
    creates_all_blocks: ClassVar[bool] = True

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """Score by log-odds; accept the step's share, or all."""
        length = state.reveal_step.shape[1]
        end = self.start + self.length if self.length else length
        inside = (state.positions >= self.start) & (state.positions < end)  # no padding is
        # Of steps that are left out the last counts, whose threshold, that of the next block's first, is the lowest.
        step, count = llada_step(state, "prophet", self.steps)
        progress = (step + 1).double() / (self.steps or length)
        threshold = torch.where(progress < 0.33, self.early, torch.where(progress < 0.67, self.mid, self.late))
        sure = _mean_of(statistics.gap, inside & statistics.valid) >= threshold
        return _best_or_everything(statistics, state, statistics.log_odds, count, sure)


@dataclass(frozen=True)
class SchED(
    NamedPolicy,
    name="sched",
    rule="everything once the mean top-2 logit gap >= a schedule from high to low over progress, if no guess changed",
    source="SchED, arXiv 2512.02892",
):
    """Reveal everything once the mean logit gap of the masks reaches a threshold that falls smoothly.

    No mask's best token may have changed since the step before, either. Until then Dream's schedule (`by_step.py`) says
    how many positions are revealed, in one of Dream's orders. With progress p, the number of the step (from 0) over
    steps - 1, the threshold in nats is

        linear    high + (low - high) p
        cosine    low + (high - low) (1 + cos(pi p)) / 2
        exp       low + (high - low) exp(-rate p)

    SchED, arXiv 2512.02892, and its code, with its defaults. The masks are those of the whole canvas. A step that
    reveals nothing is one with the next that does, whose threshold counts. `steps` 0 stands for the canvas's length.
    """

    high: NonNegative = 7.5
    low: NonNegative = 2.5
    schedule: Literal["cosine", "linear", "exp"] = "cosine"
    rate: NonNegative = 4.0
    steps: Steps = 0
    order: Order = "entropy"
    sees = "masks"
    creates_all_blocks: ClassVar[bool] = True

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """Score by the order; accept the step's share, or all."""
        steps = self.steps or state.reveal_step.shape[1]
        first, last, count = dream_step(state, "sched", steps)
        guesses, entries = remembered_columns(state, "sched.guess", dtype=torch.int64), columns_of(state)
        guess = statistics.top_token + 1  # 0: none yet
        changed = (state.present & (guesses[entries] != guess)).any(dim=-1, keepdim=True)
        guesses[entries] = guess
        # Where steps are left out, the guesses are the same in all but the first of them.
        progress = last.double() / max(steps - 1, 1)
        threshold = self.low + (self.high - self.low) * self._remaining(progress)
        gap = _mean_of(statistics.gap, state.present & statistics.valid)
        sure = (gap >= threshold) & (~changed | (last > first))
        return _best_or_everything(statistics, state, score_of(self.order, statistics), count, sure)

    def _remaining(self, progress: Tensor) -> Tensor:
        """The part of the way from high to low that is still ahead, 1 at the start."""
        if self.schedule == "linear":
            return 1 - progress
        if self.schedule == "cosine":
            return (1 + (math.pi * progress).cos()) / 2
        return (-self.rate * progress).exp()


def _mean_of(value: Tensor, entries: Tensor) -> Tensor:
    """(B, 1) float64: the mean over some entries of each row, 0 where there is none."""
    total = value.double().masked_fill(~entries, 0.0).sum(dim=-1, keepdim=True)
    return total / entries.sum(dim=-1, keepdim=True).clamp(min=1)


def _best_or_everything(
    statistics: TokenStatistics, state: DecodeState, score: Tensor, count: Tensor, sure: Tensor
) -> tuple[Tensor, Tensor]:
    """Score; accept the `count` best of each row, or, where it is `sure`, every mask, for which all blocks are made."""
    every = state.reveal_step.shape[1] // state.block_length
    state.blocks.copy_(torch.where(sure[:, 0], every, state.blocks))
    accept = leading(score, candidates(statistics, state), count)
    return score, accept | (sure & state.present & statistics.valid)
