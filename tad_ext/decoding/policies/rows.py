"""Arithmetic on rows of entries that the policies share: tensors of shape (B, W), one row per sequence.

Nothing here reads a value on the host or lets one row touch another. Sums are taken in float64, so that their last bits
do not depend on the width W, which neighbours in a batch decide.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tad_ext.ops import DecodeState, TokenStatistics, best_first, in_place

# The difference of two float32 probabilities near 1 is a multiple of this.
SMALLEST_DIFFERENCE = 2.0**-24


def candidates(statistics: TokenStatistics, state: DecodeState) -> Tensor:
    """(B, W) bool: entries that may be revealed; neither padding nor without statistics."""
    return state.eligible & statistics.valid


def best_of_each(group: Tensor, score: Tensor, candidate: Tensor) -> Tensor:
    """(B, W) bool: the best-scored candidate of each group (int64 numbers) of a row, ties to the lowest position."""
    order = best_first(score, candidate)
    order = order.gather(-1, group.gather(-1, order).argsort(dim=-1, stable=True))
    number = group.gather(-1, order)
    first = torch.ones_like(candidate)
    first[..., 1:] = number[..., 1:] != number[..., :-1]
    return in_place(order, first) & candidate


def mean_of(value: Tensor, candidate: Tensor) -> Tensor:
    """(B, 1) float64: the mean over each row's candidates, 0 where there is none."""
    total = value.double().masked_fill(~candidate, 0.0).sum(dim=-1, keepdim=True)
    return total / candidate.sum(dim=-1, keepdim=True).clamp(min=1)


def revealed_share(state: DecodeState) -> Tensor:
    """(B, 1) float64 in [0, 1]: the share of the `gen_length` columns that decoding revealed, so without given ones."""
    return (state.reveal_step > 0).double().mean(dim=-1, keepdim=True)


def logit_gap(statistics: TokenStatistics) -> Tensor:
    """(B, W) float32, nats: the gap log p1 - log p2 between the logits of the two best tokens.

    The statistics hold the margin m = p1 - p2 and the confidence c, the probability of the chosen token. Decoding
    greedily that token is the best one: p1 = c, p2 = c - m, up to float32's resolution of 2^-24, which caps the gap at
    16.6 nats. When sampling, a chosen token may be

    * the second best (its id says so): p1 = c + m, p2 = c;
    * none of the two, seen by c < m: of all p1, p2 with this margin, p1 + p2 = 1 has the smallest gap, which is used;
    * none of the two with c >= m, which cannot be told from the best token and is taken for it. Since
      c + p1 + p2 <= 1, such a c is at most (1 - m) / 3: a position of that little confidence may count too much.
    """
    chosen, margin = statistics.confidence, statistics.margin
    second = statistics.token == statistics.second_token
    neither = ~second & (chosen < margin)
    best = torch.where(second, chosen + margin, torch.where(neither, (1 + margin) / 2, chosen))
    runner_up = torch.where(second, chosen, best - margin)
    return best.clamp(min=SMALLEST_DIFFERENCE).log() - runner_up.clamp(min=SMALLEST_DIFFERENCE).log()


def remembered(state: DecodeState, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The memory `name` of a policy, (B, gen_length + 1, *shape), zeros at first.

    One entry per canvas column; the last one takes what is written for padding and means nothing.
    """
    if name not in state.memory:
        rows, columns = state.reveal_step.shape
        memory = torch.zeros(rows, columns + 1, *shape, dtype=dtype, device=state.reveal_step.device)
        state.memory[name] = memory
    return state.memory[name]


def columns_of(state: DecodeState) -> tuple[Tensor, Tensor]:
    """The index of the entries in what is remembered: `memory[columns_of(state)]` is (B, W, *shape)."""
    rows = torch.arange(state.positions.shape[0], device=state.positions.device)
    return rows[:, None], torch.where(state.eligible, state.positions, state.reveal_step.shape[1])


def needs_prepare(state: DecodeState, name: str, policy: object) -> None:
    """RuntimeError if the memory that `policy.prepare` makes is not there."""
    if name not in state.memory:
        raise RuntimeError(
            f"policy {policy}: prepare(logits, state) must be called before the policy, in every forward"
        )
