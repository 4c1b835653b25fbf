"""From one read of each logits row: the few numbers that policies choose by; and its most probable tokens."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .checks import Call, expect, values_may_be_read
from .library import empty, operator, register_fakes
from .types import TokenStatistics


def check_statistics(call: Call, shape: Sequence[int], *, ascending: bool) -> None:
    """What every call that takes statistics checks."""
    vocabulary, suppress = call.logits.shape[-1], call.suppress_tokens
    call.check("temperature", 0 <= call.temperature < math.inf, "a finite number >= 0")
    call.check_range("suppress_tokens", 0, vocabulary, "the vocabulary")
    if suppress is not None and values_may_be_read(suppress):
        in_order = not ascending or bool((suppress.reshape(-1).diff() >= 0).all())
        expect(in_order, "suppress_tokens are not in ascending order")
        expect(suppress.unique().numel() < vocabulary, f"suppress_tokens names all {vocabulary} tokens, expected fewer")
    if call.temperature > 0:
        for name in ("seeds", "offsets"):
            call.check(name, getattr(call, name) is not None, f"int64 because temperature is {call.temperature:g}")
            call.check_dtype(name, torch.int64)
            call.check_expandable(name, shape)


def _check(call: Call) -> None:
    logits, rows, queries = call.logits, call.rows, call.query_tokens
    call.check_range("rows", -1, logits.shape[:-1].numel(), "rows of logits, -1 for padding")
    shape = logits.shape[:-1] if rows is None else rows.shape
    check_statistics(call, shape, ascending=False)
    if queries is not None:
        call.check("query_tokens", queries.dim() >= 1, "(..., K)")
        call.check_expandable("query_tokens", [*shape, queries.shape[-1]])
        call.check_range("query_tokens", 0, logits.shape[-1], "the vocabulary")


@operator(_check)
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
    found = torch.ops.tad_ext.token_statistics(
        logits, rows, float(temperature), suppress_tokens, query_tokens, seeds, offsets
    )
    return TokenStatistics(*found)


def _check_truncation(call: Call) -> None:
    call.check("temperature", 0 < call.temperature < math.inf, "a finite number > 0")
    call.check("top_k", call.top_k is None or call.top_k >= 1, "an integer >= 1, or none")
    call.check("top_p", 0 < call.top_p <= 1, "0 < value <= 1")


@operator(_check_truncation)
def truncate_logits(logits: Tensor, *, temperature: float, top_k: int | None = None, top_p: float = 1.0) -> Tensor:
    """The logits, -inf but for the `top_k` largest, and of these but for the fewest that together have `top_p`.

    The probabilities are those at `temperature` among the `top_k`. A token that ties with the last one taken stays.
    A row with NaN or +inf has no probabilities, and stays as `top_k` leaves it; where the last of `top_k` is NaN, that
    is as it is. Nucleus sampling: Holtzman et al., arXiv 1904.09751. Not differentiable.

    Nothing is sorted, nothing waits for the device. The same bits at any batch size and number of threads.

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


def empty_statistics(like: Tensor, shape: torch.Size) -> list[Tensor]:
    """For fake kernels: token to valid, in the order of `TokenStatistics`."""
    integer, real = torch.int64, torch.float32
    dtypes = (integer, real, real, integer, integer, real, real, real, real, torch.bool)
    return [like.new_empty(shape, dtype=dtype) for dtype in dtypes]


def _fake_statistics(call: Call) -> list[Tensor]:
    logits, queries = call.logits, call.query_tokens
    shape = logits.shape[:-1] if call.rows is None else call.rows.shape
    return [*empty_statistics(logits, shape), logits.new_empty((*shape, 0 if queries is None else queries.shape[-1]))]


register_fakes(token_statistics=_fake_statistics, truncate_logits=lambda call: empty(call.logits))
