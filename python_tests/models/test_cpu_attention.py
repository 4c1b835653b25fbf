"""Attention in bfloat16 on a CPU: as exact as PyTorch's whatever shapes and masks, and only where it should be."""

from unittest import mock

import pytest
import torch
from tiny_models import logits, tiny_model
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from tad_ext.models import cpu_attention, last_layer

needs_bfloat16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="the processor has no products of bfloat16"
)


def results(attend, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, gradient: Tensor) -> list[Tensor]:
    """The output, (B, H, Q, D), and the gradients of the three, in float64."""
    inputs = [states.clone().requires_grad_() for states in (query, key, value)]
    output = attend(*inputs, mask)
    output.backward(gradient.to(output.dtype))
    return [output.detach().double(), *(states.grad.double() for states in inputs)]


def own(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    assert cpu_attention.cpu_attention_fits(query, key, 0.0)
    output, _ = cpu_attention.cpu_attention(nn.Module(), query, key, value, mask, scaling=0.3)
    return output.transpose(1, 2)


def pytorchs(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=0.3, enable_gqa=True)


@needs_bfloat16
@pytest.mark.parametrize("masked", [None, "keys", "pairs"])
@pytest.mark.parametrize(
    ("heads", "groups", "queries", "keys"), [(1, 1, 1, 1), (4, 4, 70, 70), (6, 2, 33, 90), (3, 3, 600, 600)]
)
def test_it_is_as_close_to_float64_as_pytorchs(heads, groups, queries, keys, masked):
    torch.manual_seed(queries)
    query, gradient = torch.randn(2, 2, queries, heads, 16, dtype=torch.bfloat16).transpose(2, 3)
    key, value = torch.randn(2, 2, groups, keys, 16, dtype=torch.bfloat16)
    mask = None
    if masked == "keys":
        mask = (torch.arange(keys) < torch.tensor([[keys], [max(1, keys // 2)]]))[:, None, None].expand(
            2, 1, queries, -1
        )
    elif masked == "pairs":
        mask = torch.rand(2, 1, queries, keys) < 0.5
        mask[..., 0] = True

    exact = results(pytorchs, query.double(), key.double(), value.double(), mask, gradient)
    ours = results(own, query, key, value, mask, gradient)
    theirs = results(pytorchs, query, key, value, mask, gradient)
    for name, of_ours, of_theirs, of_exact in zip(
        ("output", "query", "key", "value"), ours, theirs, exact, strict=True
    ):
        error, other = ((one - of_exact).norm() / of_exact.norm().clamp(min=1e-6) for one in (of_ours, of_theirs))
        assert error <= 1.25 * other + 1e-6, f"{name}: {error:.1e} where PyTorch's is {other:.1e}"


@needs_bfloat16
def test_scores_are_not_rounded_under_autocast_either():
    torch.manual_seed(0)
    query, key, value = 8 * torch.randn(3, 1, 1, 64, 16, dtype=torch.bfloat16)
    plain = own(query, key, value, None)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(own(query, key, value, None), plain)


@needs_bfloat16
def test_products_of_float32_are_as_they_were_afterwards():
    products = torch.backends.mkldnn.matmul
    before, products.fp32_precision = products.fp32_precision, "ieee"
    query = torch.randn(1, 1, 8, 16, dtype=torch.bfloat16)
    try:
        own(query, query, query, None)
        assert products.fp32_precision == "ieee"
        with pytest.raises(RuntimeError):
            own(query, query[..., :8], query, None)
        assert products.fp32_precision == "ieee"
    finally:
        products.fp32_precision = before


@pytest.mark.parametrize(
    ("query", "dropout"),
    [
        (torch.zeros(1, 1, 4, 16), 0.0),
        (torch.zeros(1, 1, 4, 16, dtype=torch.bfloat16), 0.1),
        (torch.zeros(1, 1, 2**11 + 1, 1, dtype=torch.bfloat16), 0.0),
    ],
)
def test_float32_dropout_and_long_sequences_are_left_to_pytorch(query, dropout):
    assert not cpu_attention.cpu_attention_fits(query, query, dropout)


@needs_bfloat16
@pytest.mark.parametrize(("implementation", "calls"), [("sdpa", 1), ("eager", 0)])
def test_a_model_in_bfloat16_uses_it_unless_another_attention_was_chosen(monkeypatch, implementation, calls):
    spy = mock.Mock(wraps=cpu_attention.cpu_attention)
    monkeypatch.setattr(last_layer, "cpu_attention", spy)
    model = tiny_model().bfloat16()
    model.config._attn_implementation = implementation
    logits(model)
    assert spy.call_count == calls * model.config.num_hidden_layers
