"""fused_tad_loss, forward and backward, against the pure-PyTorch path and torch.compile of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import eager
import pytest
import torch
from memory import peak_bytes

from tad_ext import fused_tad_loss

DELTA = 4
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def _entries(sizes: dict[str, int], dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """(student, teacher, labels, steps): one eighth of the rows near, the rest distant."""
    rows, vocabulary = sizes["rows"], sizes["vocabulary"]
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(rows, vocabulary, generator=generator).to(dtype) for _ in range(2))
    labels = torch.randint(0, vocabulary, (rows,), generator=generator)
    steps = torch.full((rows,), DELTA + 5)
    steps[: rows // 8] = 1
    return student.requires_grad_(), teacher, labels, steps


def _fused(student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, steps: torch.Tensor, delta: int) -> Any:
    return fused_tad_loss(student, teacher, labels, steps, delta=delta).loss


PATHS: dict[str, Callable[..., Any]] = {
    "eager": eager.tad_loss,
    "torch.compile": torch.compile(eager.tad_loss),
    "tad_ext": _fused,
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_tad_loss(benchmark: Any, sizes: dict[str, int], dtype: str, path: str) -> None:
    benchmark.group = f"TAD loss, forward + backward, {dtype}"
    benchmark.extra_info.update(path=path, baseline=path != "tad_ext")
    student, teacher, labels, steps = _entries(sizes, DTYPES[dtype])

    def step() -> None:
        student.grad = None
        PATHS[path](student, teacher, labels, steps, DELTA).backward()

    # Many warm-up rounds: until the allocator keeps the gradient's pages, page faults cost more than the loss.
    benchmark.pedantic(step, rounds=11, warmup_rounds=10)
    student.grad = None
    logits_bytes = student.numel() * student.element_size()
    benchmark.extra_info["memory_share"] = peak_bytes(step) / logits_bytes - 1  # one gradient is the result
