"""Tokens for the eligible positions: the most probable ones, or samples; and what is known about each."""

from __future__ import annotations

import torch
from torch import Tensor

from tad_ext.ops import TokenStatistics, pack_offsets, token_statistics

from .batch import DecodingBatch


def choose_tokens(logits: Tensor, batch: DecodingBatch, suppressed: Tensor) -> TokenStatistics:
    """Statistics of the entries `batch.state.positions`, (B, W) each, with the tokens that the settings choose.

    Args:
        logits: (B * W, V); end-of-sequence logits before `min_length` are overwritten.
        suppressed: (K,) int64 ids that are never chosen.
    """
    config, state, rows = batch.config, batch.state, batch.logits_rows()
    if config.min_length and batch.tokens.end:
        ends = torch.tensor(batch.tokens.end, device=logits.device)
        early = (state.positions < config.min_length).flatten()[:, None]
        logits[:, ends] = logits[:, ends].masked_fill(early, -torch.inf)
    if config.temperature == 0:
        return token_statistics(logits, rows=rows, suppress_tokens=suppressed)
    # The noise depends on the row's seed, the forward that may reveal the token and its place in the canvas only.
    seeds, offsets = batch.seeds[:, None], pack_offsets(state.forwards[:, None] + 1, state.positions)

    def sample(logits: Tensor) -> TokenStatistics:
        return token_statistics(
            logits,
            rows=rows,
            temperature=config.temperature,
            suppress_tokens=suppressed,
            seeds=seeds,
            offsets=offsets,
        )

    if config.top_k is None and config.top_p == 1:
        return sample(logits)
    statistics = token_statistics(logits, rows=rows, suppress_tokens=suppressed)
    allowed = logits.index_fill(1, suppressed, -torch.inf)
    token = sample(truncated(allowed, config.temperature, config.top_k, config.top_p)).token
    chosen = logits.float().gather(1, token.view(-1, 1)).view(token.shape)
    confidence = (chosen - statistics.logsumexp).exp().masked_fill(~statistics.valid, 0)
    return statistics._replace(token=token, confidence=confidence)


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
