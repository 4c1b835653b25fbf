"""masked_log_softmax against float64."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from op_checks import CUDA_ON_HOST, assert_no_worse_than_eager, on

from tad_ext.ops import masked_log_softmax, reference


def logits_and_mask(dtype: torch.dtype, device: str, vocabulary: int = 700) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(3, 5, vocabulary, generator=generator, dtype=torch.float64) * 4
    return logits.to(device, dtype), (torch.rand(3, 5, generator=generator) < 0.5).to(device)


@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_agrees_with_the_reference(device: str, dtype: torch.dtype, temperature: float) -> None:
    logits, mask = logits_and_mask(dtype, device)
    upstream = torch.randn(int(mask.sum()), 700, dtype=torch.float64, device=device)
    results = []
    for function, x in (
        (masked_log_softmax, logits),
        (reference.masked_log_softmax, logits),
        (reference.masked_log_softmax, logits.double()),
    ):
        x = x.detach().clone().requires_grad_()
        out = function(x, mask, temperature=temperature)
        out.backward(upstream.to(out.dtype))
        results.append((out.detach(), x.grad))
    for ours, eager, exact in zip(*results):
        assert ours.dtype == dtype
        assert_no_worse_than_eager(ours, eager, exact, dtype)


def test_rows_in_any_order_and_named_twice_add(device: str) -> None:
    logits, _ = logits_and_mask(torch.float32, device)
    rows = torch.tensor([4, 0, 4, 14], device=device)
    gradients = []
    for function in (masked_log_softmax, reference.masked_log_softmax):
        x = logits.clone().requires_grad_()
        out = function(x, rows=rows, temperature=0.7)
        (out * torch.arange(out.numel(), device=device).reshape(out.shape) * 1e-3).sum().backward()
        gradients.append((out, x.grad))
    torch.testing.assert_close(gradients[0][0], gradients[1][0])
    torch.testing.assert_close(gradients[0][1], gradients[1][1], rtol=1e-4, atol=1e-3)


def test_gradient_far_from_zero(device: str) -> None:
    """A common offset changes nothing, although float32 holds the logsumexp only to 2e-4 there."""
    logits = torch.randn(5, 40, device=device).round(decimals=2) + 3000
    upstream = torch.randn(5, 40, device=device)
    gradients = []
    for x in (logits, logits.double()):
        x = x.clone().requires_grad_()
        masked_log_softmax(x).backward(upstream.to(x.dtype))
        gradients.append(x.grad.double())
    torch.testing.assert_close(gradients[0], gradients[1], rtol=3e-6, atol=3e-6)


def test_result_dtype_may_be_wider(device: str) -> None:
    logits, mask = logits_and_mask(torch.bfloat16, device)
    wide = masked_log_softmax(logits, mask, dtype=torch.float32)
    torch.testing.assert_close(wide, logits[mask].float().log_softmax(-1))


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_every_value_of_half_precision_there_and_back(device: str, half: torch.dtype) -> None:
    every = torch.arange(-(2**15), 2**15, 64 if CUDA_ON_HOST else 1, device=device).to(torch.int16).view(half)
    rows = torch.stack([every, torch.zeros_like(every)], -1)
    finite = every.isfinite()
    wide = masked_log_softmax(rows, dtype=torch.float32)[finite]
    torch.testing.assert_close(wide, rows[finite].float().log_softmax(-1), rtol=1e-6, atol=1e-6)
    assert torch.equal(masked_log_softmax(rows)[finite], wide.to(half))


def test_gradcheck_in_float64(device: str) -> None:
    logits = torch.randn(4, 9, dtype=torch.float64, requires_grad=True, device=device)
    rows = torch.tensor([3, 1, 3], device=device)
    assert torch.autograd.gradcheck(lambda x: masked_log_softmax(x, rows=rows, temperature=1.4), (logits,))


def test_autocast_changes_nothing(device: str) -> None:
    results = []
    for enabled in (False, True):
        x = torch.linspace(-3, 3, 1800, device=device).reshape(3, 600).requires_grad_()
        with torch.autocast(device, dtype=torch.bfloat16, enabled=enabled):
            out = masked_log_softmax(x)
        out[:, 7].sum().backward()
        results.append((out, x.grad))
    for a, b in zip(*results):
        assert torch.equal(a, b)


def test_opcheck(device: str) -> None:
    logits = torch.randn(4, 9, requires_grad=True, device=device)
    for rows in (None, torch.tensor([3, 1, 3], device=device)):
        arguments = (logits, rows, 1.5, torch.float32)
        torch.library.opcheck(torch.ops.tad_ext.masked_log_softmax.default, arguments)
        out, normalizers = torch.ops.tad_ext.masked_log_softmax(*arguments)
        torch.library.opcheck(
            torch.ops.tad_ext.masked_log_softmax_backward.default,
            (torch.ones_like(out), logits.detach(), rows, normalizers.detach(), 1.5),
        )


def test_compiles_without_graph_breaks(device: str) -> None:
    logits, _ = logits_and_mask(torch.float32, device)
    rows = torch.tensor([4, 0, 14], device=device)

    def step(x: torch.Tensor) -> torch.Tensor:
        return masked_log_softmax(x * 2, rows=rows).square().sum()

    x, y = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    torch.compile(step, fullgraph=True, backend="aot_eager")(x).backward()
    step(y).backward()
    assert torch.equal(x.grad, y.grad)


def test_same_bits_at_any_batch_size_and_thread_count(device: str) -> None:
    logits = torch.randn(16, 1537, device=device)
    whole = masked_log_softmax(logits)
    try:
        torch.set_num_threads(3)
        assert torch.equal(whole, masked_log_softmax(logits))
    finally:
        torch.set_num_threads(1)
    assert torch.equal(whole[5:6], masked_log_softmax(logits, rows=torch.tensor([5], device=device)))


@given(n=st.integers(0, 6), vocabulary=st.integers(1, 1100), scale=st.sampled_from([0.0, 1.0, 100.0, 1e4]))
def test_property_agrees_with_float64(device: str, n: int, vocabulary: int, scale: float) -> None:
    logits = torch.randn(n, vocabulary, device=device) * scale
    torch.testing.assert_close(
        masked_log_softmax(logits).double(), logits.double().log_softmax(-1), rtol=2e-6, atol=2e-6
    )


@pytest.mark.usefixtures("indices_are_checked")
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"mask": torch.ones(4, dtype=torch.bool), "rows": torch.tensor([0])}, ValueError, "mask and rows"),
        ({"mask": torch.ones(3, dtype=torch.bool)}, ValueError, "mask has shape"),
        ({"mask": torch.ones(4)}, TypeError, "mask has dtype"),
        ({"rows": torch.tensor([4])}, ValueError, r"rows\[0\] is 4"),
        ({"rows": torch.tensor([0.0])}, TypeError, "rows has dtype"),
        ({"temperature": -1.0}, ValueError, "temperature is -1"),
        ({"dtype": torch.int64}, TypeError, "dtype"),
    ],
)
def test_bad_arguments_are_named(device: str, arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        masked_log_softmax(torch.zeros(4, 5, device=device), **on(device, arguments))
