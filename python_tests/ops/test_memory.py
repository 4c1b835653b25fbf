"""The loss allocates nothing of the logits' size but the gradient."""

from __future__ import annotations

from collections.abc import Callable

import memory
import pytest
import torch

from tad_ext.ops import fused_tad_loss, reference

VOCABULARY = {"cpu": 20_000, "cuda": 126_464}  # a GPU allocates in pieces of 512 bytes, which must not weigh


def peak_bytes(work: Callable[[], object], device: str) -> int:
    """The most bytes that `work` had allocated at a time, beyond what was there before it."""
    if device == "cpu":
        return memory.peak_bytes(work)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_peak_memory_beyond_the_gradient_is_under_one_percent(device: str, dtype: torch.dtype) -> None:
    student = torch.randn(32, VOCABULARY[device], device=device).to(dtype).requires_grad_()
    teacher = torch.randn(32, VOCABULARY[device], device=device).to(dtype)
    labels, steps = torch.arange(32, device=device), torch.arange(32, device=device)
    size = student.numel() * student.element_size()

    def peak(function: object) -> float:
        student.grad = None
        return (
            peak_bytes(lambda: function(student, teacher, labels, steps, delta=4).loss.backward(), device) / size  # type: ignore[operator]
        )

    assert 1.0 <= peak(fused_tad_loss) < 1.01
    assert peak(reference.fused_tad_loss) > 3  # the measurement sees what eager allocates
