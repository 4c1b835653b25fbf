"""One forward of the model: logits of the positions that the policy sees, with or without a cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tad_ext.ops import DecodeState

from .batch import DecodingBatch, Plan


def logits_of(model: Any, batch: DecodingBatch, plan: Plan, state: DecodeState) -> Tensor:
    """(B * W, V): row b * W + w belongs to entry `state.positions[b, w]`."""
    config, device = batch.config, batch.device
    ids, starts = batch.input_ids[: plan.sequences, : plan.length], batch.starts[: plan.sequences]
    first = torch.arange(0, plan.sequences * plan.length, plan.length, device=device) + starts
    positions = torch.where(state.present, first[:, None] + state.positions, -1)
    # Columns of each sequence that it is to see.
    lengths = batch.ends[: plan.sequences] if plan.padded else None
    if lengths is not None and config.hide_future_blocks:
        lengths = torch.minimum(starts + state.blocks * config.block_length, lengths)
    if batch.cache is not None:
        return model.lm_head(_hidden(model, batch, plan, ids, lengths, positions))
    logits = model(ids, lengths=lengths, positions=positions.flatten()).logits
    if not config.guidance:
        return logits
    # Classifier-free guidance as LLaDA does it (arXiv 2502.09992): away from what it says without the prompt.
    prompt = torch.arange(plan.length, device=device) < starts[:, None]
    hidden_prompt = ids.masked_fill(prompt, batch.tokens.mask)
    without = model(hidden_prompt, lengths=lengths, positions=positions.flatten()).logits
    guided = without + (config.guidance + 1) * (logits - without)
    impossible = (logits == -torch.inf) | (without == -torch.inf)  # differences would be NaN
    return torch.where(impossible, logits, guided)


def _hidden(
    model: Any, batch: DecodingBatch, plan: Plan, ids: Tensor, lengths: Tensor | None, positions: Tensor
) -> Tensor:
    """(B * W, D), the hidden rows of `positions`, (B, W).

    Sequences that need it are computed as a whole, the others in their windows: two forwards where there are both. The
    windows' is over all sequences of the batch, which saves gathering keys and values; what it makes of the sequences
    that are computed as a whole is overwritten.
    """
    columns, whole = None, plan.whole
    if plan.bounds is not None:
        first, last = plan.bounds[:, 0, None], plan.bounds[:, 1, None]
        columns = torch.minimum(first + torch.arange(plan.window, device=ids.device), last)
    hidden = model.hidden_rows(ids, lengths=lengths, positions=positions.flatten(), cache=batch.cache, columns=columns)
    if whole is not None:
        shift = (torch.arange(len(whole), device=ids.device) - whole) * ids.shape[1]
        chosen = positions[whole]
        fresh = model.hidden_rows(
            ids[whole],
            lengths=None if lengths is None else lengths[whole],
            positions=torch.where(chosen < 0, -1, chosen + shift[:, None]).flatten(),
            cache=batch.cache,
            cache_rows=whole,
        )
        hidden.view(*positions.shape, -1).index_copy_(0, whole, fresh.view(*chosen.shape, -1))
    return hidden
