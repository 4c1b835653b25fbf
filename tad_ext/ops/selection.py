"""Rules that choose entries by their statistics, in PyTorch. `select_reveal` has them inside its kernel."""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn.functional import pad

from .types import DecodeState, TokenStatistics

Rule = Literal["topk", "confidence", "factor", "factor-code", "margin", "entropy", "entropy-budget"]


class Selection(NamedTuple):
    """A rule and its parameter.

    Entries of a row that are padding or have no valid statistics are never accepted. The others are ranked by score,
    the highest first, ties by entry; n is an entry's rank, from 1. Log-odds rank as confidence and margin would if
    float32 could tell apart what is nearly 1.

    | rule | score | accepted |
    | --- | --- | --- |
    | topk | log-odds of the confidence | n <= value |
    | confidence | log-odds of the confidence | confidence >= value |
    | factor | log-odds of the confidence | n = 1, or confidence >= 1 - value / (n + 1) |
    | factor-code | log-odds of the confidence | the same, but the last of all ranks with the one before it |
    | margin | log-odds of the margin | margin >= value |
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


def margin_log_odds(statistics: TokenStatistics) -> Tensor:
    """log(m / (1 - m)) of the margins m, (B, W) float32, in nats.

    Beyond 17 nats m is 1 in float32. Near 1 they are therefore taken from the gap and the odds against the token, which
    is the best one where its probability is at least m > 1/2.
    """
    margin = statistics.margin.double()
    second = (-statistics.gap.double()).exp()  # relative to the best
    near_one = (1 - second) / ((-statistics.log_odds.double()).exp() + second)
    use = (margin > 0.5) & (statistics.confidence >= statistics.margin)
    return torch.where(use, near_one, margin / (1 - margin)).log().float()


def select(statistics: TokenStatistics, state: DecodeState, selection: Selection) -> tuple[Tensor, Tensor]:
    """What a selection says, in the form of a policy's answer: (score, accept), (B, W) each."""
    rule, value = selection
    candidate = state.eligible & statistics.valid
    if rule == "confidence":
        return statistics.log_odds, candidate & (statistics.confidence >= value)
    if rule == "margin":
        return margin_log_odds(statistics), candidate & (statistics.margin >= value)
    if rule == "entropy":
        return -statistics.entropy, candidate & (statistics.entropy < value)
    if rule not in get_args(Rule):
        raise ValueError(f"rule is {rule!r}, expected one of {', '.join(get_args(Rule))}")
    score = -statistics.entropy if rule == "entropy-budget" else statistics.log_odds
    order = best_first(score, candidate)
    rank = torch.arange(1, order.shape[-1] + 1, dtype=torch.float64, device=order.device).expand(order.shape)
    if rule == "topk":
        accept = rank <= value
    elif rule in ("factor", "factor-code"):
        accept = (statistics.confidence.gather(-1, order) >= 1 - value / (rank + 1)) | (rank == 1)
        if rule == "factor-code":
            last = (rank > 1) & (rank == candidate.sum(dim=-1, keepdim=True))
            accept = torch.where(last, accept.roll(1, dims=-1), accept)
    else:
        total = statistics.entropy.gather(-1, order).double().cumsum(dim=-1)
        accept = pad(total, (1, 0))[..., :-1] <= value
    return score, in_place(order, accept) & candidate
