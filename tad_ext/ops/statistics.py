"""The few numbers about each logits row that every decoding policy chooses by, from one read of the row."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .fake import register_fake
from .types import TokenStatistics


def token_statistics(
    logits: Tensor,
    *,
    rows: Tensor | None = None,
    temperature: float = 0.0,
    suppress_tokens: Tensor | None = None,
    query_tokens: Tensor | None = None,
    seeds: Tensor | None = None,
    offsets: Tensor | None = None,
) -> TokenStatistics:
    """Token, confidence, runner-up, margin, entropy and logsumexp of each row.

    Probabilities and entropy are over the whole vocabulary at temperature 1; suppressed tokens keep theirs, they are
    only never chosen. Log-odds and entropies keep their digits however sure a row is: they are sums over the tokens
    beside the largest logit, with s = sum of exp(x_i - x_max) over these, p = 1 / (1 + s), log-odds = -log(s) and
    entropy = log(1 + s) + sum of exp(x_i - x_max) (x_max - x_i) / (1 + s).

    Ties go to the lowest index. A row that is all -inf has confidence 0, log-odds -inf, entropy inf and the lowest
    allowed token; a row with NaN or +inf has valid False, confidence 0 and some allowed token. Not differentiable.

    Args:
        logits: (..., V) float32, bfloat16, float16 or float64.
        rows: int64 of any shape, indices of the flattened rows; -1 is padding (valid False). Default: every row.
        temperature: 0 chooses the most probable token; above, a sample of softmax(logits / temperature), by Gumbel
            noise from Philox4x32-10, a function of (seed, offset, vocabulary index) alone.
        suppress_tokens: int64 ids that are never chosen (the mask token, ids without a token).
        query_tokens: int64 (..., K) or (K,), ids whose logits are returned as well.
        seeds, offsets: int64, broadcastable to the rows; expected where temperature > 0. `pack_offsets(step, position)`
            makes offsets.

    Returns:
        TokenStatistics, each field in the shape of `rows` (or of `logits` without its last dimension).

    Raises:
        ValueError, TypeError: wrong shapes, dtypes, devices, values or indices, naming the argument.
        NotImplementedError: a tangent in the logits, of forward-mode differentiation.
    """
    return TokenStatistics(
        *torch.ops.tad_ext.token_statistics(
            logits, rows, float(temperature), suppress_tokens, query_tokens, seeds, offsets
        )
    )


@register_fake("token_statistics")
def _(
    logits: Tensor, rows: Tensor | None, temperature: float, suppress: Tensor | None, queries: Tensor | None, *rest: Any
) -> tuple[Tensor, ...]:
    shape = logits.shape[:-1] if rows is None else rows.shape
    query_logits = logits.new_empty((*shape, 0 if queries is None else queries.shape[-1]))
    return *empty_statistics(logits, shape), query_logits


def empty_statistics(like: Tensor, shape: torch.Size) -> list[Tensor]:
    """For fake kernels: token to valid, in the order of `TokenStatistics`."""
    integer, real = torch.int64, torch.float32
    dtypes = (integer, real, real, integer, integer, real, real, real, real, torch.bool)
    return [like.new_empty(shape, dtype=dtype) for dtype in dtypes]
