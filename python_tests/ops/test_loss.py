"""fused_tad_loss against the float64 reference, autograd's own checks, and its promises about memory and order."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from op_checks import assert_no_worse_than_eager, loss_and_gradient, random_entries

from tad_ext.ops import fused_tad_loss, reference

VOCABULARIES = [1, 3, 43, 512, 1000, 5003]


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_agrees_with_the_reference(dtype: torch.dtype, vocabulary: int, temperature: float) -> None:
    student, teacher, labels, steps = random_entries(13, vocabulary, dtype)
    row_weight = torch.linspace(0.5, 2.0, 13)
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
def test_student_and_teacher_dtypes_may_differ(dtype: torch.dtype, teacher_dtype: torch.dtype) -> None:
    student, teacher, labels, steps = random_entries(12, 301, dtype)
    teacher = teacher.to(teacher_dtype)
    ours, our_grad = loss_and_gradient(fused_tad_loss, student, teacher, labels, steps, delta=2)
    exact, exact_grad = loss_and_gradient(
        reference.fused_tad_loss, student.double(), teacher.double(), labels, steps, delta=2
    )
    torch.testing.assert_close(ours.loss.double(), exact.loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(our_grad.double(), exact_grad, rtol=1e-2, atol=1e-4)


def test_dense_form_adds_rows_named_twice_and_zeroes_the_others(dtype: torch.dtype) -> None:
    student, teacher, labels, steps = random_entries(20, 77, dtype)
    student_rows = torch.tensor([3, 3, 0, 19, 3, 7])
    teacher_rows = torch.tensor([-1, -1, 5, 6, 7, -1])
    labels, steps = labels[:6], torch.tensor([1, 2, 3, 4, 9, 0])
    arguments = (teacher.reshape(4, 5, 77), labels, steps)
    rows = {"student_rows": student_rows, "teacher_rows": teacher_rows, "delta": 2}
    ours, our_grad = loss_and_gradient(fused_tad_loss, student.reshape(4, 5, 77), *arguments, **rows)
    exact, exact_grad = loss_and_gradient(
        reference.fused_tad_loss, student.double().reshape(4, 5, 77), arguments[0].double(), labels, steps, **rows
    )
    eager, eager_grad = loss_and_gradient(reference.fused_tad_loss, student.reshape(4, 5, 77), *arguments, **rows)
    assert_no_worse_than_eager(ours.loss, eager.loss, exact.loss, dtype)
    assert_no_worse_than_eager(our_grad, eager_grad, exact_grad, dtype)
    named = torch.zeros(20, dtype=torch.bool)
    named[[3, 0, 19]] = True
    assert (our_grad.reshape(20, 77)[~named] == 0).all()
    assert (our_grad.reshape(20, 77)[named] != 0).any(-1).all()


def test_gradcheck_in_float64() -> None:
    student, teacher, labels, steps = random_entries(7, 11, torch.float64)
    student.requires_grad_()
    rows = torch.tensor([0, 2, 2, 4, 6, 6, 1])

    def loss(x: torch.Tensor, student_rows: torch.Tensor | None) -> torch.Tensor:
        weight = torch.linspace(0.1, 2, 7, dtype=torch.float64)
        return fused_tad_loss(
            x, teacher, labels, steps, delta=2, ce_weight=0.3, kl_weight=2.0, temperature=1.7, row_weight=weight,
            student_rows=student_rows, teacher_rows=None if student_rows is None else torch.arange(7),
        ).loss  # fmt: skip

    assert torch.autograd.gradcheck(loss, (student, None))
    assert torch.autograd.gradcheck(loss, (student, rows))


@pytest.mark.parametrize("form", ["compact", "dense"])
def test_opcheck(form: str) -> None:
    student, teacher, labels, steps = random_entries(6, 19, torch.float32)
    student.requires_grad_()
    rows = None if form == "compact" else torch.tensor([0, 1, 1, 3, 5, 4])
    count = torch.tensor(3.0)
    arguments = (student, teacher, labels, steps, 2, 1.0, 0.5, 1.5, torch.ones(6), rows, rows, count, None)
    torch.library.opcheck(torch.ops.tad_ext.tad_loss.default, arguments)
    near, distant, sums = torch.ops.tad_ext.tad_loss(*arguments)[3:]
    backward = (torch.tensor(1.0), student.detach(), *arguments[1:4], sums.detach(), *arguments[4:11], near, distant)
    torch.library.opcheck(torch.ops.tad_ext.tad_loss_backward.default, backward)


def test_compiles_without_graph_breaks() -> None:
    student, teacher, labels, steps = random_entries(9, 33, torch.float32)

    def step(x: torch.Tensor) -> torch.Tensor:
        return fused_tad_loss(x * 2, teacher, labels, steps, delta=2, near_count=4).loss * 3

    x = student.clone().requires_grad_()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")(x)
    compiled.backward()
    y = student.clone().requires_grad_()
    step(y).backward()
    assert torch.equal(compiled, step(y))
    assert torch.equal(x.grad, y.grad)


def test_same_bits_at_any_batch_size_and_thread_count() -> None:
    student, teacher, labels, steps = random_entries(24, 2049, torch.float32)
    whole, whole_grad = loss_and_gradient(
        fused_tad_loss, student, teacher, labels, steps, delta=2, near_count=1, distant_count=1
    )
    try:
        torch.set_num_threads(4)
        threaded, threaded_grad = loss_and_gradient(
            fused_tad_loss, student, teacher, labels, steps, delta=2, near_count=1, distant_count=1
        )
    finally:
        torch.set_num_threads(1)
    assert torch.equal(whole.loss, threaded.loss)
    assert torch.equal(whole_grad, threaded_grad)
    for i in range(24):
        _, one_grad = loss_and_gradient(
            fused_tad_loss, student[i : i + 1], teacher[i : i + 1], labels[i : i + 1], steps[i : i + 1], delta=2,
            near_count=1, distant_count=1,
        )  # fmt: skip
        assert torch.equal(one_grad[0], whole_grad[i])


def test_autocast_changes_nothing() -> None:
    student, teacher, labels, steps = random_entries(9, 130, torch.float32)
    plain, plain_grad = loss_and_gradient(fused_tad_loss, student, teacher, labels, steps, delta=2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under, under_grad = loss_and_gradient(fused_tad_loss, student, teacher, labels, steps, delta=2)
    assert torch.equal(plain.loss, under.loss)
    assert torch.equal(plain_grad, under_grad)


@pytest.mark.parametrize("steps", [[], [0, 0, -3], [1, 1, 1], [9, 9, 9]])
def test_empty_sides_are_exactly_zero(steps: list[int]) -> None:
    n = len(steps)
    student, teacher, labels, _ = random_entries(n, 21, torch.float32)
    result, grad = loss_and_gradient(fused_tad_loss, student, teacher, labels, torch.tensor(steps).long(), delta=2)
    near, distant = sum(0 < s <= 2 for s in steps), sum(s > 2 for s in steps)
    assert (result.near_count, result.distant_count) == (near, distant)
    assert (result.ce == 0) == (near == 0)
    assert (result.kl == 0) == (distant == 0)
    assert grad.shape == student.shape
    assert (grad != 0).any().item() == (near + distant > 0)


def test_kl_of_equal_logits_is_exactly_zero(dtype: torch.dtype) -> None:
    student, _, labels, _ = random_entries(5, 999, dtype)
    steps = torch.full((5,), 7)
    result, grad = loss_and_gradient(fused_tad_loss, student, student.clone(), labels, steps, delta=2)
    assert abs(result.kl.item()) < (1e-12 if dtype == torch.float64 else 1e-7)
    assert (grad == 0).all()


def test_what_is_not_read_may_be_anything() -> None:
    """Labels of entries that are not near, teacher rows of entries that are not distant, silent rows: poison."""
    student, teacher, labels, steps = random_entries(18, 50, torch.float32)
    clean, clean_grad = loss_and_gradient(fused_tad_loss, student, teacher, labels, steps, delta=2)
    near, distant = (steps >= 1) & (steps <= 2), steps > 2
    teacher[~distant] = torch.nan
    student[steps <= 0] = torch.nan
    labels[~near] = -100
    poisoned, poisoned_grad = loss_and_gradient(fused_tad_loss, student, teacher, labels, steps, delta=2)
    assert torch.equal(clean.loss, poisoned.loss)
    assert torch.equal(clean_grad, poisoned_grad)
    assert (poisoned_grad[steps <= 0] == 0).all()


def test_impossible_tokens() -> None:
    """-inf logits: no probability, no gradient; where only the teacher finds a token possible, KL is infinite."""
    student, teacher, labels, _ = random_entries(4, 40, torch.float32)
    steps = torch.tensor([1, 5, 5, 1])
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
def test_nan_is_not_hidden(pattern: int) -> None:
    student, teacher, labels, _ = random_entries(4, 2000, torch.float32)
    steps = torch.tensor([1, 5, 5, 1])
    nan = torch.tensor(pattern, dtype=torch.int32).view(torch.float32)
    for tensor, row in ((student, 0), (student, 1), (teacher, 2)):
        broken = tensor.clone()
        broken[row, 1234] = nan
        pair = (broken, teacher) if tensor is student else (student, broken)
        assert fused_tad_loss(*pair, labels, steps, delta=2).loss.isnan()


def test_retained_graph_repeats_the_gradient_and_double_backward_raises() -> None:
    student, teacher, labels, steps = random_entries(9, 33, torch.float32)
    student.requires_grad_()
    loss = fused_tad_loss(student, teacher, labels, steps, delta=2).loss
    (first,) = torch.autograd.grad(loss, student, retain_graph=True)
    (second,) = torch.autograd.grad(loss, student, retain_graph=True)
    assert torch.equal(first, second)
    assert first.data_ptr() != second.data_ptr()
    (tripled,) = torch.autograd.grad(loss * 3, student, retain_graph=True)
    torch.testing.assert_close(tripled, 3 * first)
    (graph,) = torch.autograd.grad(loss, student, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        graph.sum().backward()


def test_indices_are_checked_again_in_backward() -> None:
    """A buffer rewritten behind autograd's back is an error, not a crash."""
    student, teacher, labels, steps = random_entries(6, 33, torch.float32)
    rows = torch.arange(6)
    student.requires_grad_()
    loss = fused_tad_loss(student, teacher, labels, steps, delta=2, student_rows=rows, teacher_rows=rows).loss
    rows.numpy()[:] = 10**9
    with pytest.raises(ValueError, match=r"student_rows\[0\] is 1000000000"):
        loss.backward()


def test_a_part_that_is_switched_off_adds_nothing() -> None:
    student, teacher, labels, _ = random_entries(2, 33, torch.float32)
    student[1, 5] = -torch.inf
    for function in (fused_tad_loss, reference.fused_tad_loss):
        result = function(student, teacher, labels, torch.tensor([1, 9]), delta=2, kl_weight=0.0)
        assert result.kl == torch.inf
        assert result.loss == result.ce


def test_dynamic_shapes_compile_once() -> None:
    compiled = torch.compile(
        lambda s, t, y, k: fused_tad_loss(s, t, y, k, delta=2).loss, fullgraph=True, dynamic=True, backend="aot_eager"
    )
    for n in (5, 9, 2):
        entries = random_entries(n, 33, torch.float32)
        assert torch.equal(compiled(*entries), fused_tad_loss(*entries, delta=2).loss)


def test_expanded_and_permuted_logits() -> None:
    student, teacher, labels, steps = random_entries(12, 40, torch.float32)
    expanded = student[:1].expand(12, 40)
    ours, _ = loss_and_gradient(fused_tad_loss, expanded.contiguous(), teacher, labels, steps, delta=2)
    x = student[:1].clone().requires_grad_()
    loss = fused_tad_loss(x.expand(12, 40), teacher, labels, steps, delta=2).loss
    loss.backward()
    assert torch.equal(loss, ours.loss)
    assert x.grad.shape == (1, 40)
    cube = student.reshape(3, 4, 40).permute(1, 0, 2)
    order = torch.arange(12).reshape(3, 4).T.reshape(-1)
    permuted = fused_tad_loss(cube, teacher, labels, steps, delta=2).loss
    assert torch.equal(permuted, fused_tad_loss(student[order], teacher, labels, steps, delta=2).loss)


def test_inputs_are_never_written() -> None:
    student, teacher, labels, steps = random_entries(9, 600, torch.bfloat16)
    copies = [tensor.clone() for tensor in (student, teacher, labels, steps)]
    loss_and_gradient(fused_tad_loss, student, teacher, labels, steps, delta=2)
    student.requires_grad_()
    fused_tad_loss(student, teacher, labels, steps, delta=2).loss.backward()
    for tensor, copy in zip((student, teacher, labels, steps), copies):
        assert torch.equal(tensor.detach(), copy)


def test_strided_logits_need_no_contiguity() -> None:
    student, teacher, labels, steps = random_entries(9, 64, torch.float32)
    wide = torch.full((9, 100), torch.nan)
    wide[:, :64] = student
    transposed = teacher.T.contiguous().T
    ours, our_grad = loss_and_gradient(fused_tad_loss, student, teacher, labels, steps, delta=2)
    x = wide[:, :64].detach().requires_grad_()
    loss = fused_tad_loss(x, transposed, labels, steps, delta=2).loss
    loss.backward()
    assert torch.equal(loss, ours.loss)
    assert torch.equal(x.grad, our_grad)


def test_denominators_from_outside() -> None:
    student, teacher, labels, steps = random_entries(12, 30, torch.float32)
    own = fused_tad_loss(student, teacher, labels, steps, delta=2)
    given = fused_tad_loss(student, teacher, labels, steps, delta=2, near_count=8, distant_count=2 * own.distant_count)
    torch.testing.assert_close(given.ce, own.ce * own.near_count / 8)
    torch.testing.assert_close(given.kl, own.kl / 2)
    assert given.near_count == own.near_count
    none = fused_tad_loss(student, teacher, labels, torch.zeros(12).long(), delta=2, near_count=0, distant_count=0)
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
    n: int, vocabulary: int, delta: int, scale: float, temperature: float, seed: int
) -> None:
    student, teacher, labels, _ = random_entries(n, vocabulary, torch.float32, seed=seed, scale=scale)
    steps = torch.randint(-2, 8, (n,), generator=torch.Generator().manual_seed(seed))
    options = {"delta": delta, "temperature": temperature}
    ours, our_grad = loss_and_gradient(fused_tad_loss, student, teacher, labels, steps, **options)
    exact, exact_grad = loss_and_gradient(
        reference.fused_tad_loss, student.double(), teacher.double(), labels, steps, **options
    )
    size = max(1.0, scale)
    torch.testing.assert_close(ours.loss.double(), exact.loss, rtol=3e-6, atol=2e-6 * size)
    torch.testing.assert_close(our_grad.double(), exact_grad, rtol=1e-4, atol=1e-6 * size)


ERRORS = [
    ({"delta": -1}, ValueError, "delta is -1"),
    ({"delta": 8.5}, TypeError, "delta is 8.5, expected an integer"),
    ({"delta": 2, "temperature": 0.0}, ValueError, "temperature is 0"),
    ({"delta": 2, "ce_weight": float("nan")}, ValueError, "ce_weight is nan"),
    ({"delta": 2, "labels": torch.zeros(4)}, TypeError, "labels has dtype"),
    ({"delta": 2, "labels": torch.tensor([5, 0, 0, 0])}, ValueError, r"labels\[0\] is 5, expected 0 <= label < 5"),
    ({"delta": 2, "labels": torch.zeros(3).long()}, ValueError, r"steps_to_reveal has shape \[4\], expected \[3\]"),
    ({"delta": 2, "student": torch.zeros(4, 5).long()}, TypeError, "student_logits has dtype"),
    ({"delta": 2, "student": torch.zeros(3, 5)}, ValueError, "the student has 3 rows, expected 4"),
    ({"delta": 2, "teacher": torch.zeros(4, 6)}, ValueError, "teacher_logits has shape"),
    ({"delta": 2, "teacher": torch.zeros(2, 5)}, ValueError, "the teacher has 2 rows, expected 4"),
    ({"delta": 2, "teacher": torch.zeros(9, 5)}, ValueError, "the teacher has 9 rows, expected 4"),
    ({"delta": 2, "teacher_rows": torch.tensor([-1, -1, 4, 0])}, ValueError, r"teacher_rows\[2\] is 4"),
    (
        {
            "delta": 2,
            "student": torch.zeros(2, 2, 5),
            "labels": torch.zeros(4, 1).long(),
            "steps": torch.ones(4, 1).long(),
        },
        ValueError,
        r"labels has shape \[4, 1\], expected \[2, 2\]",
    ),
    ({"delta": 2, "temperature": 1e20}, ValueError, "temperature is 1e"),
    ({"delta": 2, "teacher": None}, ValueError, "teacher_logits is None"),
    ({"delta": 2, "student_rows": torch.tensor([0, 1, 2, 4])}, ValueError, r"student_rows\[3\] is 4"),
    ({"delta": 2, "row_weight": torch.ones(3)}, ValueError, "row_weight has shape"),
    ({"delta": 2, "near_count": -1}, ValueError, "near_count is -1"),
]


@pytest.mark.parametrize(("changes", "error", "message"), ERRORS)
def test_bad_arguments_are_named(changes: dict, error: type[Exception], message: str) -> None:
    arguments = {
        "student": torch.zeros(4, 5),
        "teacher": torch.zeros(4, 5),
        "labels": torch.zeros(4).long(),
        "steps": torch.tensor([1, 2, 3, 4]),
        **changes,
    }
    positional = [arguments.pop(name) for name in ("student", "teacher", "labels", "steps")]
    with pytest.raises(error, match=message):
        fused_tad_loss(*positional, **arguments)


def test_teacher_may_be_left_out_without_kl() -> None:
    student, teacher, labels, steps = random_entries(9, 33, torch.float32)
    result, grad = loss_and_gradient(fused_tad_loss, student, None, labels, steps, delta=2, kl_weight=0.0)
    assert result.kl == 0
    assert (grad[steps > 2] == 0).all()
    assert result.ce == fused_tad_loss(student, teacher, labels, steps, delta=2).ce
