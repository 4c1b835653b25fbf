"""Token statistics, truncation, log-softmax, unmasking, a copy, as they are timed. Losses are in losses.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tad_ext.ops import (
    DecodeState,
    Selection,
    commit_reveal,
    masked_log_softmax,
    pack_offsets,
    reference,
    select_reveal,
    token_statistics,
)

from ..stopwatch import Implementation
from . import eager, peers
from .work import Device, Workload, normal

THRESHOLD = 0.9


def statistics(
    rows: int, vocabulary: int, dtype: torch.dtype, device: Device = "cpu", *, temperature: float = 0.0,
    suppressed: int = 0,
) -> Workload:  # fmt: skip
    """Token, confidence and entropy of each row; tad_ext also gives runner-up, margin, logsumexp and validity.

    `suppressed`: the last so many ids may not be chosen, as a model's that have no token; what PyTorch does has no such
    rule, and is not timed beside it.
    """
    logits = normal(rows, vocabulary, torch.Generator(device).manual_seed(0), dtype)
    seeds = torch.arange(rows, device=device)
    offsets = pack_offsets(1, seeds)
    if suppressed:
        last = torch.arange(vocabulary - suppressed, vocabulary, device=device)
        own = {"tad_ext": lambda: token_statistics(logits, suppress_tokens=last)}
        return _unprepared(own, bytes=rows * vocabulary * dtype.itemsize)
    compiled = torch.compile(eager.statistics_float32)
    paths = {
        "float64 softmax": lambda: eager.statistics_float64(logits, temperature),
        "float32 log_softmax": lambda: eager.statistics_float32(logits, temperature),
        "that compiled": lambda: compiled(logits, temperature),
        "tad_ext": lambda: token_statistics(logits, temperature=temperature, seeds=seeds, offsets=offsets),
    }
    return _unprepared(paths, bytes=rows * vocabulary * dtype.itemsize)


def truncation(rows: int, vocabulary: int, dtype: torch.dtype, device: Device = "cpu", *, top_p: float) -> Workload:
    """What a nucleus of random logits leaves of each row: most of a large vocabulary goes, thousands of tokens stay."""
    from tad_ext.ops import truncate_logits  # versions to compare with may not have it

    logits = normal(rows, vocabulary, torch.Generator(device).manual_seed(0), dtype)
    compiled = torch.compile(reference.truncate_logits)
    paths = {
        "by sorting": lambda: reference.truncate_logits(logits, temperature=1.0, top_p=top_p),
        "that compiled": lambda: compiled(logits, temperature=1.0, top_p=top_p),
        "tad_ext": lambda: truncate_logits(logits, temperature=1.0, top_p=top_p),
    }
    return _unprepared(paths, bytes=2 * rows * vocabulary * dtype.itemsize)


def log_softmax(rows: int, vocabulary: int, dtype: torch.dtype, device: Device = "cpu", *, part: str) -> Workload:
    """Of every second row of `2 * rows`, named by a list. `part`: "forward" or "backward"."""
    generator = torch.Generator(device).manual_seed(0)
    logits = normal(2 * rows, vocabulary, generator, dtype).requires_grad_()
    upstream = normal(rows, vocabulary, generator, dtype)
    chosen = torch.arange(0, 2 * rows, 2, device=device)
    compiled = torch.compile(eager.log_softmax_rows)

    def implementation(leaf: Tensor, function: Callable[[Tensor], Tensor]) -> Implementation:
        output: list[Tensor] = []

        def forget() -> None:
            output.clear()
            leaf.grad = None

        def forward() -> Tensor:
            forget()
            output.append(function(leaf))
            return output[0]

        def backward() -> Tensor | None:
            output.pop().backward(upstream)
            return leaf.grad

        if part == "forward":
            return Implementation(forward, forget=forget)
        return Implementation(backward, forward, forget)

    paths = {
        "eager": implementation(logits, lambda logits: eager.log_softmax_rows(logits, chosen)),
        "torch.compile": implementation(logits, lambda logits: compiled(logits, chosen)),
        "tad_ext": implementation(logits, lambda logits: masked_log_softmax(logits, rows=chosen)),
    }
    for name, softmax in peers.softmaxes(logits).items():
        paths[name] = implementation(logits.detach()[chosen].requires_grad_(), softmax)
    row_passes = {"forward": 2 * rows, "backward": 4 * rows}[part]
    return Workload(paths, bytes=row_passes * vocabulary * dtype.itemsize)


def unmask(
    batch: int, gen_length: int, block_length: int, vocabulary: int, dtype: torch.dtype, device: Device = "cpu", *,
    from_logits: bool = True,
) -> Workload:  # fmt: skip
    """One decoding step on fresh canvases: the statistics of the first block, the threshold policy, and the reveal;
    without `from_logits` the reveal alone. Half of the positions are confident.
    """
    mask_token_id = vocabulary - 1
    suppressed = torch.tensor([mask_token_id], device=device)
    logits = normal(batch * block_length, vocabulary, torch.Generator(device).manual_seed(0), dtype)
    logits[::2, 7] = 40.0
    logits = logits.view(batch, block_length, vocabulary)
    canvas = torch.empty(batch, gen_length, dtype=torch.int64, device=device)
    state = DecodeState.start(batch, gen_length, block_length=block_length, device=device)
    state.positions = state.positions.contiguous()
    selection = Selection("confidence", THRESHOLD)
    known = token_statistics(logits, suppress_tokens=suppressed)
    accept = known.confidence >= THRESHOLD

    def restore() -> None:
        canvas.fill_(mask_token_id)
        state.blocks.fill_(1)
        for counter in (state.reveal_step, state.forwards, state.done):
            counter.zero_()

    def implementation(step: Callable[[], Any]) -> Implementation:
        def run() -> Tensor:
            step()
            return canvas

        return Implementation(run, restore)

    def eager_step(statistics_of: Callable[..., Any], reveal: Callable[..., Tensor]) -> Implementation:
        def step() -> None:
            token, confidence = statistics_of(logits)[:2] if from_logits else (known.token, known.confidence)
            counters = (state.reveal_step, state.forwards, state.done)
            reveal(canvas, *counters, state.positions, token, confidence, THRESHOLD, mask_token_id)

        return implementation(step)

    def fused_step() -> None:
        select_reveal(canvas, logits, state, selection, mask_token_id=mask_token_id, suppress_tokens=suppressed)

    def fused_reveal() -> None:
        counters = (state.reveal_step, state.forwards, state.blocks, state.done)
        chosen = (state.positions, known.token, known.confidence, accept)
        commit_reveal(canvas, *counters, *chosen, block_length=block_length, mask_token_id=mask_token_id)

    functions = (eager.statistics_float32, eager.reveal_in_block)
    paths = {
        "eager": eager_step(*functions),
        "torch.compile": eager_step(*map(torch.compile, functions)),
        "tad_ext": implementation(fused_step if from_logits else fused_reveal),
    }
    # Canvas and step read and written; the four inputs.
    reveal_bytes = batch * block_length * (2 * (8 + 8) + 8 + 8 + 4 + 1)
    return Workload(paths, bytes=reveal_bytes + (logits.numel() * dtype.itemsize if from_logits else 0))


def copy(elements: int, device: Device = "cpu") -> Workload:
    """A copy of so many float32 numbers: the memory bandwidth that everything else is measured against."""
    source = torch.randn(elements, device=device)
    target = torch.empty_like(source)
    return _unprepared({"copy": lambda: target.copy_(source)}, bytes=2 * elements * 4)


def _unprepared(paths: dict[str, Callable[[], Any]], bytes: int) -> Workload:
    return Workload({name: Implementation(run) for name, run in paths.items()}, bytes)
