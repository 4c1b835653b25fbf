"""Inputs and comparisons shared by the operator tests."""

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

CUDA_ON_HOST = bool(os.environ.get("TAD_EXT_CUDA_ON_HOST"))  # CPU tensors run the CUDA kernels, slowly

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
EPSILON = {torch.float32: 2e-7, torch.bfloat16: 1e-3, torch.float16: 2e-4, torch.float64: 1e-13}


def assert_no_worse_than_eager(ours: Tensor, eager: Tensor, exact: Tensor, dtype: torch.dtype) -> None:
    """Our largest error against float64 is at most twice eager's in the same dtype, plus an epsilon of the dtype."""
    scale = max(exact.abs().max().item(), 1.0) if exact.numel() else 1.0
    error = (ours.double() - exact).abs().max().item() if exact.numel() else 0.0
    allowed = 2 * (eager.double() - exact).abs().max().item() if exact.numel() else 0.0
    assert error <= allowed + EPSILON[dtype] * scale, f"error {error:.3g}, eager's {allowed / 2:.3g}"


def on(device: str, values: dict[str, Any]) -> dict[str, Any]:
    """The same, with the tensors among them on `device`."""
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in values.items()}


def random_entries(
    n: int, vocabulary: int, dtype: torch.dtype, device: str, *, seed: int = 0, scale: float = 3.0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(student, teacher, labels, steps), the same on every device; steps: silent, near and distant for delta = 2."""
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(n, vocabulary, generator=generator, dtype=torch.float64) * scale
    teacher = torch.randn(n, vocabulary, generator=generator, dtype=torch.float64) * scale
    labels = torch.randint(0, vocabulary, (n,), generator=generator)
    steps = torch.arange(n) % 6 - 1
    return student.to(device, dtype), teacher.to(device, dtype), labels.to(device), steps.to(device)


def switched_off(steps: Tensor, delta: int = 2) -> dict[str, Tensor]:
    """The entries that a weight of 0 switches off: one side, or for a row weight some of both."""
    return {"ce_weight": (steps >= 1) & (steps <= delta), "kl_weight": steps > delta, "row_weight": steps % 2 == 1}


def loss_and_gradient(function: Any, student: Tensor, *args: Any, **kwargs: Any) -> tuple[Any, Tensor]:
    student = student.detach().clone().requires_grad_()
    result = function(student, *args, **kwargs)
    result.loss.backward()
    assert student.grad is not None
    return result, student.grad


def peak_bytes(work: Callable[[], object], device: str) -> int:
    """The most bytes that `work` had allocated at a time, beyond what was there before it."""
    if device == "cpu":
        from bench.stopwatch import cpu_peak_bytes  # a process that a test starts may have no bench on its path

        return cpu_peak_bytes(work)
    torch.cuda.empty_cache()  # a block that was kept may be up to 1 MiB larger than what it is used for
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
