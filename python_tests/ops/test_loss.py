"""fused_tad_loss: its numbers, against the float64 reference."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from op_checks import assert_no_worse_than_eager, loss_and_gradient, random_entries, switched_off

from tad_ext.ops import fused_tad_loss, reference

VOCABULARIES = [1, 3, 43, 512, 1000, 5003]


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_agrees_with_the_reference(device: str, dtype: torch.dtype, vocabulary: int, temperature: float) -> None:
    student, teacher, labels, steps = random_entries(13, vocabulary, dtype, device)
    row_weight = torch.linspace(0.5, 2.0, 13, device=device)
    options = {"delta": 2, "ce_weight": 0.7, "kl_weight": 1.3, "temperature": temperature, "row_weight": row_weight}
    exact, exact_grad = loss_and_gradient(
        reference.fused_tad_loss, student.double(), teacher.double(), labels, steps, **options
    )
    eager, eager_grad = loss_and_gradient(reference.fused_tad_loss, student, teacher, labels, steps, **options)
    ours, our_grad = loss_and_gradient(fused_tad_loss, student, teacher, labels, steps, **options)
    assert our_grad.dtype == dtype
    assert ours.near_count == exact.near_count
    assert ours.distant_count == exact.distant_count
    for mine, theirs, true in zip(ours[:3], eager[:3], exact[:3]):
        assert_no_worse_than_eager(mine, theirs, true, torch.float64 if dtype == torch.float64 else torch.float32)
    assert_no_worse_than_eager(our_grad, eager_grad, exact_grad, dtype)


@pytest.mark.parametrize("teacher_dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_student_and_teacher_dtypes_may_differ(device: str, dtype: torch.dtype, teacher_dtype: torch.dtype) -> None:
    student, teacher, labels, steps = random_entries(12, 301, dtype, device)
    teacher = teacher.to(teacher_dtype)
    ours, our_grad = loss_and_gradient(fused_tad_loss, student, teacher, labels, steps, delta=2)
    exact, exact_grad = loss_and_gradient(
        reference.fused_tad_loss, student.double(), teacher.double(), labels, steps, delta=2
    )
    torch.testing.assert_close(ours.loss.double(), exact.loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(our_grad.double(), exact_grad, rtol=1e-2, atol=1e-4)


def test_each_entry_has_a_loss_of_its_own(device: str, dtype: torch.dtype) -> None:
    """Hand-worked: -log(1/10); KL((1/2, 1/2) || (1/4, 3/4)) = log(4/3) / 2; and 0, whatever weights and T^2 say."""
    rows = (torch.tensor([[row] * 2] * 2, device=device) for row in ([1, 3], [1, 1]))
    student, teacher = (of_all.log().mul(2).to(dtype) for of_all in rows)
    labels, steps = torch.tensor([[0, 1], [0, 0]], device=device), torch.tensor([[1, 3], [0, 3]], device=device)
    weight = torch.tensor([0.0, 0.5, 1.0, 0.0], device=device)
    options = {"delta": 2, "ce_weight": 0.3, "kl_weight": 0.0, "temperature": 2.0, "row_weight": weight}
    found = fused_tad_loss(student, teacher, labels, steps, **options).entry_losses
    divergence = math.log(4 / 3) / 2
    expected = torch.tensor([[math.log(10), divergence], [0, divergence]], dtype=torch.float64, device=device)
    torch.testing.assert_close(found, expected, rtol=3e-2 if dtype == torch.bfloat16 else 2e-3, atol=0)


def test_dense_form_adds_rows_named_twice_and_zeroes_the_others(device: str, dtype: torch.dtype) -> None:
    student, teacher, labels, steps = random_entries(20, 77, dtype, device)
    student_rows = torch.tensor([3, 3, 0, 19, 3, 7], device=device)
    teacher_rows = torch.tensor([-1, -1, 5, 6, 7, -1], device=device)
    labels, steps = labels[:6], torch.tensor([1, 2, 3, 4, 9, 0], device=device)
    arguments = (teacher.reshape(4, 5, 77), labels, steps)
    rows = {"student_rows": student_rows, "teacher_rows": teacher_rows, "delta": 2}
    ours, our_grad = loss_and_gradient(fused_tad_loss, student.reshape(4, 5, 77), *arguments, **rows)
    exact, exact_grad = loss_and_gradient(
        reference.fused_tad_loss, student.double().reshape(4, 5, 77), arguments[0].double(), labels, steps, **rows
    )
    eager, eager_grad = loss_and_gradient(reference.fused_tad_loss, student.reshape(4, 5, 77), *arguments, **rows)
    assert_no_worse_than_eager(ours.loss, eager.loss, exact.loss, dtype)
    assert_no_worse_than_eager(our_grad, eager_grad, exact_grad, dtype)
    named = torch.zeros(20, dtype=torch.bool, device=device)
    named[[3, 0, 19]] = True
    assert (our_grad.reshape(20, 77)[~named] == 0).all()
    assert (our_grad.reshape(20, 77)[named] != 0).any(-1).all()


def test_gradcheck_in_float64(device: str) -> None:
    student, teacher, labels, steps = random_entries(7, 11, torch.float64, device)
    student.requires_grad_()
    rows = torch.tensor([0, 2, 2, 4, 6, 6, 1], device=device)

    def loss(x: torch.Tensor, student_rows: torch.Tensor | None) -> torch.Tensor:
        weight = torch.linspace(0.1, 2, 7, dtype=torch.float64, device=device)
        return fused_tad_loss(
            x, teacher, labels, steps, delta=2, ce_weight=0.3, kl_weight=2.0, temperature=1.7, row_weight=weight,
            student_rows=student_rows, teacher_rows=None if student_rows is None else torch.arange(7, device=device),
        ).loss  # fmt: skip

    assert torch.autograd.gradcheck(loss, (student, None))
    assert torch.autograd.gradcheck(loss, (student, rows))


@pytest.mark.parametrize("steps", [[], [0, 0, -3], [1, 1, 1], [9, 9, 9]])
def test_empty_sides_are_exactly_zero(device: str, steps: list[int]) -> None:
    student, teacher, labels, _ = random_entries(len(steps), 21, torch.float32, device)
    steps_to_reveal = torch.tensor(steps, device=device).long()
    result, grad = loss_and_gradient(fused_tad_loss, student, teacher, labels, steps_to_reveal, delta=2)
    near, distant = sum(0 < s <= 2 for s in steps), sum(s > 2 for s in steps)
    assert (result.near_count, result.distant_count) == (near, distant)
    assert (result.ce == 0) == (near == 0)
    assert (result.kl == 0) == (distant == 0)
    assert grad.shape == student.shape
    assert (grad != 0).any().item() == (near + distant > 0)


def test_kl_of_equal_logits_is_exactly_zero(device: str, dtype: torch.dtype) -> None:
    student, _, labels, _ = random_entries(5, 999, dtype, device)
    steps = torch.full((5,), 7, device=device)
    result, grad = loss_and_gradient(fused_tad_loss, student, student.clone(), labels, steps, delta=2)
    assert abs(result.kl.item()) < (1e-12 if dtype == torch.float64 else 1e-7)
    assert (grad == 0).all()


def test_what_is_not_read_may_be_anything(device: str) -> None:
    """Labels of entries that are not near, teacher rows of entries that are not distant, silent rows: poison."""
    student, teacher, labels, steps = random_entries(18, 50, torch.float32, device)
    clean, clean_grad = loss_and_gradient(fused_tad_loss, student, teacher, labels, steps, delta=2)
    near, distant = (steps >= 1) & (steps <= 2), steps > 2
    teacher[~distant] = torch.nan
    student[steps <= 0] = torch.nan
    labels[~near] = -100
    poisoned, poisoned_grad = loss_and_gradient(fused_tad_loss, student, teacher, labels, steps, delta=2)
    assert torch.equal(clean.loss, poisoned.loss)
    assert torch.equal(clean_grad, poisoned_grad)
    assert (poisoned_grad[steps <= 0] == 0).all()


def test_impossible_tokens(device: str) -> None:
    """-inf logits: no probability, no gradient; where only the teacher finds a token possible, KL is infinite."""
    student, teacher, labels, _ = random_entries(4, 40, torch.float32, device)
    steps = torch.tensor([1, 5, 5, 1], device=device)
    student[:, 10:15] = -torch.inf
    teacher[:, 10:20] = -torch.inf
    labels[:] = 0
    result, grad = loss_and_gradient(fused_tad_loss, student, teacher, labels, steps, delta=2)
    exact, _ = loss_and_gradient(reference.fused_tad_loss, student.double(), teacher.double(), labels, steps, delta=2)
    torch.testing.assert_close(result.loss.double(), exact.loss, rtol=1e-5, atol=1e-6)
    assert (grad[:, 10:15] == 0).all()
    teacher[1, 10] = 0.0
    assert fused_tad_loss(student, teacher, labels, steps, delta=2).kl == torch.inf


# Arithmetic makes the first; the others are what uninitialised memory may hold.
NAN_PATTERNS = [0x7FC00000, 0x7FC00001, 0x7F800001, 0x7FFFFFFF, -1]


@pytest.mark.parametrize("pattern", NAN_PATTERNS)
def test_nan_is_not_hidden(device: str, pattern: int) -> None:
    student, teacher, labels, _ = random_entries(4, 2000, torch.float32, device)
    steps = torch.tensor([1, 5, 5, 1], device=device)
    nan = torch.tensor(pattern, dtype=torch.int32, device=device).view(torch.float32)
    for tensor, row in ((student, 0), (student, 1), (teacher, 2)):
        broken = tensor.clone()
        broken[row, 1234] = nan
        pair = (broken, teacher) if tensor is student else (student, broken)
        assert fused_tad_loss(*pair, labels, steps, delta=2).loss.isnan()


def test_a_part_that_is_switched_off_adds_nothing(device: str) -> None:
    student, teacher, labels, _ = random_entries(2, 33, torch.float32, device)
    student[1, 5] = -torch.inf
    for function in (fused_tad_loss, reference.fused_tad_loss):
        result = function(student, teacher, labels, torch.tensor([1, 9], device=device), delta=2, kl_weight=0.0)
        assert result.kl == torch.inf
        assert result.loss == result.ce


@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("option", ["ce_weight", "kl_weight", "row_weight"])
@pytest.mark.parametrize("recompute_gradient", [False, True])
@pytest.mark.parametrize("function", [fused_tad_loss, reference.fused_tad_loss])
def test_weight_0_is_gradient_0(
    device: str, dtype: torch.dtype, function: Callable, recompute_gradient: bool, option: str, poison: float
) -> None:
    """Whatever only switched off entries read: loss and gradient are those of harmless numbers."""
    student, teacher, labels, steps = random_entries(12, 700, dtype, device)
    labels[:] = 300
    off = switched_off(steps)[option]
    weight = torch.where(off, 0.0, 2.0) if option == "row_weight" else 0.0
    options = {"delta": 2, "recompute_gradient": recompute_gradient, option: weight}
    clean, clean_grad = loss_and_gradient(function, student, teacher, labels, steps, **options)
    student[off, 300], teacher[off, 300] = poison, abs(poison)
    result, grad = loss_and_gradient(function, student, teacher, labels, steps, **options)
    assert torch.equal(result.loss, clean.loss)
    assert torch.equal(grad, clean_grad)
    assert (grad[off] == 0).all()
    assert grad.any()
    reported = {"ce_weight": result.ce, "kl_weight": result.kl}
    if option in reported:
        assert not reported[option].isfinite()
    else:
        assert torch.equal(torch.stack(result[1:3]), torch.stack(clean[1:3]))


def test_an_entry_of_weight_0_adds_nothing_to_a_row_of_others(device: str, dtype: torch.dtype) -> None:
    student, teacher, labels, _ = random_entries(3, 700, dtype, device)
    teacher[1] = torch.nan
    steps, rows = torch.tensor([9, 9, 1], device=device), torch.tensor([2, 2, 2], device=device)
    for function in (fused_tad_loss, reference.fused_tad_loss):
        grads = [
            loss_and_gradient(
                function, student, teacher, labels[kept], steps[kept], delta=2, student_rows=rows[kept],
                teacher_rows=torch.tensor(kept, device=device), distant_count=2,
                row_weight=torch.tensor([1.0, 0.0, 1.0], device=device)[kept],
            )[1]
            for kept in ([0, 1, 2], [0, 2])
        ]  # fmt: skip
        assert torch.equal(*grads)
        assert grads[0][2].any()


def test_denominators_from_outside(device: str) -> None:
    student, teacher, labels, steps = random_entries(12, 30, torch.float32, device)
    own = fused_tad_loss(student, teacher, labels, steps, delta=2)
    given = fused_tad_loss(student, teacher, labels, steps, delta=2, near_count=8, distant_count=2 * own.distant_count)
    torch.testing.assert_close(given.ce, own.ce * own.near_count / 8)
    torch.testing.assert_close(given.kl, own.kl / 2)
    assert given.near_count == own.near_count
    silent = torch.zeros_like(steps)
    none = fused_tad_loss(student, teacher, labels, silent, delta=2, near_count=0, distant_count=0)
    assert none.loss == 0


@given(
    n=st.integers(0, 9),
    vocabulary=st.integers(1, 1100),
    delta=st.integers(0, 5),
    scale=st.sampled_from([0.0, 1.0, 30.0, 1e4]),
    temperature=st.sampled_from([0.3, 1.0, 4.0]),
    seed=st.integers(0, 2**31),
)
def test_property_agrees_with_float64(
    device: str, n: int, vocabulary: int, delta: int, scale: float, temperature: float, seed: int
) -> None:
    student, teacher, labels, _ = random_entries(n, vocabulary, torch.float32, device, seed=seed, scale=scale)
    steps = torch.randint(-2, 8, (n,), generator=torch.Generator().manual_seed(seed)).to(device)
    options = {"delta": delta, "temperature": temperature}
    ours, our_grad = loss_and_gradient(fused_tad_loss, student, teacher, labels, steps, **options)
    exact, exact_grad = loss_and_gradient(
        reference.fused_tad_loss, student.double(), teacher.double(), labels, steps, **options
    )
    size = max(1.0, scale)
    torch.testing.assert_close(ours.loss.double(), exact.loss, rtol=3e-6, atol=2e-6 * size)
    torch.testing.assert_close(our_grad.double(), exact_grad, rtol=1e-4, atol=1e-6 * size)


def test_teacher_may_be_left_out_without_kl(device: str) -> None:
    student, teacher, labels, steps = random_entries(9, 33, torch.float32, device)
    result, grad = loss_and_gradient(fused_tad_loss, student, None, labels, steps, delta=2, kl_weight=0.0)
    assert result.kl == 0
    assert (grad[steps > 2] == 0).all()
    assert result.ce == fused_tad_loss(student, teacher, labels, steps, delta=2).ce
