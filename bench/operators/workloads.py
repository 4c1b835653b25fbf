"""Token statistics, truncation, log-softmax, unmasking, a copy, as they are timed. Losses are in losses.py."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tad_ext import ops

from ..stopwatch import Implementation, Workload
from . import eager, peers
from .loaders import by_other_loaders

THRESHOLD = 0.9


def copy(rows: int, vocabulary: int, dtype: torch.dtype) -> Workload:
    """A copy of logits: the memory bandwidth that everything else is measured against."""
    source = torch.randn(rows, vocabulary, dtype=dtype)
    target = torch.empty_like(source)
    return _unprepared({"copy": lambda: target.copy_(source)}, 2 * source.nbytes)


def statistics(
    rows: int, vocabulary: int, dtype: torch.dtype, *, temperature: float = 0.0, suppressed: int = 0
) -> Workload:
    """Token, confidence and entropy of each row; tad_ext also gives runner-up, margin, logsumexp and validity.

    The last `suppressed` ids may not be chosen, like a model's ids without a token. PyTorch's paths, which have no such
    rule, are not timed beside it.
    """
    logits = torch.randn(rows, vocabulary).to(dtype)
    if suppressed:
        last = torch.arange(vocabulary - suppressed, vocabulary)
        return _unprepared({"tad_ext": lambda: ops.token_statistics(logits, suppress_tokens=last)}, logits.nbytes)
    seeds = torch.arange(rows)
    offsets = ops.pack_offsets(1, seeds)
    compiled = eager.compiled(eager.statistics_float32)
    paths = {
        "tad_ext": lambda: ops.token_statistics(logits, temperature=temperature, seeds=seeds, offsets=offsets),
        "float64 softmax": lambda: eager.statistics_float64(logits, temperature),
        "float32 log_softmax": lambda: eager.statistics_float32(logits, temperature),
        "that compiled": lambda: compiled(logits, temperature),
    }
    return _unprepared(paths, logits.nbytes)


def truncation(rows: int, vocabulary: int, dtype: torch.dtype, *, top_p: float) -> Workload:
    """What a nucleus of random logits leaves of each row: most of a large vocabulary goes, thousands of tokens stay."""
    logits = torch.randn(rows, vocabulary).to(dtype)
    compiled = eager.compiled(ops.reference.truncate_logits)
    paths = {
        "tad_ext": lambda: ops.truncate_logits(logits, temperature=1.0, top_p=top_p),
        "by sorting": lambda: ops.reference.truncate_logits(logits, temperature=1.0, top_p=top_p),
        "that compiled": lambda: compiled(logits, temperature=1.0, top_p=top_p),
    }
    return _unprepared(paths, 2 * logits.nbytes)


def log_softmax(rows: int, positions: int, vocabulary: int, dtype: torch.dtype, *, part: str) -> Workload:
    """The "forward" or "backward" `part`, of `rows` evenly spaced ones of `positions`, which a list names."""
    logits, upstream = torch.randn(positions, vocabulary).to(dtype), torch.randn(rows, vocabulary).to(dtype)
    logits.requires_grad_()
    chosen = torch.arange(rows) * (positions // rows)
    compiled = eager.compiled(eager.log_softmax_rows)

    def implementation(function: Callable[[Tensor], Tensor], leaf: Tensor = logits) -> Implementation:
        if part == "forward":
            return Implementation(lambda: function(leaf))
        output: list[Tensor] = []

        def backward() -> Tensor:
            return torch.autograd.grad(output.pop(), leaf, upstream)[0]

        return Implementation(backward, lambda: output.append(function(leaf)))

    fused = implementation(lambda logits: ops.masked_log_softmax(logits, rows=chosen))
    paths = {
        "tad_ext": fused,
        **by_other_loaders(logits, fused),
        "eager": implementation(lambda logits: eager.log_softmax_rows(logits, chosen)),
        "torch.compile": implementation(lambda logits: compiled(logits, chosen)),
    }
    for name, softmax in peers.softmaxes(logits).items():
        paths[name] = implementation(softmax, logits.detach()[chosen].requires_grad_())
    # Forward: chosen rows read, results written. Backward: results and upstream read, the gradient written.
    row_passes = 2 * rows if part == "forward" else 2 * rows + positions
    return Workload(paths, row_passes * vocabulary * dtype.itemsize)


def unmask(
    batch: int, gen_length: int, block_length: int, vocabulary: int, dtype: torch.dtype, *, from_logits: bool = True
) -> Workload:
    """One decoding step on fresh canvases: the statistics of the first block, the threshold policy, and the reveal;
    without `from_logits` the reveal alone. Half of the positions are confident.
    """
    # 1. The canvases, and what a run changes.
    mask_token_id = vocabulary - 1
    suppressed = torch.tensor([mask_token_id])
    logits = torch.randn(batch, block_length, vocabulary).to(dtype)
    logits[:, ::2, 7] = 40.0
    logits[..., mask_token_id] = -40.0  # PyTorch's paths suppress nothing
    canvas = torch.empty(batch, gen_length, dtype=torch.int64)
    state = ops.DecodeState.start(batch, gen_length, block_length=block_length, device=canvas.device)
    positions = state.positions = state.positions.contiguous()

    def restore() -> None:
        canvas.fill_(mask_token_id)
        state.blocks.fill_(1)
        for counter in (state.reveal_step, state.forwards, state.done):
            counter.zero_()

    # 2. The steps; each returns the canvas.
    selection = ops.Selection("confidence", THRESHOLD)
    known = eager.statistics_float32(logits)[:2]
    accept = known[1] >= THRESHOLD

    def fused_step() -> Tensor:
        ops.select_reveal(canvas, logits, state, selection, mask_token_id=mask_token_id, suppress_tokens=suppressed)
        return canvas

    def fused_reveal() -> Tensor:
        counters = (state.reveal_step, state.forwards, state.blocks, state.done)
        chosen = (positions, *known, accept)
        ops.commit_reveal(canvas, *counters, *chosen, block_length=block_length, mask_token_id=mask_token_id)
        return canvas

    def eager_step(statistics_of: Callable[..., Any], reveal: Callable[..., Tensor]) -> Callable[[], Tensor]:
        def step() -> Tensor:
            chosen = statistics_of(logits)[:2] if from_logits else known
            counters = (state.reveal_step, state.forwards, state.done)
            reveal(canvas, *counters, positions, *chosen, THRESHOLD, mask_token_id)
            return canvas

        return step

    functions = (eager.statistics_float32, eager.reveal_in_block)
    paths = {
        "tad_ext": fused_step if from_logits else fused_reveal,
        "eager": eager_step(*functions),
        "torch.compile": eager_step(*map(eager.compiled, functions)),
    }
    # 3. Canvas and step read and written; the four inputs.
    reveal_bytes = batch * block_length * (2 * (8 + 8) + 8 + 8 + 4 + 1)
    implementations = {path: Implementation(step, restore) for path, step in paths.items()}
    return Workload(implementations, reveal_bytes + (logits.nbytes if from_logits else 0))


def _unprepared(paths: dict[str, Callable[[], Any]], bytes: int) -> Workload:
    return Workload({path: Implementation(run) for path, run in paths.items()}, bytes)
