"""The most probable tokens of each row, for samples of these alone."""

from __future__ import annotations

import torch
from torch import Tensor

from .fake import register_fake


def truncate_logits(logits: Tensor, *, temperature: float, top_k: int | None = None, top_p: float = 1.0) -> Tensor:
    """The logits, -inf but for the `top_k` largest, and of these but for the fewest that together have `top_p`.

    The probabilities are those at `temperature` among the `top_k`. A token that ties with the last one taken stays.
    A row with NaN or +inf has no probabilities, and stays as `top_k` leaves it; where the last of `top_k` is NaN, that
    is as it is. Nucleus sampling: Holtzman et al., arXiv 1904.09751.

    Nothing is sorted, and nothing waits for the device. Results have the same bits at any batch size and number of
    threads, and run after run. Not differentiable.

    Args:
        logits: (..., V) float32, bfloat16, float16 or float64; computed in float32 (float64 for float64).
        temperature: a finite number > 0.
        top_k: at least 1; ties with the last one count as one. None: all.
        top_p: in (0, 1]. Where probabilities add up to it within rounding, either side of it may be meant.

    Returns:
        (..., V), in the dtype of the logits.

    Raises:
        ValueError, TypeError: a wrong dtype, shape or value, naming the argument.
    """
    return torch.ops.tad_ext.truncate_logits(logits, float(temperature), top_k, float(top_p))


@register_fake("truncate_logits")
def _(logits: Tensor, temperature: float, top_k: int | None, top_p: float) -> Tensor:
    return logits.new_empty(logits.shape)
