"""Policies that take tokens back: a position that was revealed becomes a mask again."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tad_ext.ops import DecodeState, TokenStatistics
from tad_ext.settings import Count

from .base import MASKED_AGAIN, NamedPolicy
from .rows import candidates, columns_of, leading, remembered_columns, tokens_of, written


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
        known = written(state)
        now = known & state.eligible
        count = now.sum(dim=-1, keepdim=True)
        again = torch.maximum(torch.full_like(count, self.least // 2), (count + 7) // 8)
        again = torch.minimum(again, (count - 1).clamp(min=0))
        goes_on = (state.eligible & ~now).any(dim=-1, keepdim=True)
        taken = leading(-growth, known & statistics.valid, again.where(goes_on, 0))
        return torch.where(taken, MASKED_AGAIN, current), torch.zeros_like(goes_on[:, 0])
