"""What the next forward and the host need to know of canvases: eligible positions, and how far each is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .fake import register_fake


def eligible_positions(
    canvas: Tensor, blocks: Tensor, positions: Tensor, *, block_length: int, mask_token_id: int
) -> Tensor:
    """Eligible positions of every canvas, and counts.

    Args:
        canvas: (B, G) int64.
        blocks: (B,) int64, created blocks.
        positions: (B, G) int64; written: the masked columns of created blocks, ascending, -1 behind the last.

    Returns:
        (B, 3) int64: the first block with a mask (0 where none has), masks in created blocks, all masks.
    """
    return torch.ops.tad_ext.eligible_positions(canvas, blocks, positions, block_length, mask_token_id)


@register_fake("eligible_positions")
def _(canvas: Tensor, *_: Any) -> Tensor:
    return canvas.new_empty(canvas.shape[0], 3)
