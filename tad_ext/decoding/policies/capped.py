"""Policies that reveal what is confident, up to a number, and forbid an early end."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tad_ext.ops import DecodeState, TokenStatistics
from tad_ext.settings import Count, Probability

from .base import NamedPolicy
from .rows import candidates, in_first_block, leading


@dataclass(frozen=True)
class ConfidenceAdaptive(
    NamedPolicy,
    name="cad",
    rule="confidence >= threshold, at most so many; no end of sequence until a share of the canvas is revealed",
    source="CD4LM, arXiv 2601.02236",
):
    """Reveal the k most confident positions of the first unfinished block, k as many as have confidence >= `threshold`.

    But at least one, and at most `most`. Until `share` of the canvas is revealed, ends of sequence are impossible, also
    for the confidences of other tokens.

    Confidence-adaptive decoding of CD4LM, arXiv 2601.02236, with the defaults of its code.
    """

    threshold: Probability = 0.95
    most: Count = 4
    share: Probability = 0.5

    def prepare(self, logits: Tensor, state: DecodeState) -> Tensor:
        """Take ends of sequence out of the logits (B * W, V) of rows that have revealed too little."""
        if not state.end_token_ids or self.share == 0:
            return logits
        length = state.reveal_step.shape[1]
        early = (state.reveal_step > 0).sum(dim=-1, keepdim=True) < self.share * length
        forbidden = early.expand(state.positions.shape).reshape(-1)
        logits = logits.clone()
        for end in state.end_token_ids:
            logits[:, end] = logits[:, end].masked_fill(forbidden, -torch.inf)
        return logits

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """Score by log-odds; accept the most confident ones."""
        candidate = candidates(statistics, state) & in_first_block(state)
        sure = candidate & (statistics.confidence >= self.threshold)
        count = sure.sum(dim=-1, keepdim=True).clamp(min=1, max=self.most)
        return statistics.log_odds, leading(statistics.log_odds, candidate, count)
