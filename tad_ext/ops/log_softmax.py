"""log softmax at chosen rows, without the copies of gathering them first."""

import torch
from torch import Tensor

from .checks import FLOATS, Call
from .library import empty, operator, register_fakes
from .types import compute_dtype


def _check_mask(logits: Tensor, mask: Tensor, rows: Tensor | None) -> None:
    """A mask that chooses among the logits' rows, alone."""
    if rows is not None:
        raise ValueError("mask and rows are both given, expected one of them")
    if mask.dtype != torch.bool:
        raise TypeError(f"mask has dtype {mask.dtype}, expected torch.bool")
    if mask.shape != logits.shape[:-1]:
        raise ValueError(f"mask has shape {tuple(mask.shape)}, expected {tuple(logits.shape[:-1])} like the logits")


def _check(call: Call) -> None:
    if call.mask is not None:
        _check_mask(call.logits, call.mask, call.rows)
    call.check("temperature", 1e-6 <= call.temperature <= 1e6, "1e-6 <= value <= 1e6")
    if call.rows is not None:
        call.check("rows", call.rows.dim() == 1, "(N,)")
        call.check_range("rows", 0, call.logits.shape[:-1].numel(), "rows of logits")
    call.check("dtype", call.dtype is None or call.dtype in FLOATS, "a float", TypeError)


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


def _fake(call: Call) -> tuple[Tensor, Tensor]:
    logits, vocabulary = call.logits, call.logits.shape[-1]
    count = logits.numel() // vocabulary if call.rows is None else call.rows.shape[0]
    normalizers = logits.new_empty((count, 2), dtype=compute_dtype(logits))
    return logits.new_empty((count, vocabulary), dtype=call.dtype), normalizers


register_fakes(masked_log_softmax=_fake, masked_log_softmax_backward=lambda call: empty(call.logits))
