"""Writing one forward's chosen tokens to the canvases and advancing the block schedule, on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .fake import register_fake
from .types import ForcedProgress


def commit_reveal(
    canvas: Tensor,
    reveal_step: Tensor,
    forwards: Tensor,
    blocks: Tensor,
    done: Tensor,
    positions: Tensor,
    tokens: Tensor,
    score: Tensor,
    accept: Tensor,
    *,
    top_tokens: Tensor | None = None,
    block_length: int,
    block_add_threshold: float = 1.0,
    decoded_token_threshold: float = 1.0,
    forced_progress: ForcedProgress = "row",
    mask_token_id: int,
    eos_token_ids: Sequence[int] = (),
) -> Tensor:
    """Write one forward's accepted tokens to the canvases and advance counters, blocks and done flags, all in place.

    Per row that is not done:

    1. `forwards` is counted up; it is the step number of this forward's reveals.
    2. Every eligible accepted entry is revealed. Eligible: its position is masked and lies in a created block.
    3. Where too little is accepted, the best-scored entries are revealed as well (ties and NaN: lowest position), so
       every forward makes progress. By `forced_progress`:

       * "row": if no entry of the row is accepted, the row's best; and then, if the first fully active block that has
         eligible entries got none, its best, with its top token (TAD; d3LLM's code for LLaDA);
       * "block": the second half of that alone, with its token (d3LLM's code for Dream);
       * "blocks": the best of every fully active block that got none (D2F).

       A block is fully active when it is the first, or when the revealed share of its predecessor, before this forward,
       is at least `decoded_token_threshold`. Where `positions` lists all masks of the created blocks, the first such
       block is simply the first unfinished one, whatever the threshold: it matters to "blocks" alone. With one block at
       a time all three are the same.
    4. With `eos_token_ids`: the first end-of-sequence token revealed fills all later positions, with this step.
    5. One block is created if the newest one's revealed share is at least `block_add_threshold`, or it is complete;
       and all up to the first one that holds a mask.
    6. A row is done when its canvas holds no mask.

    Args:
        canvas: (B, G) int64, the generation region; written.
        reveal_step: (B, G) int64; written.
        forwards, blocks: (B,) int64; written.
        done: (B,) bool; written.
        positions: (B, W) int64, the canvas column of each entry, each at most once in a row, -1 for padding.
        tokens: (B, W) int64, never the mask token.
        score: (B, W) float32.
        accept: (B, W) bool.
        top_tokens: (B, W) int64, the most probable tokens, where `tokens` are samples; never the mask token. Default:
            `tokens`.
        eos_token_ids: at most 16.

    Returns:
        (B, W) bool: the entries that were revealed.
    """
    return torch.ops.tad_ext.commit_reveal(
        canvas,
        reveal_step,
        forwards,
        blocks,
        done,
        positions,
        tokens,
        tokens if top_tokens is None else top_tokens,
        score,
        accept,
        block_length,
        block_add_threshold,
        decoded_token_threshold,
        forced_progress,
        mask_token_id,
        list(eos_token_ids),
    )


@register_fake("commit_reveal")
def _(*arguments: Any) -> Tensor:
    accept = arguments[9]
    return torch.empty_like(accept, memory_format=torch.contiguous_format)
