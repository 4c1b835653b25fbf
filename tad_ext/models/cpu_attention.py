"""Attention in bfloat16 on a CPU, as three matrix products, by oneDNN.

PyTorch's attention on a CPU multiplies bfloat16 at the speed of float32. Matrix products of bfloat16 are two to four
times as fast, where the processor has them. Their sums are float32 if their inputs are, and then may not be more exact
than bfloat16's: so scores and probabilities stay in float32 until they meet the values, as in PyTorch's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_MOST_SCORES = 2**22  # of a head, 16 MiB; of more, PyTorch's attention never holds them all
_SCORES_AT_A_TIME = 2**18  # 1 MiB, which stays in a core's cache


def cpu_attention_fits(query: Tensor, key: Tensor, dropout: float) -> bool:
    """Whether `cpu_attention` takes these, (B, H, Q, D) and (B, G, L, D), and is worth it."""
    return (
        query.device.type == "cpu"
        and query.dtype == key.dtype == torch.bfloat16
        and query.shape[2] * key.shape[2] <= _MOST_SCORES
        and not dropout
        and not torch.compiler.is_compiling()
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def cpu_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, scaling: float, **_: Any
) -> tuple[Tensor, None]:
    """softmax(query key^T * scaling) value, (B, Q, H, D), differentiable once, as transformers calls attention.

    Args:
        module: unused.
        query: bfloat16 (B, H, Q, D).
        key, value: bfloat16 (B, G, L, D); G divides H, and each serves the H / G heads that follow one another.
        mask: bool (B, 1, Q, L), True where a query attends to a key, at least once for every query. None: everywhere.
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (heads.repeat_interleave(groups, dim=1) for heads in (key, value))
    attended: Tensor = _Attention.apply(query, key, value, mask, scaling)
    return attended.transpose(1, 2), None


class _Attention(torch.autograd.Function):
    """Some heads at a time. The backward pass makes their probabilities anew, so that none are kept."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
        ctx.save_for_backward(query, key, value, mask)
        ctx.scaling = scaling
        attended = torch.empty_like(query)
        with _products_of_bfloat16():
            for heads, of_row in _pieces(query, key, mask):
                probabilities = _probabilities(query[heads], key[heads], of_row, scaling)
                attended[heads] = probabilities.bfloat16() @ value[heads]
        return attended

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, mask = ctx.saved_tensors
        of_query, of_key, of_value = (torch.empty_like(states) for states in (query, key, value))
        with _products_of_bfloat16():
            for heads, of_row in _pieces(query, key, mask):
                probabilities = _probabilities(query[heads], key[heads], of_row, ctx.scaling)
                gradient = gradients[0][heads]
                of_value[heads] = probabilities.bfloat16().mT @ gradient
                of_scores = gradient.float() @ value[heads].float().mT
                of_scores = torch._softmax_backward_data(of_scores, probabilities, -1, torch.float32)
                scaled = of_scores.mul_(ctx.scaling).bfloat16()
                of_query[heads] = scaled @ key[heads]
                of_key[heads] = scaled.mT @ query[heads]
        return of_query, of_key, of_value, None, None


def _probabilities(query: Tensor, key: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
    """Of some heads, (h, Q, D) and (h, L, D), with one mask (1, Q, L): float32 (h, Q, L)."""
    scores = (query.float() @ key.float().mT).mul_(scaling)
    if mask is not None:
        scores.masked_fill_(~mask, -torch.inf)
    return scores.softmax(-1)


def _pieces(query: Tensor, key: Tensor, mask: Tensor | None) -> Iterator[tuple[tuple[int, slice], Tensor | None]]:
    """Some heads of one row at a time, and the row's mask."""
    at_a_time = max(1, _SCORES_AT_A_TIME // max(1, query.shape[2] * key.shape[2]))
    for row in range(query.shape[0]):
        for first in range(0, query.shape[1], at_a_time):
            yield (row, slice(first, first + at_a_time)), None if mask is None else mask[row]


@contextmanager
def _products_of_bfloat16() -> Iterator[None]:
    """Products of float32 are computed from their inputs rounded to bfloat16, which these here already are."""
    backends: Any = torch.backends  # which types do not know as far as this
    products = backends.mkldnn.matmul
    before = products.fp32_precision
    with torch.autocast("cpu", enabled=False):
        products.fp32_precision = "bf16"
        try:
            yield
        finally:
            products.fp32_precision = before
