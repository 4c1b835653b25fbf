"""Rows whose blocks lie on very different levels: kernels work block by block, relative to a reference they keep."""

import itertools

import pytest
import torch
from op_checks import loss_and_gradient

from tad_ext.ops import fused_tad_loss, masked_log_softmax, reference, token_statistics

BLOCK = 512
LEVELS = [-torch.inf, -300.0, 0.0, 60.0, 300.0, 3e4]
ORDERS = [order for order in itertools.permutations(LEVELS, 3) if max(order) > -torch.inf]


def row(levels: tuple[float, ...], seed: int, device: str) -> torch.Tensor:
    """(1, 3 * BLOCK): standard normal logits, each block lifted to its level."""
    noise = torch.randn(1, len(levels) * BLOCK, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (noise + torch.tensor(levels, dtype=torch.float64).repeat_interleave(BLOCK)).float().to(device)


@pytest.mark.parametrize("levels", ORDERS)
def test_any_order_of_levels(device: str, levels: tuple[float, ...]) -> None:
    student, teacher = row(levels, 0, device), row(levels, 1, device)
    likely = int(student.argmax())
    for steps, other in ((1, None), (9, teacher)):
        arguments = (torch.tensor([likely], device=device), torch.tensor([steps], device=device))
        options = {"delta": 4, "kl_weight": 0.0 if other is None else 1.0}
        ours, our_grad = loss_and_gradient(fused_tad_loss, student, other, *arguments, **options)
        exact, exact_grad = loss_and_gradient(
            reference.fused_tad_loss, student.double(), None if other is None else other.double(), *arguments, **options
        )
        torch.testing.assert_close(ours.loss.double(), exact.loss, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(our_grad.double(), exact_grad, rtol=1e-4, atol=1e-6)
    log_p = masked_log_softmax(student).double()
    torch.testing.assert_close(log_p, student.double().log_softmax(-1), rtol=1e-6, atol=1e-5)
    ours, exact = token_statistics(student), reference.token_statistics(student.double())
    for name in ("token", "second_token", "confidence", "margin", "entropy", "logsumexp", "valid"):
        torch.testing.assert_close(getattr(ours, name), getattr(exact, name), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "largest"), [(torch.float32, 1e34), (torch.bfloat16, 1e34), (torch.float16, 65504.0)]
)
def test_the_largest_numbers(device: str, dtype: torch.dtype, largest: float) -> None:
    """One large token, one impossible one, nothing but small ones, and half of each; all differences are finite."""
    logits = torch.randn(4, 3 * BLOCK + 5, device=device).to(dtype)
    logits[0, 700], logits[1, 700], logits[2], logits[3, ::2], logits[3, 1::2] = (
        largest, -largest, -largest, largest, -largest
    )  # fmt: skip
    labels, steps = torch.tensor([3, 700, 9, 1], device=device), torch.ones(4, device=device).long()
    for kind in (steps, steps + 8):
        ours, gradient = loss_and_gradient(fused_tad_loss, logits, logits.flip(0), labels, kind, delta=4)
        exact, _ = loss_and_gradient(
            reference.fused_tad_loss, logits.double(), logits.flip(0).double(), labels, kind, delta=4
        )
        torch.testing.assert_close(ours.loss.double(), exact.loss, rtol=1e-6, atol=0)
        assert gradient.isfinite().all()
    log_p = masked_log_softmax(logits, dtype=torch.float32).double()
    torch.testing.assert_close(log_p, logits.double().log_softmax(-1), rtol=1e-6, atol=1e-5)
    ours, exact = token_statistics(logits), reference.token_statistics(logits.double())
    for name in ("token", "second_token", "confidence", "margin", "entropy", "logsumexp", "valid"):
        torch.testing.assert_close(getattr(ours, name), getattr(exact, name), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("low", [-2e19, -1e30, -1e300])
def test_masked_columns_of_float64(device: str, low: float) -> None:
    """Half of the columns are as good as impossible, in numbers whose product with log2(e) float64 rounds."""
    logits = torch.randn(2, 4 * BLOCK, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(device)
    logits[0, : 2 * BLOCK] = low
    logits[1, 2 * BLOCK :] = low
    labels, steps = torch.tensor([3 * BLOCK, 5], device=device), torch.ones(2, device=device).long()
    for kind in (steps, steps + 8):
        ours, gradient = loss_and_gradient(fused_tad_loss, logits, logits, labels, kind, delta=4)
        exact, _ = loss_and_gradient(reference.fused_tad_loss, logits, logits, labels, kind, delta=4)
        torch.testing.assert_close(ours.loss, exact.loss)
        assert gradient.isfinite().all()
    assert token_statistics(logits).valid.all()


def test_a_row_that_is_sure_of_its_label_has_no_negative_loss(device: str) -> None:
    """Whatever lies beside it, and however its logits climb to it."""
    generator = torch.Generator().manual_seed(0)
    heights = torch.randint(0, 45, (64, 2 * BLOCK), generator=generator).sort().values.float()
    logits = (heights + torch.rand(64, 2 * BLOCK, generator=generator)).to(device)
    labels = logits.argmax(-1)
    logits[torch.arange(64), labels] += 19.1
    for row in range(64):
        one, label = logits[row : row + 1], labels[row : row + 1]
        loss = fused_tad_loss(one, None, label, torch.ones_like(label), delta=4, kl_weight=0.0).loss
        assert loss >= 0
        torch.testing.assert_close(
            loss, torch.nn.functional.cross_entropy(one.double(), label).float(), rtol=1e-5, atol=2e-7
        )
