"""Dropout on a CPU: the right share, one factor for what stays, its gradient, and the draws of the seed."""

import pytest
import torch
from peft.tuners.lora import LoraLayer
from tiny_models import tiny_model

from tad_ext.models import add_lora
from tad_ext.models.cpu_dropout import CPUDropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("p", [0.05, 0.5, 0.9])
def test_the_share_p_is_dropped_and_the_rest_scaled(p, dtype):
    torch.manual_seed(0)
    states = torch.full((301, 333), 2.0, dtype=dtype)
    after = CPUDropout(p)(states)
    kept = after != 0
    count = states.numel()
    assert abs(int(kept.sum()) - count * (1 - p)) < 5 * (count * p * (1 - p)) ** 0.5
    assert after.dtype == dtype
    torch.testing.assert_close(after[kept], torch.full_like(after[kept], 2 / (1 - p)), rtol=1e-2, atol=0)
    # Neighbours, of the same 64 bits or not, are independent: all four drawn alike would be kept together.
    together = (kept[:, :-1] & kept[:, 1:]).double().mean()
    assert abs(float(together) - (1 - p) ** 2) < 0.01


def test_the_gradient_is_that_of_what_stayed():
    torch.manual_seed(0)
    states = torch.randn(7, 5, 3, dtype=torch.float64).transpose(0, 2).requires_grad_()
    after = CPUDropout(0.4)(states)
    (gradient,) = torch.autograd.grad(after.sum(), states)
    assert 0 < int((gradient == 0).sum()) < states.numel()
    torch.testing.assert_close(after, states * gradient)


def test_the_same_seed_gives_the_same_draws_and_others_follow():
    dropout, states = CPUDropout(0.5), torch.ones(64)
    torch.manual_seed(1)
    first, second = dropout(states), dropout(states)
    torch.manual_seed(1)
    assert torch.equal(dropout(states), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_nothing_or_all_is_dropped_as_by_pytorch(p):
    states = torch.ones(9)
    assert torch.equal(CPUDropout(p)(states), (1 - p) * states)
    assert torch.equal(CPUDropout(p).eval()(states), states)


def test_adapters_have_it():
    dropouts = [
        dropout
        for module in add_lora(tiny_model(), rank=2, alpha=2.0, dropout=0.1).modules()
        if isinstance(module, LoraLayer)
        for dropout in module.lora_dropout.values()
    ]
    assert dropouts
    assert all(isinstance(dropout, CPUDropout) and dropout.p == 0.1 for dropout in dropouts)
