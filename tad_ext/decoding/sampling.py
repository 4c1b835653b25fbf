"""Tokens for the eligible positions: the most probable ones, or samples; and what is known about each."""

from __future__ import annotations

import torch
from torch import Tensor

from tad_ext.ops import DecodeState, TokenStatistics, pack_offsets, token_statistics

from .batch import DecodingBatch


class Sampler:
    """Chooses tokens as the settings say."""

    def __init__(self, batch: DecodingBatch) -> None:
        self.batch, self.config = batch, batch.config
        self.suppressed = torch.tensor(batch.tokens.suppressed, device=batch.device)
        self.ends = torch.tensor(batch.tokens.end, dtype=torch.int64, device=batch.device)

    def __call__(self, logits: Tensor, state: DecodeState) -> TokenStatistics:
        """Statistics of the entries `state.positions`, (B, W) each, and their tokens.

        `logits` are (B * W, V). End-of-sequence tokens before `min_length` have no part in any of it.
        """
        config = self.config
        entries = torch.arange(state.positions.numel(), device=logits.device).view_as(state.positions)
        rows = entries.masked_fill(~state.eligible, -1)
        if config.min_length and len(self.ends):
            early = (state.positions < config.min_length).flatten()[:, None]
            logits = logits.index_copy(1, self.ends, logits[:, self.ends].masked_fill(early, -torch.inf))
        if config.temperature == 0:
            return token_statistics(logits, rows=rows, suppress_tokens=self.suppressed)
        if config.top_k is None and config.top_p == 1:
            return self._sample(logits, rows, state)
        statistics = token_statistics(logits, rows=rows, suppress_tokens=self.suppressed)
        allowed = logits.index_fill(1, self.suppressed, -torch.inf)
        token = self._sample(truncated(allowed, config.temperature, config.top_k, config.top_p), rows, state).token
        chosen = logits.float().gather(1, token.view(-1, 1)).view(token.shape)
        confidence = (chosen - statistics.logsumexp).exp().masked_fill(~statistics.valid, 0)
        confidence = confidence.nan_to_num(nan=0.0)  # where nothing is possible
        return statistics._replace(token=token, confidence=confidence)

    def _sample(self, logits: Tensor, rows: Tensor, state: DecodeState) -> TokenStatistics:
        # The noise depends on the row's seed, the forward that may reveal the token and its place in the canvas only.
        return token_statistics(
            logits,
            rows=rows,
            temperature=self.config.temperature,
            suppress_tokens=self.suppressed,
            seeds=self.batch.seeds[: len(rows), None],
            offsets=pack_offsets(state.forwards[:, None] + 1, state.positions),
        )


def truncated(logits: Tensor, temperature: float, top_k: int | None, top_p: float) -> Tensor:
    """(N, V) logits, -inf but for the `top_k` largest, and of these but for the fewest that together have `top_p`.

    The probabilities are those at `temperature` among the `top_k`. A token that ties with the last one taken stays.
    Nucleus sampling: Holtzman et al., arXiv 1904.09751.
    """
    if top_k is not None and top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(top_k, dim=-1).values[:, -1:], -torch.inf)
    if top_p < 1:
        ordered = logits.sort(dim=-1, descending=True).values
        p = (ordered.float() / temperature).softmax(-1)
        before = p.cumsum(-1) - p  # what those above it have together
        least = ordered.masked_fill(before >= top_p, torch.inf).amin(-1, keepdim=True)
        logits = logits.masked_fill(logits < least, -torch.inf)
    return logits
