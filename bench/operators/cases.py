"""What is timed of each operator: one list for CPU and GPU, at different sizes.

The most telling cases come first: a run that ends early has those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from .losses import compact_tad_loss, dense_tad_loss, linear_tad_loss
from .work import Device, Workload
from .workloads import copy, log_softmax, statistics, truncation, unmask

BF16, FP32 = "bfloat16", "float32"
LLADA_VOCABULARY, DREAM_VOCABULARY = 126_464, 152_064
LLADA_IDS_WITHOUT_TOKEN = 115
_DENSE = 4  # positions of a dense caller for each row that takes part
_EAGER_TENSORS = 10  # of the logits' size, that eager PyTorch has at a time


@dataclass(frozen=True)
class Sizes:
    """The first of several is the main one."""

    loss_rows: tuple[int, ...]
    log_softmax_rows: tuple[int, ...]
    statistics_rows: tuple[int, ...]
    unmask_batches: tuple[int, ...]
    linear_shape: tuple[int, int]  # rows, hidden size
    copy_rows: int
    linear_dtypes: tuple[str, ...] = (BF16, FP32)
    vocabulary: int = LLADA_VOCABULARY
    canvas: tuple[int, int] = (256, 32)  # positions, and those of a block

    @property
    def dream_vocabulary(self) -> int:
        """As much larger as Dream's is than LLaDA's."""
        return self.vocabulary * DREAM_VOCABULARY // LLADA_VOCABULARY

    @property
    def ids_without_token(self) -> int:
        """As many of the vocabulary as LLaDA's logits have beyond its tokenizer."""
        return max(1, self.vocabulary * LLADA_IDS_WITHOUT_TOKEN // LLADA_VOCABULARY)


# LLaDA-8B's hidden size.
GPU = Sizes((512, 64, 2048, 32, 8192, 128), (512, 64, 2048), (64, 32, 512), (1, 32), (2048, 4096), 4096)
QUICK = Sizes((64, 8), (64,), (64, 8), (1, 4), (64, 32), 1024, vocabulary=1024, canvas=(32, 8))


def cpu_sizes(rows: tuple[int, ...] = (64, 32, 128), vocabulary: int = LLADA_VOCABULARY) -> Sizes:
    """Few rows, and a small hidden size, in which matrix products do not take all the time.

    The linear loss is measured in float32 alone: where a CPU has no bfloat16 products, one of them takes minutes.
    """
    return Sizes(rows, rows[:1], rows[:1], (), (rows[0], 64), rows[0], (FP32,), vocabulary)


@dataclass(frozen=True)
class Case:
    """`build` makes the tensors, so that those of one case at a time are in memory. `main`: for a short table."""

    operator: str
    title: str
    build: Callable[[], Workload]
    main: bool = True


def cases(operator: str, sizes: Sizes, device: Device) -> list[Case]:
    """The cases of one of `OPERATORS`."""
    return list(OPERATORS[operator](sizes, device))


def _copy(sizes: Sizes, device: Device) -> Iterator[Case]:
    title = f"a copy of {sizes.copy_rows} {FP32} rows of {sizes.vocabulary:,}"
    yield Case("copy", title, partial(copy, sizes.copy_rows * sizes.vocabulary, device))


def _loss(sizes: Sizes, device: Device) -> Iterator[Case]:
    first, *others = sizes.loss_rows

    def case(build: Callable[..., Workload], rows: str, dtype: str, near: int, distant: int, main: bool) -> Case:
        title = f"TAD loss, forward + backward, {dtype}, {rows}, near:distant {near}:{distant}"
        return Case("loss", title, partial(build, getattr(torch, dtype), device, near=near, distant=distant), main)

    def compact(
        dtype: str, rows: int = first, near: int = 1, distant: int = 7, vocabulary: int = sizes.vocabulary
    ) -> Case:
        build = partial(compact_tad_loss, rows, vocabulary)
        main = (rows, near, distant, vocabulary) == (first, 1, 7, sizes.vocabulary)
        return case(build, f"{rows} rows of {vocabulary:,}", dtype, near, distant, main)

    for dtype in (BF16, FP32):
        yield compact(dtype)
    for dtype in (BF16, FP32):
        for rows in others:
            if _fits(rows * sizes.vocabulary * getattr(torch, dtype).itemsize, device):
                yield compact(dtype, rows)
        dense = partial(dense_tad_loss, first, _DENSE * first, sizes.vocabulary)
        yield case(dense, f"{first} of {_DENSE * first} rows of {sizes.vocabulary:,}", dtype, 1, 1, True)
        for near, distant in ((1, 0), (0, 1), (1, 1)):
            yield compact(dtype, near=near, distant=distant)
        yield compact(dtype, vocabulary=sizes.dream_vocabulary)


def _linear_loss(sizes: Sizes, device: Device) -> Iterator[Case]:
    (rows, hidden), vocabulary = sizes.linear_shape, sizes.vocabulary
    for near, distant in ((1, 1), (1, 0)):
        for dtype in sizes.linear_dtypes:
            size = f"{rows} rows of {hidden} x {vocabulary:,}, near:distant {near}:{distant}"
            build = partial(linear_tad_loss, rows, hidden, vocabulary, getattr(torch, dtype), device)
            title = f"linear TAD loss, forward + backward, {dtype}, {size}"
            yield Case("linear-loss", title, partial(build, near=near, distant=distant))


def _log_softmax(sizes: Sizes, device: Device) -> Iterator[Case]:
    for dtype in (BF16, FP32):
        for rows in sizes.log_softmax_rows:
            for part in ("forward", "backward"):
                title = f"masked log-softmax, {part}, {dtype}, {rows} of {2 * rows} rows of {sizes.vocabulary:,}"
                build = partial(log_softmax, rows, sizes.vocabulary, getattr(torch, dtype), device, part=part)
                yield Case("log-softmax", title, build, rows == sizes.log_softmax_rows[0])


def _statistics(sizes: Sizes, device: Device) -> Iterator[Case]:
    first = sizes.statistics_rows[0]

    def case(work: Callable[..., Workload], name: str, dtype: str, rows: int, vocabulary: int, **setting: Any) -> Case:
        words = ", ".join(f"{key} {value:g}" for key, value in setting.items())
        title = f"{name}, {dtype}, {rows} rows of {vocabulary:,}, {words}"
        main = (rows, vocabulary) == (first, sizes.vocabulary)
        return Case(
            "statistics", title, partial(work, rows, vocabulary, getattr(torch, dtype), device, **setting), main
        )

    for dtype in (BF16, FP32):
        for temperature in (0.0, 0.7):
            for rows in sizes.statistics_rows:
                yield case(statistics, "token statistics", dtype, rows, sizes.vocabulary, temperature=temperature)
        for rows in sizes.statistics_rows:
            ids = sizes.ids_without_token
            yield case(statistics, "token statistics", dtype, rows, sizes.vocabulary, suppressed=ids)
    yield case(statistics, "token statistics", BF16, first, sizes.dream_vocabulary, temperature=0.0)
    for dtype in (BF16, FP32):
        yield case(truncation, "truncation", dtype, first, sizes.vocabulary, top_p=0.9)


def _unmask(sizes: Sizes, device: Device) -> Iterator[Case]:
    for name, from_logits in (("statistics, policy and reveal", True), ("reveal alone", False)):
        for batch in sizes.unmask_batches:
            shape = (batch, *sizes.canvas)
            title = f"unmask step, {name}, {BF16}, batch {batch}, {shape[1]} positions in blocks of {shape[2]}"
            build = partial(unmask, *shape, sizes.vocabulary, torch.bfloat16, device, from_logits=from_logits)
            yield Case("unmask", title, build)


def _fits(logits_bytes: int, device: Device) -> bool:
    """Whether a GPU has the memory for everyone's work; on a CPU whoever asks for a size has it."""
    if torch.device(device).type != "cuda":
        return True
    return _EAGER_TENSORS * logits_bytes < torch.cuda.get_device_properties(device).total_memory


OPERATORS: dict[str, Callable[[Sizes, Device], Iterator[Case]]] = {
    "copy": _copy,  # the ceiling: it is measured in every run
    "loss": _loss,
    "linear-loss": _linear_loss,
    "log-softmax": _log_softmax,
    "statistics": _statistics,
    "unmask": _unmask,
}
