"""Tokens for the eligible positions: the most probable ones, or samples; and what is known about each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tad_ext.ops import DecodeState, TokenStatistics, pack_offsets, token_statistics, truncate_logits

from .batch import DecodingBatch


class Sampler:
    """Chooses tokens as the settings say."""

    def __init__(self, batch: DecodingBatch) -> None:
        self.batch, self.config = batch, batch.config
        self.suppressed = torch.tensor(batch.tokens.suppressed, device=batch.device)
        self.ends = torch.tensor(batch.tokens.end, dtype=torch.int64, device=batch.device)
        # Whether `token_statistics` with `arguments` is all there is to it.
        self.plain = self.config.temperature == 0 or (self.config.top_k is None and self.config.top_p == 1)

    def allowed(self, logits: Tensor, state: DecodeState) -> Tensor:
        """`logits`, (B * W, V), without end-of-sequence tokens before `min_length`."""
        if not (self.config.min_length and len(self.ends)):
            return logits
        early = (state.positions < self.config.min_length).flatten()[:, None]
        return logits.index_copy(1, self.ends, logits[:, self.ends].masked_fill(early, -torch.inf))

    def arguments(self, state: DecodeState) -> dict[str, Any]:
        """Of `token_statistics`, and of `select_reveal`."""
        if self.config.temperature == 0:
            return {"suppress_tokens": self.suppressed}
        # The noise depends on the row's seed, the forward that may reveal the token and its place in the canvas only.
        return {
            "suppress_tokens": self.suppressed,
            "temperature": self.config.temperature,
            "seeds": self.batch.seeds[: len(state.positions), None],
            "offsets": pack_offsets(state.forwards[:, None] + 1, state.positions),
        }

    def __call__(self, logits: Tensor, state: DecodeState) -> TokenStatistics:
        """Statistics of the entries `state.positions`, (B, W) each, and their tokens, from what is `allowed`."""
        config = self.config
        entries = torch.arange(state.positions.numel(), device=logits.device).view_as(state.positions)
        rows = entries.masked_fill(~state.present, -1)
        if self.plain:
            return token_statistics(logits, rows=rows, **self.arguments(state))
        statistics = token_statistics(logits, rows=rows, suppress_tokens=self.suppressed)
        allowed = logits.index_fill(1, self.suppressed, -torch.inf)
        likely = truncate_logits(allowed, temperature=config.temperature, top_k=config.top_k, top_p=config.top_p)
        token = token_statistics(likely, rows=rows, **self.arguments(state)).token
        chosen = logits.gather(1, token.view(-1, 1)).float().view(token.shape)
        confidence = (chosen - statistics.logsumexp).exp().masked_fill(~statistics.valid, 0)
        confidence = confidence.nan_to_num(nan=0.0)  # where nothing is possible
        return statistics._replace(token=token, confidence=confidence)
