"""fused_tad_loss as an operator: autograd, compilation, layouts, the same bits, and errors."""

from functools import partial

import pytest
import torch
from op_checks import DTYPES, loss_and_gradient, on, random_entries
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from tad_ext.ops import fused_tad_loss, reference


@pytest.mark.parametrize("form", ["compact", "dense"])
def test_opcheck(device: str, form: str) -> None:
    student, teacher, labels, steps = random_entries(6, 19, torch.float32, device)
    student.requires_grad_()
    rows = None if form == "compact" else torch.tensor([0, 1, 1, 3, 5, 4], device=device)
    count = torch.tensor(3.0, device=device)
    weight = torch.ones(6, device=device)
    arguments = (student, teacher, rows, labels, steps, 2, 1.0, 0.5, 1.5, weight, rows, count, None)
    for in_forward in (False, True):
        torch.library.opcheck(torch.ops.tad_ext.tad_loss.default, (*arguments, in_forward))
    half = torch.tensor(0.5, device=device)
    torch.library.opcheck(torch.ops.tad_ext.tad_loss_gradient.default, (half, student.detach(), *arguments[1:]))
    torch.library.opcheck(torch.ops.tad_ext.scale_gradient.default, (student.detach().clone(), half))


def test_compiles_without_graph_breaks(device: str) -> None:
    student, teacher, labels, steps = random_entries(9, 33, torch.float32, device)

    def step(x: torch.Tensor, recompute_gradient: bool | None = None) -> torch.Tensor:
        loss = fused_tad_loss(
            x * 2, teacher, labels, steps, delta=2, near_count=4, recompute_gradient=recompute_gradient
        ).loss
        return loss * 3

    x, y, z = (student.clone().requires_grad_() for _ in range(3))
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")(x)
    compiled.backward()
    recomputed = step(y, recompute_gradient=True)
    recomputed.backward()
    assert torch.equal(compiled, recomputed)
    assert torch.equal(x.grad, y.grad)
    step(z).backward()
    torch.testing.assert_close(x.grad, z.grad, rtol=1e-6, atol=0)  # multiplied by 3 after it was rounded


@pytest.mark.parametrize("outer", [1.0, -0.375])
@pytest.mark.parametrize("dtype", DTYPES)
def test_recomputing_gives_the_same_loss_and_gradient(device: str, dtype: torch.dtype, outer: float) -> None:
    """The bits differ only by when the factor was applied; a power of two times an odd number shows both cases."""
    entries = random_entries(9, 1300, dtype, device)
    rows = torch.tensor([0, 3, 3, 3, 10, 7, 1, 0, 5], device=device)
    results = []
    for recompute in (False, True):
        x = torch.cat([entries[0]] * 2)[:12].detach().requires_grad_()
        loss = fused_tad_loss(x, *entries[1:], delta=2, student_rows=rows, recompute_gradient=recompute).loss
        (loss * outer).backward()
        results.append((loss, x.grad))
    (loss, kept), (loss_again, recomputed) = results
    assert torch.equal(loss, loss_again)
    if outer == 1.0:
        assert torch.equal(kept, recomputed)
    else:
        rounding = torch.finfo(dtype).eps * 2
        torch.testing.assert_close(kept, recomputed, rtol=rounding, atol=rounding * kept.abs().max().item())


def test_a_factor_may_be_part_of_both_weights(device: str) -> None:
    """Over four accumulation steps, for example; the bits are the same, because four is a power of two."""
    student, *entries = random_entries(9, 1300, torch.bfloat16, device)
    x, y = (student.clone().requires_grad_() for _ in range(2))
    (fused_tad_loss(x, *entries, delta=2).loss / 4).backward()
    before = fused_tad_loss(y, *entries, delta=2, ce_weight=0.25, kl_weight=0.25)
    before.loss.backward()
    assert torch.equal(x.grad, y.grad)
    assert torch.equal(before.loss, (before.ce + before.kl) / 4)


def test_a_gradient_is_given_away_only_once(device: str) -> None:
    """Whoever gets it may write into it, and a loss of another weight does not change it."""
    student, teacher, labels, steps = random_entries(9, 33, torch.float32, device)
    student.requires_grad_()
    loss = fused_tad_loss(student, teacher, labels, steps, delta=2).loss
    (first,) = torch.autograd.grad(loss * 2, student, retain_graph=True)
    kept = first.clone()
    (second,) = torch.autograd.grad(loss * 0, student, retain_graph=True)
    first.zero_()
    (third,) = torch.autograd.grad(loss * 2, student)
    assert torch.equal(second, torch.zeros_like(second))
    assert torch.equal(third, kept)


def test_float16_gradients_are_rounded_after_the_loss_scale(device: str) -> None:
    """Scaled by 2^16 they are normal numbers; at scale 1 most of them would be zero."""
    student, teacher, labels, steps = random_entries(9, 4000, torch.float16, device)
    x = student.requires_grad_()
    (fused_tad_loss(x, teacher, labels, steps, delta=2, near_count=4096, distant_count=4096).loss * 2**16).backward()
    exact = student.detach().double().requires_grad_()
    reference.fused_tad_loss(
        exact, teacher.double(), labels, steps, delta=2, near_count=4096, distant_count=4096
    ).loss.backward()
    torch.testing.assert_close(x.grad.double() / 2**16, exact.grad, rtol=2e-3, atol=1e-11)


def test_same_bits_at_any_batch_size_and_thread_count(device: str) -> None:
    student, teacher, labels, steps = random_entries(24, 2049, torch.float32, device)
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


def test_autocast_changes_nothing(device: str) -> None:
    student, teacher, labels, steps = random_entries(9, 130, torch.float32, device)
    plain, plain_grad = loss_and_gradient(fused_tad_loss, student, teacher, labels, steps, delta=2)
    with torch.autocast(device, dtype=torch.bfloat16):
        under, under_grad = loss_and_gradient(fused_tad_loss, student, teacher, labels, steps, delta=2)
    assert torch.equal(plain.loss, under.loss)
    assert torch.equal(plain_grad, under_grad)


def test_retained_graph_repeats_the_gradient_and_double_backward_raises(device: str) -> None:
    student, teacher, labels, steps = random_entries(9, 33, torch.float32, device)
    student.requires_grad_()
    loss = fused_tad_loss(student, teacher, labels, steps, delta=2).loss
    (first,) = torch.autograd.grad(loss, student, retain_graph=True)
    (second,) = torch.autograd.grad(loss, student, retain_graph=True)
    assert torch.equal(first, second)
    assert first.data_ptr() != second.data_ptr()
    (tripled,) = torch.autograd.grad(loss * 3, student, retain_graph=True)
    torch.testing.assert_close(tripled, 3 * first)
    (graph,) = torch.autograd.grad(loss, student, create_graph=True)
    with pytest.raises(RuntimeError, match="tad_loss_gradient is not implemented"):
        graph.sum().backward()


@pytest.mark.usefixtures("indices_are_checked")
def test_indices_are_checked_again_where_the_logits_are_read_again(device: str) -> None:
    """A buffer rewritten behind autograd's back is an error, not a crash."""
    student, teacher, labels, steps = random_entries(6, 33, torch.float32, device)
    student.requires_grad_()
    for recompute in (False, True):
        rows = torch.arange(6, device=device)
        loss = fused_tad_loss(
            student, teacher, labels, steps, delta=2, student_rows=rows, teacher_rows=rows, recompute_gradient=recompute
        ).loss
        rows.data.fill_(10**9)
        if recompute:
            with pytest.raises(ValueError, match=r"student_rows\[0\] is 1000000000"):
                loss.backward()
        else:
            loss.backward()


@pytest.mark.parametrize("recompute_gradient", [False, True])
def test_logits_that_were_changed_are_noticed(device: str, recompute_gradient: bool) -> None:
    student, teacher, labels, steps = random_entries(6, 33, torch.float32, device)
    x = student.requires_grad_() * 1
    loss = fused_tad_loss(x, teacher, labels, steps, delta=2, recompute_gradient=recompute_gradient).loss
    x.detach().zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_selective_checkpoints_keep_the_loss(device: str) -> None:
    student, teacher, labels, steps = random_entries(6, 33, torch.float32, device)

    def step(x: torch.Tensor) -> torch.Tensor:
        return fused_tad_loss(x.sin().sin(), teacher, labels, steps, delta=2).loss * 3

    kept, plain = (student.clone().requires_grad_() for _ in range(2))
    saved = partial(create_selective_checkpoint_contexts, [torch.ops.tad_ext.tad_loss.default])
    checkpoint(step, kept, use_reentrant=False, context_fn=saved).backward()
    step(plain).backward()
    assert torch.equal(kept.grad, plain.grad)


@pytest.mark.parametrize("outer", [1.0, 3.0])
@pytest.mark.parametrize("recompute_gradient", [False, True])
def test_compiled_autograd_gives_a_gradient_away_once(device: str, recompute_gradient: bool, outer: float) -> None:
    student, teacher, labels, steps = random_entries(6, 33, torch.float32, device)
    student.requires_grad_()
    options = {"delta": 2, "recompute_gradient": recompute_gradient}
    loss, again = (fused_tad_loss(student, teacher, labels, steps, **options).loss for _ in range(2))
    (plain,) = torch.autograd.grad(loss * outer, student)
    given = []
    with torch._dynamo.compiled_autograd._enable(torch.compile(backend="eager")):
        for _ in range(2):
            student.grad = None
            (again * outer).backward(retain_graph=True)
            assert torch.equal(student.grad, plain)
            given.append(student.grad)
    assert given[0].data_ptr() != given[1].data_ptr()


def test_dynamic_shapes_compile_once(device: str) -> None:
    compiled = torch.compile(
        lambda s, t, y, k: fused_tad_loss(s, t, y, k, delta=2).loss, fullgraph=True, dynamic=True, backend="aot_eager"
    )
    for n in (5, 9, 2):
        entries = random_entries(n, 33, torch.float32, device)
        assert torch.equal(compiled(*entries), fused_tad_loss(*entries, delta=2).loss)


def test_expanded_and_permuted_logits(device: str) -> None:
    student, teacher, labels, steps = random_entries(12, 40, torch.float32, device)
    expanded = student[:1].expand(12, 40)
    ours, _ = loss_and_gradient(fused_tad_loss, expanded.contiguous(), teacher, labels, steps, delta=2)
    x = student[:1].clone().requires_grad_()
    loss = fused_tad_loss(x.expand(12, 40), teacher, labels, steps, delta=2).loss
    loss.backward()
    assert torch.equal(loss, ours.loss)
    assert x.grad.shape == (1, 40)
    cube = student.reshape(3, 4, 40).permute(1, 0, 2)
    order = torch.arange(12, device=device).reshape(3, 4).T.reshape(-1)
    permuted = fused_tad_loss(cube, teacher, labels, steps, delta=2).loss
    assert torch.equal(permuted, fused_tad_loss(student[order], teacher, labels, steps, delta=2).loss)


def test_inputs_are_never_written(device: str) -> None:
    student, teacher, labels, steps = random_entries(9, 600, torch.bfloat16, device)
    copies = [tensor.clone() for tensor in (student, teacher, labels, steps)]
    loss_and_gradient(fused_tad_loss, student, teacher, labels, steps, delta=2)
    student.requires_grad_()
    fused_tad_loss(student, teacher, labels, steps, delta=2).loss.backward()
    for tensor, copy in zip((student, teacher, labels, steps), copies):
        assert torch.equal(tensor.detach(), copy)


def test_strided_logits_need_no_contiguity(device: str) -> None:
    student, teacher, labels, steps = random_entries(9, 64, torch.float32, device)
    wide = torch.full((9, 100), torch.nan, device=device)
    wide[:, :64] = student
    transposed = teacher.T.contiguous().T
    ours, our_grad = loss_and_gradient(fused_tad_loss, student, teacher, labels, steps, delta=2)
    x = wide[:, :64].detach().requires_grad_()
    loss = fused_tad_loss(x, transposed, labels, steps, delta=2).loss
    loss.backward()
    assert torch.equal(loss, ours.loss)
    assert torch.equal(x.grad, our_grad)


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


@pytest.mark.usefixtures("indices_are_checked")
@pytest.mark.parametrize(("changes", "error", "message"), ERRORS)
def test_bad_arguments_are_named(device: str, changes: dict, error: type[Exception], message: str) -> None:
    arguments = {
        "student": torch.zeros(4, 5, device=device),
        "teacher": torch.zeros(4, 5, device=device),
        "labels": torch.zeros(4, device=device).long(),
        "steps": torch.tensor([1, 2, 3, 4], device=device),
        **on(device, changes),
    }
    positional = [arguments.pop(name) for name in ("student", "teacher", "labels", "steps")]
    with pytest.raises(error, match=message):
        fused_tad_loss(*positional, **arguments)
