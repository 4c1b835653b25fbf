"""Policies that take tokens back: a position that was revealed becomes a mask again."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tad_ext.ops import DecodeState, TokenStatistics
from tad_ext.settings import Count, Probability

from .base import MASKED_AGAIN, NamedPolicy
from .rows import candidates, columns_of, leading, remembered, remembered_columns, tokens_of, written


@dataclass(frozen=True)
class Saber(
    NamedPolicy,
    name="saber",
    rule="confidence > its mean at earlier reveals, at least so many; then what is shaken most is masked again",
    source="Saber, arXiv 2510.18165, its code",
):
    """Reveal what is more confident than tokens were when they were revealed, and mask some of the block's again.

    A forward reveals the k masks of the block whose confidence exceeds the mean confidence at which positions of the
    canvas were last revealed (1 at first); the `least` most confident ones, where these are fewer. Unless nothing is
    masked any more, it then masks max(`least` / 2, k / 8), rounded down and up, but at most k - 1, positions of the
    block again: those whose largest probability has grown the least, or fallen the most, since the forward before.

    Saber, arXiv 2510.18165, by its code, which decodes the whole canvas as one block. There, where fewer masks than
    `least` are left, a token somewhere is replaced as well.
    """

    least: Count = 2
    sees = "block"

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """Score by log-odds; accept what is above the mean, or the most confident ones."""
        entries, candidate = columns_of(state), candidates(statistics, state)
        revealed_at = remembered_columns(state, "saber.revealed_at")  # 0: never
        before = revealed_at[:, :-1].double()
        known = (before > 0).sum(dim=-1, keepdim=True)
        mean = torch.where(known > 0, before.sum(dim=-1, keepdim=True) / known.clamp(min=1), 1.0)
        sure = candidate & (statistics.confidence > mean)
        least = torch.full_like(known, self.least)
        most_confident = leading(statistics.log_odds, candidate, least)
        accept = torch.where(sure.sum(dim=-1, keepdim=True) >= self.least, sure, most_confident)
        revealed_at[entries] = torch.where(accept, statistics.confidence, revealed_at[entries])
        return statistics.log_odds, accept

    def revise(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """(B, W) int64: what entries are to hold; (B,) bool: no block stays open for its own sake."""
        entries, current = columns_of(state), tokens_of(state, self)
        last = remembered_columns(state, "saber.last")
        growth = statistics.confidence - last[entries]
        last[entries] = statistics.confidence
        holds_token = written(state)
        now = holds_token & state.eligible
        count = now.sum(dim=-1, keepdim=True)
        again = torch.maximum(torch.full_like(count, self.least // 2), (count + 7) // 8)
        again = torch.minimum(again, (count - 1).clamp(min=0))
        goes_on = (state.eligible & ~now).any(dim=-1, keepdim=True)
        taken = leading(-growth, holds_token & statistics.valid, again.where(goes_on, 0))
        return torch.where(taken, MASKED_AGAIN, current), torch.zeros_like(goes_on[:, 0])


@dataclass(frozen=True)
class Wino(
    NamedPolicy,
    name="wino",
    rule="confidence > threshold, up to a limit; tokens that all else makes less probable than keep are masked again",
    source="WINO, arXiv 2507.18578, its code",
):
    """Reveal what is likely, and mask again what no longer is, seen from everything else.

    A forward reveals the masks of the first unfinished block whose confidence > `threshold`, or the most confident one
    if there is none: of m masks 0.7 m at most, rounded down, but no fewer than 5 and no more than 20. It also says what
    is probable where the block has a token already, by masks behind the canvas that see everything but that token. If
    it reveals several positions, tokens of earlier forwards whose probability there is < `keep` are masked again, the
    least probable ones, but fewer than the forward before has revealed. So the number of masks before a forward, plus
    that of positions which the one before it has revealed, falls from one to the next, and a block is finished after as
    many forwards as it has positions, or earlier.

    WINO, arXiv 2507.18578, with the defaults and the limits of its code. There they are of a whole batch, which is of
    one prompt therefore; here of each row. There the mask may be chosen, and is left in the response then; here it may
    not. What is the rule's own stays: tokens are not asked about once their block has no mask, and what such a mask
    sees of other tokens has seen the one that it stands for, through all layers but the first.
    """

    threshold: Probability = 0.6
    keep: Probability = 0.9
    sees = "block"
    verifies: ClassVar[bool] = True

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """Score by log-odds; accept the most confident ones above the threshold."""
        sure = candidates(statistics, state) & (statistics.confidence > self.threshold)
        most = (7 * state.eligible.sum(dim=-1, keepdim=True) // 10).clamp(min=5, max=20)
        return statistics.log_odds, leading(statistics.log_odds, sure, most)

    def revise(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """(B, W) int64: what entries are to hold; (B,) bool: no block stays open for its own sake."""
        current, holds_token = tokens_of(state, self), written(state)
        count = (holds_token & state.eligible).sum(dim=-1, keepdim=True)
        last = remembered(state, "wino.count", 1)
        probability = statistics.query_probabilities[..., 0]
        doubted = holds_token & ~state.eligible & statistics.valid & (probability < self.keep)
        taken = leading(-probability, doubted, torch.where(count > 1, last - 1, 0))
        last.copy_(count)
        return torch.where(taken, MASKED_AGAIN, current), torch.zeros_like(count[:, 0], dtype=torch.bool)
