"""fused_tad_loss on drawn problems: any form, stride, dtype, weights, denominators, and numbers that break kernels."""

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from op_checks import CUDA_ON_HOST, loss_and_gradient
from torch import Tensor

from tad_ext.ops import fused_tad_loss, reference

# Around vectors, blocks and slices of the CPU's kernels, groups and clusters of the GPU's.
VOCABULARIES = [1, 2, 7, 8, 65, 1023, 1030, *([] if CUDA_ON_HOST else [1537, 12_288, 12_296, 16_421])]
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
LARGEST = {dtype: torch.finfo(dtype).max for dtype in DTYPES}


@dataclass
class Problem:
    """What is passed to the loss; the logits with `gap` elements between rows."""

    student: Tensor
    teacher: Tensor | None
    labels: Tensor
    steps: Tensor
    options: dict[str, Any]


@st.composite
def problems(draw: st.DrawFn, device: str = "cpu") -> Problem:
    entries = draw(st.integers(0, 6))
    vocabulary = draw(st.sampled_from(VOCABULARIES))
    dtype, teacher_dtype = draw(st.sampled_from(DTYPES)), draw(st.sampled_from(DTYPES))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    dense = draw(st.booleans())
    rows = draw(st.integers(1, 5)) if dense else entries
    scale = draw(st.sampled_from([0.0, 1.0, 8.0]))

    def logits(count: int, of_dtype: torch.dtype) -> Tensor:
        gap = draw(st.sampled_from([0, 1, 8]))
        wide = torch.full((count, vocabulary + gap), math.nan, dtype=of_dtype)
        numbers = torch.randn(count, vocabulary, generator=generator, dtype=torch.float64) * scale
        numbers += draw(st.sampled_from([0.0, -300.0, 1000.0]))  # far from zero nothing may be lost but rounding
        wide[:, :vocabulary] = numbers.to(of_dtype)
        return wide.to(device)[:, :vocabulary]

    def integers(low: int, high: int) -> Tensor:
        return torch.randint(low, high, (entries,), generator=generator).to(device)

    kl_weight = draw(st.sampled_from([1.0, 0.0, 0.3]))
    options = {
        "delta": draw(st.integers(0, 3)),
        "ce_weight": draw(st.sampled_from([1.0, 0.0, -0.7])),
        "kl_weight": kl_weight,
        "temperature": draw(st.sampled_from([1.0, 0.25, 7.0])),
        "recompute_gradient": draw(st.sampled_from([None, True, False])),
    }
    if dense:
        options["student_rows"] = integers(0, rows)
        options["teacher_rows"] = integers(0, rows)
    if draw(st.booleans()):
        options["row_weight"] = torch.rand(entries, generator=generator).to(device)
    for side in ("near_count", "distant_count"):
        if draw(st.booleans()):
            options[side] = draw(st.sampled_from([0, 3, torch.tensor(2.5, device=device)]))
    without_teacher = kl_weight == 0.0 and draw(st.booleans())
    return Problem(
        logits(rows, dtype),
        None if without_teacher else logits(rows, teacher_dtype),
        integers(0, vocabulary),
        integers(-1, 6),
        options,
    )


def double(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.double()


@given(st.data())
def test_agrees_with_float64(device: str, data: st.DataObject) -> None:
    p = data.draw(problems(device))
    ours, our_grad = loss_and_gradient(fused_tad_loss, p.student, p.teacher, p.labels, p.steps, **p.options)
    exact, exact_grad = loss_and_gradient(
        reference.fused_tad_loss, p.student.double(), double(p.teacher), p.labels, p.steps, **p.options
    )
    tolerance = 1e-11 if p.student.dtype == torch.float64 else 2e-5
    for mine, true in zip((*ours[:3], ours.entry_losses), (*exact[:3], exact.entry_losses)):
        torch.testing.assert_close(mine.double(), true.double(), rtol=tolerance, atol=tolerance)
    assert ours.near_count == exact.near_count
    assert ours.distant_count == exact.distant_count
    assert our_grad.shape == p.student.shape
    assert our_grad.dtype == p.student.dtype
    if our_grad.numel():
        # A row that several entries name is rounded as often, and not to less than a probability of one is.
        of_entry = max(0.3, exact_grad.abs().max().item())
        rounding = max(tolerance, torch.finfo(p.student.dtype).eps) * max(1, p.labels.numel())
        assert (our_grad.double() - exact_grad).abs().max().item() <= rounding * of_entry


@given(st.data())
def test_the_same_bits_run_after_run_and_row_by_row(device: str, data: st.DataObject) -> None:
    p = data.draw(problems(device))
    fixed = p.options | {"near_count": 2, "distant_count": 3}
    first, gradient = loss_and_gradient(fused_tad_loss, p.student, p.teacher, p.labels, p.steps, **fixed)
    again, same_gradient = loss_and_gradient(fused_tad_loss, p.student, p.teacher, p.labels, p.steps, **fixed)
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert torch.equal(gradient, same_gradient)
    if "student_rows" in fixed or not p.labels.numel():
        return
    i = data.draw(st.integers(0, p.labels.numel() - 1))
    one = slice(i, i + 1)
    alone = {k: v[one] if k == "row_weight" else v for k, v in fixed.items()}
    teacher = None if p.teacher is None else p.teacher[one]
    _, own = loss_and_gradient(fused_tad_loss, p.student[one], teacher, p.labels[one], p.steps[one], **alone)
    assert torch.equal(own[0], gradient[i])


@given(st.data())
def test_numbers_that_are_none_and_the_largest_ones(device: str, data: st.DataObject) -> None:
    """Cross-entropy is NaN, infinite or finite where float64 says so, and so is its gradient."""
    dtype = data.draw(st.sampled_from(DTYPES))
    vocabulary = data.draw(st.sampled_from([v for v in VOCABULARIES if v > 1]))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    row = (torch.randn(vocabulary, generator=generator, dtype=torch.float64) * 3).to(dtype)
    special = [-math.inf, math.inf, math.nan, LARGEST[dtype], -LARGEST[dtype]]
    for _ in range(data.draw(st.integers(1, 3))):
        row[data.draw(st.integers(0, vocabulary - 1))] = data.draw(st.sampled_from(special))
    if data.draw(st.booleans()):
        row[: data.draw(st.integers(1, vocabulary))] = -math.inf
    label = torch.tensor([data.draw(st.integers(0, vocabulary - 1))], device=device)
    student, near = row[None].to(device), torch.ones(1, dtype=torch.int64, device=device)
    ours, gradient = loss_and_gradient(fused_tad_loss, student, None, label, near, delta=1, kl_weight=0.0)
    exact, exact_grad = loss_and_gradient(
        reference.fused_tad_loss, student.double(), None, label, near, delta=1, kl_weight=0.0
    )
    if not exact.ce.to(ours.ce.dtype).isfinite():  # differences of the largest numbers are infinite in float32
        assert not ours.ce.isfinite()
    else:
        torch.testing.assert_close(ours.ce.double(), exact.ce, rtol=2e-5, atol=2e-5)
        torch.testing.assert_close(gradient.double(), exact_grad, rtol=0, atol=max(1e-5, torch.finfo(dtype).eps))


@pytest.mark.parametrize("vocabulary", [9, 1030, *([] if CUDA_ON_HOST else [16_421])])
@pytest.mark.parametrize("side", ["student", "teacher"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_broken_distant_row_is_not_hidden(device: str, side: str, value: float, vocabulary: int) -> None:
    """Wherever it stands: in the first block, in the last column, in another slice."""
    distant = torch.full((1,), 9, device=device)
    label = torch.zeros(1, dtype=torch.int64, device=device)
    for column in {0, vocabulary // 2, vocabulary - 1}:
        rows = {name: torch.randn(1, vocabulary, device=device) for name in ("student", "teacher")}
        rows[side][0, column] = value
        loss = fused_tad_loss(rows["student"], rows["teacher"], label, distant, delta=2).loss
        assert not loss.isfinite()
