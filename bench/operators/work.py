"""Pieces of work, each with everyone who does it, on the same tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..stopwatch import Implementation

Device = torch.device | str


@dataclass(frozen=True)
class Workload:
    """`bytes` is the least traffic the work could have: every input read once, every output written once."""

    implementations: dict[str, Implementation]
    bytes: int
    flops: int | None = None  # of the matrix products, where there are any


def training_step(leaves: Sequence[Tensor], loss: Callable[[], Tensor]) -> Implementation:
    """Forward and backward; a run returns the loss and the gradient of every leaf."""

    def forget() -> None:
        for leaf in leaves:
            leaf.grad = None

    def run() -> tuple[Tensor | None, ...]:
        forget()
        result = loss()
        result.backward()
        return result, *(leaf.grad for leaf in leaves)

    return Implementation(run, forget=forget)


def normal(rows: int, columns: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Standard normal numbers, drawn on the generator's device in float32."""
    return torch.randn(rows, columns, generator=generator, device=generator.device).to(dtype)
