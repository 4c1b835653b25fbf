"""The pieces of work that are timed, each with everyone who does it: tad_ext and its baselines on the same tensors.

Shared by the pytest benchmarks (CPU) and `bench/h200`. `bytes` is the least traffic the work could have: every input
read once, every output written once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import eager
import torch
from torch import Tensor

from tad_ext import (
    ConfidenceThreshold,
    DecodeState,
    commit_reveal,
    fused_linear_tad_loss,
    fused_tad_loss,
    masked_log_softmax,
    pack_offsets,
    token_statistics,
    unmask_step,
)

DELTA = 4
THRESHOLD = 0.9
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Implementation:
    """`run` is timed; `prepare`, where there is one, is called before every run and is not."""

    run: Callable[[], Any]
    prepare: Callable[[], Any] | None = None


@dataclass(frozen=True)
class Workload:
    """Every implementation but "tad_ext" is a baseline."""

    implementations: dict[str, Implementation]
    bytes: int
    forget: Callable[[], Any]  # lets go of what the last run left behind
    elements: int | None = None  # logits that the work is about; None where it is not bound by reading logits
    flops: int | None = None  # of the matrix products, where there are any


def tad_loss(
    rows: int,
    vocabulary: int,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    *,
    near: int = 1,
    distant: int = 7,
    positions: int | None = None,
) -> Workload:
    """Forward and backward; near : distant rows in this ratio. With `positions`: the logits are dense, of so many
    positions, and `rows` of them, evenly spaced, take part; the gradient is dense as well.
    """
    positions = rows if positions is None else positions
    generator = torch.Generator(device).manual_seed(0)
    student, teacher = (_normal(positions, vocabulary, generator, dtype) for _ in range(2))
    student.requires_grad_()
    labels = torch.randint(vocabulary, (positions,), generator=generator, device=device)
    near_rows = rows * near // (near + distant)
    steps = _steps(rows, near_rows, device)
    named = torch.arange(rows, device=device) * (positions // rows)
    dense_steps = torch.zeros(positions, dtype=torch.int64, device=device).index_copy(0, named, steps)
    only_named = {} if rows == positions else {"student_rows": named, "teacher_rows": named}
    named_labels = labels[named]
    compiled = torch.compile(eager.tad_loss)
    paths = {
        "eager": lambda: eager.tad_loss(student, teacher, labels, dense_steps, DELTA),
        "torch.compile": lambda: compiled(student, teacher, labels, dense_steps, DELTA),
        "tad_ext": lambda: fused_tad_loss(student, teacher, named_labels, steps, delta=DELTA, **only_named).loss,
    }
    row_passes = 2 * near_rows + 3 * (rows - near_rows) + (positions - rows)
    return Workload(
        {name: _training_step(student, loss) for name, loss in paths.items()},
        bytes=row_passes * vocabulary * dtype.itemsize,
        forget=partial(setattr, student, "grad", None),
        elements=rows * vocabulary,
    )


def linear_tad_loss(
    rows: int, hidden_size: int, vocabulary: int, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> Workload:
    """Forward and backward of the loss with the output head inside, which is frozen; one row in eight is near."""
    generator = torch.Generator(device).manual_seed(0)
    student, teacher = (_normal(rows, hidden_size, generator, dtype) for _ in range(2))
    student.requires_grad_()
    weight = _normal(vocabulary, hidden_size, generator, dtype) / hidden_size**0.5
    labels = torch.randint(vocabulary, (rows,), generator=generator, device=device)
    steps = _steps(rows, rows // 8, device)
    arguments = (student, teacher, weight, labels, steps)
    compiled = torch.compile(eager.linear_tad_loss)
    paths = {
        "eager": lambda: eager.linear_tad_loss(*arguments, DELTA),
        "torch.compile": lambda: compiled(*arguments, DELTA),
        "tad_ext": lambda: fused_linear_tad_loss(*arguments, delta=DELTA).loss,
    }
    products = 2 * rows + rows - rows // 8  # rows of student logits, input gradient, and teacher logits
    return Workload(
        {name: _training_step(student, loss) for name, loss in paths.items()},
        bytes=(weight.numel() + 3 * student.numel()) * dtype.itemsize,
        forget=partial(setattr, student, "grad", None),
        flops=2 * products * hidden_size * vocabulary,
    )


def statistics(
    rows: int,
    vocabulary: int,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    *,
    temperature: float = 0.0,
) -> Workload:
    """Token, confidence and entropy of each row; tad_ext also gives runner-up, margin, logsumexp and validity."""
    logits = _normal(rows, vocabulary, torch.Generator(device).manual_seed(0), dtype)
    seeds = torch.arange(rows, device=device)
    offsets = pack_offsets(1, seeds)
    compiled = torch.compile(eager.statistics_float32)
    paths = {
        "float64 softmax": lambda: eager.statistics_float64(logits, temperature),
        "float32 log_softmax": lambda: eager.statistics_float32(logits, temperature),
        "that compiled": lambda: compiled(logits, temperature),
        "tad_ext": lambda: token_statistics(logits, temperature=temperature, seeds=seeds, offsets=offsets),
    }
    return Workload(
        {name: Implementation(run) for name, run in paths.items()},
        bytes=rows * vocabulary * dtype.itemsize,
        forget=_nothing,
        elements=rows * vocabulary,
    )


def log_softmax(
    rows: int,
    vocabulary: int,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    *,
    part: str = "forward + backward",
    by_mask: bool = False,
) -> Workload:
    """Of every second of `2 * rows` rows. `part`: "forward", "backward" or both; rows are named by a mask or a list."""
    generator = torch.Generator(device).manual_seed(0)
    logits = _normal(2 * rows, vocabulary, generator, dtype).requires_grad_()
    upstream = _normal(rows, vocabulary, generator, dtype)
    chosen = torch.arange(0, 2 * rows, 2, device=device)
    if by_mask:
        chosen = torch.zeros(2 * rows, dtype=torch.bool, device=device).index_fill(0, chosen, True)

    def fused(logits: Tensor, chosen: Tensor) -> Tensor:
        return masked_log_softmax(logits, chosen) if by_mask else masked_log_softmax(logits, rows=chosen)

    output: list[Tensor] = []

    def forget() -> None:
        output.clear()
        logits.grad = None

    def implementation(function: Callable[[Tensor, Tensor], Tensor]) -> Implementation:
        def forward() -> Tensor:
            forget()
            output.append(function(logits, chosen))
            return output[0]

        def backward() -> Tensor | None:
            output.pop().backward(upstream)
            return logits.grad

        def both() -> Tensor | None:
            forward()
            return backward()

        parts = {"forward": (forward, None), "backward": (backward, forward), "forward + backward": (both, None)}
        return Implementation(*parts[part])

    row_passes = {"forward": 2 * rows, "backward": 4 * rows, "forward + backward": 5 * rows}[part]
    paths = {"eager": eager.log_softmax_rows, "torch.compile": torch.compile(eager.log_softmax_rows), "tad_ext": fused}
    return Workload(
        {name: implementation(function) for name, function in paths.items()},
        bytes=row_passes * vocabulary * dtype.itemsize,
        forget=forget,
        elements=rows * vocabulary,
    )


def unmask(
    batch: int,
    gen_length: int,
    block_length: int,
    vocabulary: int,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    *,
    from_logits: bool = True,
) -> Workload:
    """One decoding step on fresh canvases: the statistics of the first block, the threshold policy, and the reveal;
    without `from_logits` the reveal alone. Half of the positions are confident.
    """
    mask_token_id = vocabulary - 1
    suppressed = torch.tensor([mask_token_id], device=device)
    logits = _normal(batch * block_length, vocabulary, torch.Generator(device).manual_seed(0), dtype)
    logits[::2, 7] = 40.0
    logits = logits.view(batch, block_length, vocabulary)
    canvas = torch.empty(batch, gen_length, dtype=torch.int64, device=device)
    state = DecodeState.start(batch, gen_length, block_length=block_length, device=device)
    state.positions = state.positions.contiguous()
    policy = ConfidenceThreshold(THRESHOLD)
    known = token_statistics(logits, suppress_tokens=suppressed)
    accept = known.confidence >= THRESHOLD
    compiled_statistics, compiled_reveal = torch.compile(eager.statistics_float32), torch.compile(eager.reveal_in_block)

    def restore() -> None:
        canvas.fill_(mask_token_id)
        state.blocks.fill_(1)
        for counter in (state.reveal_step, state.forwards, state.done):
            counter.zero_()

    def eager_step(statistics_of: Callable[..., Any], reveal: Callable[..., Tensor]) -> Implementation:
        def run() -> Tensor:
            token, confidence = statistics_of(logits)[:2] if from_logits else (known.token, known.confidence)
            counters = (state.reveal_step, state.forwards, state.done)
            reveal(canvas, *counters, state.positions, token, confidence, THRESHOLD, mask_token_id)
            return canvas

        return Implementation(run, restore)

    def fused_step() -> Tensor:
        found = token_statistics(logits, suppress_tokens=suppressed)
        unmask_step(canvas, found, state, policy, mask_token_id=mask_token_id)
        return canvas

    def fused_reveal() -> Tensor:
        counters = (state.reveal_step, state.forwards, state.blocks, state.done)
        chosen = (state.positions, known.token, known.confidence, accept)
        commit_reveal(canvas, *counters, *chosen, block_length=block_length, mask_token_id=mask_token_id)
        return canvas

    entries = batch * block_length
    reveal_bytes = entries * (2 * (8 + 8) + 8 + 8 + 4 + 1)  # canvas and step read and written; the four inputs
    return Workload(
        {
            "eager": eager_step(eager.statistics_float32, eager.reveal_in_block),
            "torch.compile": eager_step(compiled_statistics, compiled_reveal),
            "tad_ext": Implementation(fused_step if from_logits else fused_reveal, restore),
        },
        bytes=reveal_bytes + (logits.numel() * dtype.itemsize if from_logits else 0),
        forget=_nothing,
        elements=logits.numel() if from_logits else None,
    )


def copy(elements: int, device: torch.device | str = "cpu") -> Workload:
    """A copy of so many float32 numbers: the memory bandwidth that everything else is measured against."""
    source = torch.randn(elements, device=device)
    target = torch.empty_like(source)
    return Workload({"copy": Implementation(lambda: target.copy_(source))}, bytes=2 * elements * 4, forget=_nothing)


def _training_step(student: Tensor, loss: Callable[[], Tensor]) -> Implementation:
    def run() -> Tensor:
        student.grad = None
        result = loss()
        result.backward()
        return result

    return Implementation(run)


def _nothing() -> None:
    """Statistics and canvases are overwritten or small."""


def _normal(rows: int, columns: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    return torch.randn(rows, columns, generator=generator, device=generator.device).to(dtype)


def _steps(rows: int, near_rows: int, device: torch.device | str) -> Tensor:
    """(rows,) steps to reveal: the first `near_rows` near, the rest distant."""
    return torch.where(torch.arange(rows, device=device) < near_rows, 1, DELTA + 5)
