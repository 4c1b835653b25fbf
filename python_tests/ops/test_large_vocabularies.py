"""Vocabularies of real models: many blocks a row, and work on a row that is shared."""

import pytest
import torch
from op_checks import CUDA_ON_HOST, assert_no_worse_than_eager, loss_and_gradient, random_entries

from tad_ext.ops import fused_tad_loss, masked_log_softmax, reference, token_statistics

pytestmark = pytest.mark.slow
LLADA, DREAM = 126_464, 152_064
large_vocabularies = pytest.mark.parametrize(
    "vocabulary", [LLADA + 1] if CUDA_ON_HOST else [LLADA, LLADA + 1, DREAM, 2**18 + 5]
)
half_or_single = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


@large_vocabularies
@half_or_single
def test_loss(device: str, dtype: torch.dtype, vocabulary: int) -> None:
    student, teacher, _, steps = random_entries(6, vocabulary, dtype, device)
    labels = torch.tensor([0, 1, vocabulary - 1, 100_000, 3, 4], device=device)
    exact, exact_grad = loss_and_gradient(
        reference.fused_tad_loss, student.double(), teacher.double(), labels, steps, delta=2
    )
    eager, eager_grad = loss_and_gradient(reference.fused_tad_loss, student, teacher, labels, steps, delta=2)
    ours, our_grad = loss_and_gradient(fused_tad_loss, student, teacher, labels, steps, delta=2)
    for mine, theirs, true in zip(ours[:3], eager[:3], exact[:3]):
        assert_no_worse_than_eager(mine, theirs, true, torch.float32)
    assert_no_worse_than_eager(our_grad, eager_grad, exact_grad, dtype)
    torch.testing.assert_close(our_grad.double(), exact_grad, rtol=1e-2, atol=1e-8)


@large_vocabularies
@half_or_single
def test_log_softmax(device: str, dtype: torch.dtype, vocabulary: int) -> None:
    logits, upstream, _, _ = random_entries(3, vocabulary, dtype, device)
    rows = torch.tensor([2, 0], device=device)
    results = []
    for function, x in (
        (masked_log_softmax, logits),
        (reference.masked_log_softmax, logits),
        (reference.masked_log_softmax, logits.double()),
    ):
        x = x.detach().clone().requires_grad_()
        out = function(x, rows=rows)
        out.backward(upstream[:2].to(out.dtype))
        results.append((out.detach(), x.grad))
    for ours, eager, exact in zip(*results):
        assert_no_worse_than_eager(ours, eager, exact, dtype)


@large_vocabularies
@half_or_single
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_statistics(device: str, dtype: torch.dtype, vocabulary: int, temperature: float) -> None:
    logits, _, _, _ = random_entries(6, vocabulary, dtype, device)
    # Where the best tokens lie, and where they tie: at both ends and across the row.
    for row, tokens in enumerate(([0], [vocabulary - 1], [5, vocabulary - 2], [70_000, 110_000], [511, 512])):
        logits[row, tokens] = 20.0
    suppress = torch.tensor([70_000, vocabulary - 1], device=device)
    seeds, offsets = torch.arange(6, device=device), torch.arange(6, device=device)
    options = {"temperature": temperature, "suppress_tokens": suppress, "seeds": seeds, "offsets": offsets}
    ours = token_statistics(logits, **options)
    exact = reference.token_statistics(logits.double(), **options)
    for name in ("token", "second_token", "valid"):
        assert torch.equal(getattr(ours, name), getattr(exact, name)), name
    for name in ("confidence", "margin", "entropy", "logsumexp"):
        torch.testing.assert_close(getattr(ours, name), getattr(exact, name), rtol=1e-5, atol=2e-6)
    one = token_statistics(logits, rows=torch.tensor([3], device=device), **options | {
        "seeds": seeds[3:4], "offsets": offsets[3:4]})  # fmt: skip
    assert all(torch.equal(a[3:4], b) for a, b in zip(ours, one))
