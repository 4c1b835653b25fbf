"""Rules that choose entries by their statistics, in PyTorch. `select_reveal` has them inside its kernel."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn.functional import pad

from .types import DecodeState, TokenStatistics

Rule = Literal["topk", "confidence", "factor", "margin", "entropy", "entropy-budget"]


class Selection(NamedTuple):
    """A rule and its parameter.

    Entries of a row that are padding or have no valid statistics are never accepted. The others are ranked by score,
    the highest first, ties by entry; n is an entry's rank, from 1.

    | rule | score | accepted |
    | --- | --- | --- |
    | topk | confidence | n <= value |
    | confidence | confidence | confidence >= value |
    | factor | confidence | n = 1, or confidence >= 1 - value / (n + 1) |
    | margin | margin | margin >= value |
    | entropy | -entropy | entropy < value |
    | entropy-budget | -entropy | the entropies before it sum to at most value |
    """

    rule: Rule
    value: float


def best_first(score: Tensor, candidate: Tensor) -> Tensor:
    """(B, W) int64: the entries of each row from the best-scored candidate down, ties by position, others last."""
    return score.masked_fill(~candidate, -torch.inf).argsort(dim=-1, descending=True, stable=True)


def in_place(order: Tensor, accept: Tensor) -> Tensor:
    """`accept`, given in the order `order`, at the entries it is about."""
    return torch.zeros_like(accept).scatter(-1, order, accept)


def select(statistics: TokenStatistics, state: DecodeState, selection: Selection) -> tuple[Tensor, Tensor]:
    """What a selection says, in the form of a policy's answer: (score, accept), (B, W) each."""
    rule, value = selection
    candidate = state.eligible & statistics.valid
    if rule == "confidence":
        return statistics.confidence, candidate & (statistics.confidence >= value)
    if rule == "margin":
        return statistics.margin, candidate & (statistics.margin >= value)
    if rule == "entropy":
        return -statistics.entropy, candidate & (statistics.entropy < value)
    if rule not in get_args(Rule):
        raise ValueError(f"rule is {rule!r}, expected one of {', '.join(get_args(Rule))}")
    score = -statistics.entropy if rule == "entropy-budget" else statistics.confidence
    order = best_first(score, candidate)
    rank = torch.arange(1, order.shape[-1] + 1, dtype=torch.float64, device=order.device).expand(order.shape)
    if rule == "topk":
        accept = rank <= value
    elif rule == "factor":
        accept = (statistics.confidence.gather(-1, order) >= 1 - value / (rank + 1)) | (rank == 1)
    else:
        total = statistics.entropy.gather(-1, order).double().cumsum(dim=-1)
        accept = pad(total, (1, 0))[..., :-1] <= value
    return score, in_place(order, accept) & candidate
