"""log softmax at chosen rows, without the copies of gathering them first."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .checks import FLOATS, check_between, check_devices, check_dtype, check_fits, check_logits, check_range, expect
from .library import operator, register_fake


def _check_mask(logits: Tensor, mask: Tensor, rows: Tensor | None) -> None:
    """A mask that chooses among the logits' rows, alone."""
    if rows is not None:
        raise ValueError("mask and rows are both given, expected one of them")
    if mask.dtype != torch.bool:
        raise TypeError(f"mask has dtype {mask.dtype}, expected torch.bool")
    if mask.shape != logits.shape[:-1]:
        raise ValueError(f"mask has shape {tuple(mask.shape)}, expected {tuple(logits.shape[:-1])} like the logits")


def _check(call: Any) -> None:
    logits, rows = call.logits, call.rows
    if call.mask is not None:
        _check_mask(logits, call.mask, rows)
    check_devices(vars(call))
    check_logits(logits, "logits")
    check_between(1e-6, call.temperature, 1e6, "temperature")
    if rows is not None:
        check_dtype(rows, "rows", torch.int64)
        check_fits(rows.dim() == 1, rows, "rows", "(N,)")
        check_range(rows, "rows", 0, logits.shape[:-1].numel(), "rows of logits")
    expect(call.dtype is None or call.dtype in FLOATS, f"dtype is {call.dtype}, expected a float", TypeError)


@operator(_check)
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
        _check_mask(logits, mask, rows)
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
