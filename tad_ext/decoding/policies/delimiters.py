"""Policies that say themselves where a block ends, by what the model is about to write."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tad_ext.ops import DecodeState, TokenStatistics
from tad_ext.settings import Count, Index, Probability

from .base import NamedPolicy
from .rows import candidates, first_position, is_one_of, leading, remembered


@dataclass(frozen=True)
class AdaBlock(
    NamedPolicy,
    name="adablock",
    rule="confidence >= threshold, in blocks that end at the most confident delimiter ahead",
    source="AdaBlock-dLLM, arXiv 2509.26432",
):
    """Reveal what is confident within a block of its own, which ends with a delimiter, such as the end of a line.

    The forward in which a block begins decides where it ends: at the most confident of the positions ahead whose token
    is one of `delimiters`, if its confidence >= `delimiter_threshold`, and else after `block` positions. Ahead are the
    first `window` of the canvas from the block's beginning on, a share, rounded down to positions. Of the block every
    forward, that one too, reveals the positions of confidence >= `threshold`, or the most confident one if there is
    none.

    AdaBlock-dLLM, arXiv 2509.26432, with the defaults of its code for LLaDA, whose token 198 is "\\n". The schedule's
    block is to be the whole canvas, as in the presets: no delimiter is seen behind the blocks that are created. For
    Dream its code has another threshold and a list of tokens with a line's end, the preset `adablock-dream`. With
    another tokenizer, name the tokens that end its lines: `tokenizer.encode("\\n", add_special_tokens=False)`, and
    "\\n\\n" where that is one of its own.
    """

    threshold: Probability = 0.9
    delimiter_threshold: Probability = 0.3
    delimiters: tuple[Index, ...] = (198,)
    block: Count = 32
    window: Probability = 0.25

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """Score by log-odds, within the block alone; accept from the threshold up."""
        inside = candidates(statistics, state) & (state.positions < self._end(statistics, state))
        score = statistics.log_odds.masked_fill(~inside, -torch.inf)
        return score, inside & (statistics.confidence >= self.threshold)

    def _end(self, statistics: TokenStatistics, state: DecodeState) -> Tensor:
        """(B, 1) int64: the position behind each row's block, which is a new one where the last has no mask left."""
        start, end = first_position(state), remembered(state, "adablock.end", 1)
        ahead = state.positions < start + int(self.window * state.reveal_step.shape[1])
        is_delimiter = is_one_of(statistics.token, self.delimiters)
        known = candidates(statistics, state) & ahead & (statistics.confidence >= self.delimiter_threshold)
        best = leading(statistics.log_odds, known & is_delimiter, torch.ones_like(start))
        last = state.positions.masked_fill(~best, -1).amax(dim=-1, keepdim=True)
        new = torch.where(last >= 0, last + 1, start + self.block)
        return end.copy_(torch.where(start < end, end, new))
