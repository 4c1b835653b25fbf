"""What is timed of each operator, on a CPU by `python -m pytest bench` and on a GPU by `bench/h200`.

One list for both; the sizes differ. The most telling cases first: a run that ends early has those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from loss_workloads import compact_tad_loss, dense_tad_loss, linear_tad_loss
from work import DTYPES, Workload
from workloads import copy, log_softmax, statistics, truncation, unmask

BF16, FP32 = "bfloat16", "float32"
LLADA_VOCABULARY, DREAM_VOCABULARY = 126_464, 152_064
_DENSE = 4  # positions of a dense caller for each row that takes part
_EAGER_TENSORS = 10  # of the logits' size, that eager PyTorch has at a time


@dataclass(frozen=True)
class Sizes:
    """`rows` are those of the loss; whatever else the loss is measured for, it is at the first of them."""

    rows: tuple[int, ...]
    log_softmax_rows: tuple[int, ...]
    statistics_rows: tuple[int, ...]
    unmask_batches: tuple[int, ...]
    linear_rows: int
    hidden_size: int
    copy_rows: int
    linear_dtypes: tuple[str, ...] = (BF16, FP32)
    vocabulary: int = LLADA_VOCABULARY
    dream_vocabulary: int = DREAM_VOCABULARY
    gen_length: int = 256
    block_length: int = 32


GPU = Sizes(
    rows=(512, 64, 2048, 32, 8192, 128),
    log_softmax_rows=(512, 64, 2048),
    statistics_rows=(64, 32, 512),
    unmask_batches=(1, 32),
    linear_rows=2048,
    hidden_size=4096,  # LLaDA-8B
    copy_rows=4096,
)
QUICK = Sizes(
    rows=(64, 8),
    log_softmax_rows=(64,),
    statistics_rows=(64, 8),
    unmask_batches=(1, 4),
    linear_rows=64,
    hidden_size=32,
    copy_rows=1024,
    vocabulary=1024,
    dream_vocabulary=1280,
    gen_length=32,
    block_length=8,
)


def cpu_sizes(rows: tuple[int, ...] = (64, 32, 128), vocabulary: int = LLADA_VOCABULARY) -> Sizes:
    """Few rows, and a small hidden size, in which matrix products do not take all the time.

    The linear loss is measured in float32 alone: where a CPU has no bfloat16 products, one of them takes minutes.
    """
    first = rows[:1]
    return Sizes(
        rows=rows,
        log_softmax_rows=first,
        statistics_rows=first,
        unmask_batches=(),
        linear_rows=rows[0],
        hidden_size=64,
        copy_rows=rows[0],
        linear_dtypes=(FP32,),
        vocabulary=vocabulary,
        dream_vocabulary=vocabulary * DREAM_VOCABULARY // LLADA_VOCABULARY,
    )


@dataclass(frozen=True)
class Case:
    """`build` makes the tensors, so that those of one case at a time are in memory."""

    operator: str
    title: str
    rows: int | None  # where a number of rows of logits says how large the case is
    build: Callable[[], Workload]
    variation: bool = False  # of another case: too much for a short table


def cases(operator: str, sizes: Sizes, device: torch.device | str) -> list[Case]:
    """The cases of one of `OPERATORS`."""
    return list(OPERATORS[operator](sizes, device))


def copy_case(sizes: Sizes, device: torch.device | str) -> Case:
    """The ceiling: it is measured in every run."""
    title = f"a copy of {sizes.copy_rows} {FP32} rows of {sizes.vocabulary:,}"
    return Case("copy", title, None, partial(copy, sizes.copy_rows * sizes.vocabulary, device))


def _loss(sizes: Sizes, device: torch.device | str) -> Iterator[Case]:
    def case(build: Callable[..., Workload], rows: int, dtype: str, caller: str, near: int, distant: int) -> Case:
        title = f"TAD loss, forward + backward, {dtype}, {caller}, near:distant {near}:{distant}"
        return Case("loss", title, rows, partial(build, DTYPES[dtype], device, near=near, distant=distant))

    def compact(rows: int, dtype: str, near: int = 1, distant: int = 7, vocabulary: int = sizes.vocabulary) -> Case:
        build = partial(compact_tad_loss, rows, vocabulary)
        return case(build, rows, dtype, f"{rows} rows of {vocabulary:,}", near, distant)

    def dense(rows: int, dtype: str) -> Case:
        build = partial(dense_tad_loss, rows, _DENSE * rows, sizes.vocabulary)
        return case(build, rows, dtype, f"{rows} of {_DENSE * rows} rows of {sizes.vocabulary:,}", 1, 1)

    first, *others = sizes.rows
    for dtype in (BF16, FP32):
        yield compact(first, dtype)
    for dtype in (BF16, FP32):
        for rows in others:
            if _fits(rows * sizes.vocabulary * DTYPES[dtype].itemsize, device):
                yield compact(rows, dtype)
        yield dense(first, dtype)
        for near, distant in ((1, 0), (0, 1), (1, 1)):
            yield replace(compact(first, dtype, near, distant), variation=True)
        yield replace(compact(first, dtype, vocabulary=sizes.dream_vocabulary), variation=True)


def _linear_loss(sizes: Sizes, device: torch.device | str) -> Iterator[Case]:
    rows, hidden, vocabulary = sizes.linear_rows, sizes.hidden_size, sizes.vocabulary
    for near, distant in ((1, 1), (1, 0)):
        for dtype in sizes.linear_dtypes:
            size = f"{rows} rows of {hidden} x {vocabulary:,}, near:distant {near}:{distant}"
            build = partial(linear_tad_loss, rows, hidden, vocabulary, DTYPES[dtype], device)
            yield Case(
                "linear-loss",
                f"linear TAD loss, forward + backward, {dtype}, {size}",
                rows,
                partial(build, near=near, distant=distant),
            )


def _log_softmax(sizes: Sizes, device: torch.device | str) -> Iterator[Case]:
    for dtype in (BF16, FP32):
        for rows in sizes.log_softmax_rows:
            for part in ("forward", "backward"):
                yield Case(
                    "log-softmax",
                    f"masked log-softmax, {part}, {dtype}, {rows} of {2 * rows} rows of {sizes.vocabulary:,}",
                    rows,
                    partial(log_softmax, rows, sizes.vocabulary, DTYPES[dtype], device, part=part),
                )


def _statistics(sizes: Sizes, device: torch.device | str) -> Iterator[Case]:
    def case(rows: int, dtype: str, temperature: float, vocabulary: int = sizes.vocabulary) -> Case:
        return Case(
            "statistics",
            f"token statistics, {dtype}, {rows} rows of {vocabulary:,}, temperature {temperature:g}",
            rows,
            partial(statistics, rows, vocabulary, DTYPES[dtype], device, temperature=temperature),
        )

    for dtype in (BF16, FP32):
        for temperature in (0.0, 0.7):
            for rows in sizes.statistics_rows:
                yield case(rows, dtype, temperature)
    first, top_p = sizes.statistics_rows[0], 0.9
    yield replace(case(first, BF16, 0.0, sizes.dream_vocabulary), variation=True)
    for dtype in (BF16, FP32):
        title = f"truncation, {dtype}, {first} rows of {sizes.vocabulary:,}, top_p {top_p:g}"
        build = partial(truncation, first, sizes.vocabulary, DTYPES[dtype], device, top_p=top_p)
        yield Case("statistics", title, first, build)


def _unmask(sizes: Sizes, device: torch.device | str) -> Iterator[Case]:
    for name, from_logits in (("statistics, policy and reveal", True), ("reveal alone", False)):
        for batch in sizes.unmask_batches:
            shape = (batch, sizes.gen_length, sizes.block_length)
            yield Case(
                "unmask",
                f"unmask step, {name}, {BF16}, batch {batch}, {shape[1]} positions in blocks of {shape[2]}",
                None,
                partial(unmask, *shape, sizes.vocabulary, DTYPES[BF16], device, from_logits=from_logits),
            )


def _fits(logits_bytes: int, device: torch.device | str) -> bool:
    """Whether a GPU has the memory for everyone's work; on a CPU whoever asks for a size has it."""
    if torch.device(device).type != "cuda":
        return True
    return _EAGER_TENSORS * logits_bytes < torch.cuda.get_device_properties(device).total_memory


OPERATORS: dict[str, Callable[[Sizes, torch.device | str], Iterator[Case]]] = {
    "loss": _loss,
    "linear-loss": _linear_loss,
    "log-softmax": _log_softmax,
    "statistics": _statistics,
    "unmask": _unmask,
}
