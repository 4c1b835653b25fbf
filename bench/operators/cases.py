"""What is timed of each operator: one list for CPU and GPU, at different sizes.

The most telling cases come first: a run that ends early has those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ..stopwatch import Workload
from .losses import compact_tad_loss, dense_tad_loss, linear_tad_loss
from .workloads import copy, log_softmax, statistics, truncation, unmask

BF16, FP32 = torch.bfloat16, torch.float32
LLADA_VOCABULARY, DREAM_VOCABULARY = 126_464, 152_064
LLADA_IDS_WITHOUT_TOKEN = 115
_DENSE = 4  # positions of a dense caller for each row that takes part
_LOSS = "TAD loss, forward + backward, {dtype}, "
_RATIO = "near:distant {near}:{distant}"


@dataclass(frozen=True)
class Sizes:
    """The first of several is the main one."""

    loss_rows: tuple[int, ...]
    log_softmax_rows: tuple[int, ...]
    statistics_rows: tuple[int, ...]
    unmask_batches: tuple[int, ...]
    linear_shape: tuple[int, int]  # rows, hidden size
    copy_rows: int
    linear_dtypes: tuple[torch.dtype, ...] = (BF16, FP32)
    vocabulary: int = LLADA_VOCABULARY
    canvas: tuple[int, int] = (256, 32)  # positions, and those of a block

    def like_llada(self, number: int) -> int:
        """As much of this vocabulary as the number is of LLaDA's."""
        return max(1, self.vocabulary * number // LLADA_VOCABULARY)


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
    """`work` makes the tensors, so that those of one case at a time are in memory. `main`: for a short table."""

    operator: str
    title: str
    work: Callable[[], Workload]
    main: bool = True

    def build(self, device: torch.device | str = "cpu") -> Workload:
        """With its tensors on this device, and the same random numbers every time."""
        torch.manual_seed(0)
        with torch.device(device):
            return self.work()


def cases(operator: str, sizes: Sizes) -> list[Case]:
    """The cases of one of `OPERATORS`."""
    return list(OPERATORS[operator](sizes))


def _case(operator: str, title: str, work: Callable[..., Workload], main: bool = True, **given: Any) -> Case:
    """What the work is given stands in its title."""
    return Case(operator, title.format(**given).replace("torch.", ""), partial(work, **given), main)


def _copy(sizes: Sizes) -> Iterator[Case]:
    size = {"rows": sizes.copy_rows, "vocabulary": sizes.vocabulary}
    yield _case("copy", "a copy of {rows} {dtype} rows of {vocabulary:,}", copy, dtype=FP32, **size)


def _loss(sizes: Sizes) -> Iterator[Case]:
    first, *others = sizes.loss_rows
    title, main = _LOSS + "{rows} rows of {vocabulary:,}, " + _RATIO, {"rows": first, "vocabulary": sizes.vocabulary}

    def compact(dtype: torch.dtype, near: int = 1, distant: int = 7, **other: int) -> Case:
        is_main = (near, distant, other) == (1, 7, {})
        ratio = {"near": near, "distant": distant}
        return _case("loss", title, compact_tad_loss, is_main, dtype=dtype, **ratio, **(main | other))

    for dtype in (BF16, FP32):
        yield compact(dtype)
    for dtype in (BF16, FP32):
        for rows in others:
            yield compact(dtype, rows=rows)
        dense = {"positions": _DENSE * first, "dtype": dtype, "near": 1, "distant": 1, **main}
        yield _case("loss", title.replace("{rows}", "{rows} of {positions}"), dense_tad_loss, **dense)
        for near, distant in ((1, 0), (0, 1), (1, 1)):
            yield compact(dtype, near, distant)
        yield compact(dtype, vocabulary=sizes.like_llada(DREAM_VOCABULARY))


def _linear_loss(sizes: Sizes) -> Iterator[Case]:
    title = "linear " + _LOSS + "{rows} rows of {hidden_size} x {vocabulary:,}, " + _RATIO
    size = dict(zip(("rows", "hidden_size"), sizes.linear_shape)) | {"vocabulary": sizes.vocabulary}
    for near, distant in ((1, 1), (1, 0)):
        for dtype in sizes.linear_dtypes:
            yield _case("linear-loss", title, linear_tad_loss, dtype=dtype, near=near, distant=distant, **size)


def _log_softmax(sizes: Sizes) -> Iterator[Case]:
    title = "masked log-softmax, {part}, {dtype}, {rows} of {positions} rows of {vocabulary:,}"
    for dtype in (BF16, FP32):
        for rows in sizes.log_softmax_rows:
            size = {"rows": rows, "positions": 2 * rows, "vocabulary": sizes.vocabulary}
            for part in ("forward", "backward"):
                main = rows == sizes.log_softmax_rows[0]
                yield _case("log-softmax", title, log_softmax, main, part=part, dtype=dtype, **size)


def _statistics(sizes: Sizes) -> Iterator[Case]:
    first, dream = sizes.statistics_rows[0], sizes.like_llada(DREAM_VOCABULARY)
    settings = ({"temperature": 0.0}, {"temperature": 0.7}, {"suppressed": sizes.like_llada(LLADA_IDS_WITHOUT_TOKEN)})

    def case(work: Callable[..., Workload], dtype: torch.dtype, setting: dict[str, float], **other: int) -> Case:
        name = "truncation" if work is truncation else "token statistics"
        title = name + ", {dtype}, {rows} rows of {vocabulary:,}, " + "".join(f"{key} {{{key}:g}}" for key in setting)
        main = {"rows": first, "vocabulary": sizes.vocabulary}
        return _case("statistics", title, work, main == main | other, dtype=dtype, **setting, **(main | other))

    for dtype in (BF16, FP32):
        for setting in settings:
            for rows in sizes.statistics_rows:
                yield case(statistics, dtype, setting, rows=rows)
    yield case(statistics, BF16, settings[0], vocabulary=dream)
    for dtype in (BF16, FP32):
        yield case(truncation, dtype, {"top_p": 0.9})


def _unmask(sizes: Sizes) -> Iterator[Case]:
    given = dict(zip(("gen_length", "block_length"), sizes.canvas)) | {"vocabulary": sizes.vocabulary, "dtype": BF16}
    for name, from_logits in (("statistics, policy and reveal", True), ("reveal alone", False)):
        title = (
            f"unmask step, {name}, {{dtype}}, batch {{batch}}, {{gen_length}} positions in blocks of {{block_length}}"
        )
        for batch in sizes.unmask_batches:
            yield _case("unmask", title, unmask, batch=batch, from_logits=from_logits, **given)


OPERATORS: dict[str, Callable[[Sizes], Iterator[Case]]] = {
    "copy": _copy,  # the ceiling: it is measured in every run
    "loss": _loss,
    "linear-loss": _linear_loss,
    "log-softmax": _log_softmax,
    "statistics": _statistics,
    "unmask": _unmask,
}
