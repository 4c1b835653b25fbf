"""What `bench/h200` times of each operator, the most telling sizes first: a run that ends early has those."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import workloads
from workloads import DTYPES, Workload

BF16, FP32 = "bfloat16", "float32"


@dataclass(frozen=True)
class Sizes:
    """The real sizes; `quick` ones run the same code in no time."""

    vocabulary: int = 126_464  # LLaDA-8B
    dream_vocabulary: int = 152_064
    hidden_size: int = 4096
    gen_length: int = 256
    block_length: int = 32
    shrink: int = 1

    def rows(self, rows: int) -> int:
        """So many rows, or fewer in a quick run."""
        return rows // self.shrink


FULL = Sizes()
QUICK = Sizes(vocabulary=1024, dream_vocabulary=1280, hidden_size=32, gen_length=32, block_length=8, shrink=8)


@dataclass(frozen=True)
class Case:
    """`build` makes the tensors, so that those of one case at a time are in memory."""

    title: str
    build: Callable[[], Workload]


def cases(operator: str, sizes: Sizes, device: torch.device | str) -> list[Case]:
    """The cases of one of `OPERATORS`."""
    return list(OPERATORS[operator](sizes, device))


def _loss(sizes: Sizes, device: torch.device | str) -> Iterator[Case]:
    def case(rows: int, dtype: str, near: int = 1, distant: int = 7, *, dense: int = 1, dream: bool = False) -> Case:
        rows, vocabulary = sizes.rows(rows), sizes.dream_vocabulary if dream else sizes.vocabulary
        of = f" of {rows * dense}" if dense > 1 else ""
        size = f"{rows}{of} rows of {vocabulary:,}, near:distant {near}:{distant}"
        build = partial(workloads.tad_loss, near=near, distant=distant, positions=rows * dense)
        return Case(
            f"TAD loss, forward + backward, {dtype}, {size}", partial(build, rows, vocabulary, DTYPES[dtype], device)
        )

    yield case(512, BF16)
    yield case(64, BF16)
    yield case(2048, BF16)
    yield case(512, FP32)
    yield case(512, BF16, dense=4)
    yield case(512, BF16, 1, 1)
    yield case(512, BF16, 1, 0)
    yield case(512, BF16, 0, 1)
    yield case(32, BF16)
    yield case(512, BF16, dream=True)
    yield case(64, FP32)
    yield case(2048, FP32)
    yield case(32, FP32)
    yield case(512, FP32, dense=4)


def _linear_loss(sizes: Sizes, device: torch.device | str) -> Iterator[Case]:
    rows, hidden, vocabulary = sizes.rows(512), sizes.hidden_size, sizes.vocabulary
    for dtype in (BF16, FP32):
        yield Case(
            f"linear TAD loss, forward + backward, {dtype}, {rows} rows of {hidden} x {vocabulary:,}",
            partial(workloads.linear_tad_loss, rows, hidden, vocabulary, DTYPES[dtype], device),
        )


def _log_softmax(sizes: Sizes, device: torch.device | str) -> Iterator[Case]:
    for count, dtype in ((512, BF16), (64, BF16), (2048, BF16), (512, FP32), (64, FP32), (2048, FP32)):
        rows, vocabulary = sizes.rows(count), sizes.vocabulary
        for part in ("forward", "backward"):
            yield Case(
                f"masked log-softmax, {part}, {dtype}, {rows} of {2 * rows} rows of {vocabulary:,}",
                partial(workloads.log_softmax, rows, vocabulary, DTYPES[dtype], device, part=part),
            )


def _statistics(sizes: Sizes, device: torch.device | str) -> Iterator[Case]:
    def case(rows: int, dtype: str, temperature: float, *, dream: bool = False) -> Case:
        rows, vocabulary = sizes.rows(rows), sizes.dream_vocabulary if dream else sizes.vocabulary
        return Case(
            f"token statistics, {dtype}, {rows} rows of {vocabulary:,}, temperature {temperature:g}",
            partial(workloads.statistics, rows, vocabulary, DTYPES[dtype], device, temperature=temperature),
        )

    for dtype in (BF16, FP32):
        for temperature in (0.0, 0.7):
            for rows in (32, 64, 512):
                yield case(rows, dtype, temperature)
    yield case(64, BF16, 0.0, dream=True)


def _unmask(sizes: Sizes, device: torch.device | str) -> Iterator[Case]:
    for name, from_logits in (("statistics, policy and reveal", True), ("reveal alone", False)):
        for batch in (1, 32):
            shape = (batch, sizes.gen_length, sizes.block_length)
            yield Case(
                f"unmask step, {name}, {BF16}, batch {batch}, {shape[1]} positions in blocks of {shape[2]}",
                partial(workloads.unmask, *shape, sizes.vocabulary, DTYPES[BF16], device, from_logits=from_logits),
            )


OPERATORS: dict[str, Callable[[Sizes, torch.device | str], Iterator[Case]]] = {
    "loss": _loss,
    "linear-loss": _linear_loss,
    "log-softmax": _log_softmax,
    "statistics": _statistics,
    "unmask": _unmask,
}
