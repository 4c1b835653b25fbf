"""What is timed of each operator: one list for CPU and GPU, at different sizes.

The most telling cases come first: a run that ends early has those.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from ..stopwatch import Workload
from .losses import linear_tad_loss, tad_loss
from .workloads import copy, log_softmax, statistics, truncation, unmask

BF16, FP32 = torch.bfloat16, torch.float32
LLADA_VOCABULARY, DREAM_VOCABULARY = 126_464, 152_064
LLADA_IDS_WITHOUT_TOKEN = 115
_DENSE = 4  # positions of a dense caller for each row that takes part
_DTYPES = (BF16, FP32)
_END = "{vocabulary:,}, near:distant {near}:{distant}"


@dataclass(frozen=True)
class Sizes:
    """The first of several is the main one."""

    loss_rows: tuple[int, ...]
    log_softmax_rows: tuple[int, ...]
    statistics_rows: tuple[int, ...]
    unmask_batches: tuple[int, ...]
    linear_shape: tuple[int, int]  # rows, hidden size
    copy_rows: int
    linear_dtypes: tuple[torch.dtype, ...] = _DTYPES
    vocabulary: int = LLADA_VOCABULARY
    canvas: tuple[int, int] = (256, 32)  # positions, and those of a block

    def like_llada(self, number: int) -> int:
        """The share of this vocabulary that `number` is of LLaDA's."""
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

    title: str
    work: Callable[[], Workload]
    main: bool = True
    operator: str = ""

    def build(self, device: torch.device | str = "cpu") -> Workload:
        """The work, with its tensors on this device, and the same random numbers every time."""
        torch.manual_seed(0)
        with torch.device(device):
            return self.work()


def cases(operator: str, sizes: Sizes) -> list[Case]:
    """The cases of one of `OPERATORS`."""
    return [replace(case, operator=operator) for case in OPERATORS[operator](sizes)]


def _case(sizes: Sizes, title: str, work: Callable[..., Workload], main: bool = True, **given: Any) -> Case:
    """What the work is given stands in its title."""
    given = {"vocabulary": sizes.vocabulary, **given}
    return Case(title.format(**given).replace("torch.", ""), partial(work, **given), main)


def _copy(sizes: Sizes) -> Iterator[Case]:
    yield _case(sizes, "a copy of {rows} {dtype} rows of {vocabulary:,}", copy, rows=sizes.copy_rows, dtype=FP32)


def _loss(sizes: Sizes) -> Iterator[Case]:
    first, *others = sizes.loss_rows

    def case(dtype: torch.dtype, near: int = 1, distant: int = 7, **other: int) -> Case:
        dense = "positions" in other
        title = "TAD loss, forward + backward, {dtype}, {rows} " + "of {positions} " * dense + "rows of " + _END
        main = dense or (near, distant, other) == (1, 7, {})
        given = {"rows": first, "dtype": dtype, "near": near, "distant": distant, **other}
        return _case(sizes, title, tad_loss, main, **given)

    yield from map(case, _DTYPES)
    for dtype in _DTYPES:
        for rows in others:
            yield case(dtype, rows=rows)
        yield case(dtype, 1, 1, positions=_DENSE * first)
        for near, distant in ((1, 0), (0, 1), (1, 1)):
            yield case(dtype, near, distant)
        yield case(dtype, vocabulary=sizes.like_llada(DREAM_VOCABULARY))


def _linear_loss(sizes: Sizes) -> Iterator[Case]:
    title = "linear TAD loss, forward + backward, {dtype}, {rows} rows of {hidden_size} x " + _END
    for near, distant in ((1, 1), (1, 0), (0, 1)):
        for dtype in sizes.linear_dtypes:
            given = {"rows": sizes.linear_shape[0], "hidden_size": sizes.linear_shape[1], "dtype": dtype}
            yield _case(sizes, title, linear_tad_loss, near=near, distant=distant, **given)


def _log_softmax(sizes: Sizes) -> Iterator[Case]:
    title = "masked log-softmax, {part}, {dtype}, {rows} of {positions} rows of {vocabulary:,}"
    for dtype in _DTYPES:
        for rows in sizes.log_softmax_rows:
            for part in ("forward", "backward"):
                given = {"rows": rows, "positions": 2 * rows, "dtype": dtype, "part": part}
                yield _case(sizes, title, log_softmax, rows == sizes.log_softmax_rows[0], **given)


def _statistics(sizes: Sizes) -> Iterator[Case]:
    settings = ({"temperature": 0.0}, {"temperature": 0.7}, {"suppressed": sizes.like_llada(LLADA_IDS_WITHOUT_TOKEN)})
    main = {"rows": sizes.statistics_rows[0]}

    def case(work: Callable[..., Workload], dtype: torch.dtype, setting: dict[str, float], **other: int) -> Case:
        name = "truncation" if work is truncation else "token statistics"
        title = name + ", {dtype}, {rows} rows of {vocabulary:,}, " + "".join(f"{key} {{{key}:g}}" for key in setting)
        return _case(sizes, title, work, main | other == main, dtype=dtype, **setting, **(main | other))

    for dtype in _DTYPES:
        for setting in settings:
            for rows in sizes.statistics_rows:
                yield case(statistics, dtype, setting, rows=rows)
    yield case(statistics, BF16, settings[0], vocabulary=sizes.like_llada(DREAM_VOCABULARY))
    for dtype in _DTYPES:
        yield case(truncation, dtype, {"top_p": 0.9})


def _unmask(sizes: Sizes) -> Iterator[Case]:
    given = {"gen_length": sizes.canvas[0], "block_length": sizes.canvas[1], "dtype": BF16}
    for name, from_logits in (("statistics, policy and reveal", True), ("reveal alone", False)):
        title = f"unmask step, {name}, " + "{dtype}, batch {batch}, {gen_length} positions in blocks of {block_length}"
        for batch in sizes.unmask_batches:
            yield _case(sizes, title, unmask, batch=batch, from_logits=from_logits, **given)


OPERATORS: dict[str, Callable[[Sizes], Iterator[Case]]] = {
    "copy": _copy,  # the ceiling: it is measured in every run
    "loss": _loss,
    "linear-loss": _linear_loss,
    "log-softmax": _log_softmax,
    "statistics": _statistics,
    "unmask": _unmask,
}
