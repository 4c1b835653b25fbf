"""KLASS: sure, and no longer changing its mind."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tad_ext.ops import DecodeState, TokenStatistics
from tad_ext.settings import Count, NonNegative, Probability

from .base import NamedPolicy
from .rows import candidates, columns_of, needs_prepare, remembered_columns

# Keeps logarithms finite, as in the published code. Against a column's zeros before its first prediction it makes the
# divergence about log(1 / EPSILON) minus the entropy, far above any sensible bound: a first prediction is not stable.
EPSILON = 1e-12


@dataclass(frozen=True)
class KLASS(
    NamedPolicy,
    name="klass",
    rule="confidence > threshold, and KL(p_t || p_(t-1)) < divergence in the last few forwards",
    source="KLASS, arXiv 2511.05664",
):
    """Reveal every eligible position that is confident and whose prediction has stopped changing.

    Confident: confidence > `threshold`. Stable: in each of the last `forwards` forwards, the divergence
    KL(p_t || p_(t-1)) from the position's prediction one forward earlier was < `divergence` nats, and its block existed
    in all of them. Every mask of the canvas is watched from the first forward on, so a block that is created later has
    something to compare with in its own first forward.

    KLASS, arXiv 2511.05664, with its code's defaults; it tunes them per task (0.6 and 0.015 for LLaDA on GSM8K).
    Predictions are compared at temperature 1 without noise, also when sampling.

    The head computes logits for all masks of the canvas, not for those of created blocks alone. With a cache that
    leaves later blocks out, these are watched from their first forward on, which is one forward later.

    Memory: the last distribution of every canvas column, 4 (gen_length + 1) V bytes per row, 130 MB for LLaDA at
    gen_length 256. `prepare` needs, for the forward only, a few times the memory of the float32 logits.
    """

    threshold: Probability = 0.9
    divergence: NonNegative = 0.01
    forwards: Count = 2
    sees = "masks"

    def prepare(self, logits: Tensor, state: DecodeState) -> Tensor:
        """Look at the logits (B * W, V): count each column's stable forwards and keep its distribution."""
        entries = columns_of(state)
        last = remembered_columns(state, "klass.last", logits.shape[-1])
        stable = remembered_columns(state, "klass.stable", dtype=torch.int64)
        now = logits.softmax(dim=-1, dtype=torch.float32).unflatten(0, state.positions.shape)
        change = (now * ((now + EPSILON).log() - (last[entries] + EPSILON).log())).sum(dim=-1)
        stable[entries] = torch.where((change < self.divergence) & state.eligible, stable[entries] + 1, 0)
        last[entries] = now
        return logits

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """Score by log-odds; accept what is confident and stable."""
        needs_prepare(state, "klass.stable", self)
        stable = state.memory["klass.stable"][columns_of(state)] >= self.forwards
        return statistics.log_odds, candidates(statistics, state) & stable & (statistics.confidence > self.threshold)
