"""Rows whose blocks lie on very different levels: kernels work block by block, relative to a reference they keep."""

from __future__ import annotations

import itertools

import pytest
import torch
from op_checks import loss_and_gradient

from tad_ext.ops import fused_tad_loss, masked_log_softmax, reference, token_statistics

BLOCK = 512
LEVELS = [-torch.inf, -300.0, 0.0, 60.0, 300.0, 3e4]
ORDERS = [order for order in itertools.permutations(LEVELS, 3) if max(order) > -torch.inf]


def row(levels: tuple[float, ...], seed: int) -> torch.Tensor:
    """(1, 3 * BLOCK): standard normal logits, each block lifted to its level."""
    noise = torch.randn(1, len(levels) * BLOCK, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (noise + torch.tensor(levels, dtype=torch.float64).repeat_interleave(BLOCK)).float()


@pytest.mark.parametrize("levels", ORDERS)
def test_any_order_of_levels(levels: tuple[float, ...]) -> None:
    student, teacher = row(levels, 0), row(levels, 1)
    likely = int(student.argmax())
    for steps, other in ((1, None), (9, teacher)):
        arguments = (torch.tensor([likely]), torch.tensor([steps]))
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
