"""The loss allocates nothing of the logits' size but the gradient."""

from __future__ import annotations

import pytest
import torch
from memory import peak_bytes

from tad_ext.ops import fused_tad_loss, reference


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_peak_memory_beyond_the_gradient_is_under_one_percent(dtype: torch.dtype) -> None:
    student = torch.randn(32, 20_000).to(dtype).requires_grad_()
    teacher, labels, steps = torch.randn(32, 20_000).to(dtype), torch.arange(32), torch.arange(32)
    size = student.numel() * student.element_size()

    def peak(function: object) -> float:
        student.grad = None
        return peak_bytes(lambda: function(student, teacher, labels, steps, delta=4).loss.backward()) / size  # type: ignore[operator]

    assert 1.0 <= peak(fused_tad_loss) < 1.01
    assert peak(reference.fused_tad_loss) > 3  # the measurement sees what eager allocates
