"""A forward's statistics, the choice by them, and the reveals in one operator, without a step in between."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .fake import register_fake
from .selection import Selection
from .statistics import empty_statistics
from .types import DecodeState, TokenStatistics


def select_reveal(
    canvas: Tensor,
    logits: Tensor,
    state: DecodeState,
    selection: Selection,
    *,
    mask_token_id: int,
    suppress_tokens: Tensor,
    temperature: float = 0.0,
    seeds: Tensor | None = None,
    offsets: Tensor | None = None,
) -> tuple[TokenStatistics, Tensor]:
    """Statistics, selection and reveals of one forward, in place on `canvas` and `state`: two launches on a GPU.

    The same as `token_statistics`, `select` and `commit_reveal` one after the other, up to the last bit of the sums of
    entropies that a budget is compared with.

    Args:
        canvas: (B, G) int64, the generation region; written.
        logits: (B * W, V) or (B, W, V), of the entries `state.positions`; those of padding are not read.
        state: counters, block schedule and positions; its tensors are updated.
        selection: which entries are accepted.
        suppress_tokens: int64 ids that are never chosen, ascending, the mask token among them.
        temperature, seeds, offsets: as in `token_statistics`; seeds and offsets broadcastable to (B, W).

    Returns:
        The statistics, (B, W) each, without query logits; and (B, W) bool, the entries that were revealed.

    Raises:
        ValueError, TypeError: as the three functions, naming the argument.
    """
    *statistics, revealed = torch.ops.tad_ext.select_reveal(
        canvas,
        *state.tensors,
        logits,
        selection.rule,
        float(selection.value),
        float(temperature),
        suppress_tokens,
        seeds,
        offsets,
        state.block_length,
        state.block_add_threshold,
        state.decoded_token_threshold,
        state.forced_progress,
        mask_token_id,
        list(state.eos_token_ids),
    )
    no_queries = logits.new_empty((*revealed.shape, 0))
    return TokenStatistics._make([*statistics, no_queries]), revealed


@register_fake("select_reveal")
def _(*arguments: Any) -> tuple[Tensor, ...]:
    positions = arguments[5]
    return *empty_statistics(positions, positions.shape), positions.new_empty(positions.shape, dtype=torch.bool)
