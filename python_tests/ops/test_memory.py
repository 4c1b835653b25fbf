"""The loss allocates nothing of the logits' size but the gradient, on a CPU in memory that is kept for the next one."""

import pytest
import torch
from op_checks import CUDA_ON_HOST, peak_bytes

from tad_ext.ops import fused_tad_loss, masked_log_softmax, reference

# PyTorch's CUDA allocator rounds large tensors up to multiples of 2 MiB: 32 rows of these are one in every dtype.
VOCABULARY = {"cpu": 20_000, "cuda": 131_072}


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_peak_memory_beyond_the_gradient_is_under_one_percent(device: str, dtype: torch.dtype, recompute: bool) -> None:
    student = torch.randn(32, VOCABULARY[device], device=device).to(dtype).requires_grad_()
    teacher = torch.randn(32, VOCABULARY[device], device=device).to(dtype)
    labels, steps = torch.arange(32, device=device), torch.arange(32, device=device)
    size = student.numel() * student.element_size()

    def peak(function: object) -> float:
        student.grad = None
        return (
            peak_bytes(
                lambda: function(  # type: ignore[operator]
                    student, teacher, labels, steps, delta=4, recompute_gradient=recompute
                ).loss.backward(),
                device,
            )
            / size
        )

    assert 1.0 <= peak(fused_tad_loss) < 1.01
    assert peak(reference.fused_tad_loss) > 3  # the measurement sees what eager allocates


def test_recomputing_keeps_nothing_between_forward_and_backward(device: str) -> None:
    student = torch.randn(32, VOCABULARY[device], device=device).requires_grad_()
    labels, steps = torch.arange(32, device=device), torch.arange(32, device=device)
    size = student.numel() * student.element_size()

    def forward(recompute: bool) -> int:
        return peak_bytes(
            lambda: fused_tad_loss(student, student.detach(), labels, steps, delta=4, recompute_gradient=recompute),
            device,
        )

    assert forward(True) < 0.01 * size
    assert forward(False) >= size


@pytest.mark.skipif(CUDA_ON_HOST, reason="about the CPU's memory")
def test_a_gradients_memory_is_used_again_and_never_shared(device: str) -> None:
    if device != "cpu":
        pytest.skip("about the CPU's memory")
    logits = torch.randn(16, 40_000).requires_grad_()
    upstream = torch.randn(16, 40_000)

    def gradient() -> torch.Tensor:
        return torch.autograd.grad(masked_log_softmax(logits), logits, upstream)[0]

    first = gradient()
    expected, address = first.clone(), first.data_ptr()
    others = [gradient() for _ in range(4)]
    assert len({tensor.data_ptr() for tensor in (first, *others)}) == 5
    view = first[3]
    del first, others
    assert torch.equal(view, expected[3])  # a view keeps the memory
    again = [gradient() for _ in range(3)]
    assert all(torch.equal(tensor, expected) for tensor in again)
    assert address not in {tensor.data_ptr() for tensor in again}
    del view, again
    assert len({gradient().data_ptr() for _ in range(4)}) <= 2
