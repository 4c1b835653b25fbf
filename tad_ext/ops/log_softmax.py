"""log softmax at chosen rows, without the copies of gathering them first."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .fake import register_fake


def masked_log_softmax(
    logits: Tensor,
    mask: Tensor | None = None,
    *,
    rows: Tensor | None = None,
    temperature: float = 1.0,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """`log_softmax(logits[mask] / temperature, -1)`: (N, V), differentiable once, in reverse mode.

    Args:
        logits: (..., V) float32, bfloat16, float16 or float64; computed in float32 (float64 for float64).
        mask: (...) bool, the rows wanted, in order. On a GPU finding them is a synchronisation; `rows` has none.
        rows: (N,) int64, indices of the flattened rows, in any order; rows named twice add their gradients.
            Without `mask` and `rows`: every row.
        temperature: from 1e-6 to 1e6.
        dtype: of the result; default that of the logits.

    Raises:
        ValueError, TypeError: both `mask` and `rows`, wrong shapes, dtypes, devices or indices, naming the argument.
        NotImplementedError: a tangent in the logits, of forward-mode differentiation.
    """
    if mask is not None:
        if rows is not None:
            raise ValueError("mask and rows are both given, expected one of them")
        if mask.dtype != torch.bool:
            raise TypeError(f"mask has dtype {mask.dtype}, expected torch.bool")
        if mask.shape != logits.shape[:-1]:
            raise ValueError(f"mask has shape {tuple(mask.shape)}, expected {tuple(logits.shape[:-1])} like the logits")
        rows = mask.reshape(-1).nonzero()[:, 0]
    return torch.ops.tad_ext.masked_log_softmax(logits, rows, temperature, dtype or logits.dtype)[0]


@register_fake("masked_log_softmax")
def _(logits: Tensor, rows: Tensor | None, temperature: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    vocabulary = logits.shape[-1]
    count = logits.numel() // vocabulary if rows is None else rows.shape[0]
    real = torch.float64 if logits.dtype == torch.float64 else torch.float32
    return logits.new_empty((count, vocabulary), dtype=dtype), logits.new_empty((count, 2), dtype=real)


@register_fake("masked_log_softmax_backward")
def _(grad: Tensor, logits: Tensor, *rest: Any) -> Tensor:
    return logits.new_empty(logits.shape)
