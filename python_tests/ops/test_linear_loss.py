"""fused_linear_tad_loss against the reference on whole logits."""

from collections.abc import Callable
from functools import partial

import peft
import pytest
import torch
from op_checks import CUDA_ON_HOST, assert_no_worse_than_eager, on, peak_bytes, random_entries, switched_off
from torch import Tensor

from tad_ext.ops import fused_linear_tad_loss, fused_tad_loss, reference

N, D, VOCABULARY = 23, 16, 301


def hidden_entries(dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(student_hidden, teacher_hidden, head, labels, steps)."""
    student, teacher, _, steps = random_entries(N, D, torch.float64, device, scale=1.0)
    head, _, _, _ = random_entries(VOCABULARY, D, torch.float64, device, seed=1, scale=0.5)
    labels = torch.arange(N, device=device) * 7 % VOCABULARY
    return student.to(dtype), teacher.to(dtype), head.to(dtype), labels, steps


def gradients(function, student, teacher, head, labels, steps, **options):  # type: ignore[no-untyped-def]
    student, head = student.detach().clone().requires_grad_(), head.detach().clone().requires_grad_()
    result = function(student, teacher, head, labels, steps, **options)
    result.loss.backward()
    return result, student.grad, head.grad


def assert_same_products(device: str, found: Tensor, expected: Tensor) -> None:
    """Results of matrix products of other shapes: the same bits from the CPU's, close from a GPU's BLAS library."""
    if device == "cpu" and not CUDA_ON_HOST:
        assert torch.equal(found, expected)
    else:
        tolerance = {torch.float32: 1e-5, torch.bfloat16: 2e-2}[expected.dtype]
        assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("chunk_rows", [1, 5, 23, None])
def test_agrees_with_the_reference(device: str, dtype: torch.dtype, chunk_rows: int | None) -> None:
    entries = hidden_entries(dtype, device)
    options = {"delta": 2, "temperature": 1.5, "row_weight": torch.linspace(0.5, 2, N, device=device), "kl_weight": 0.5}
    exact = gradients(reference.fused_linear_tad_loss, *[t.double() for t in entries[:3]], *entries[3:], **options)
    eager = gradients(reference.fused_linear_tad_loss, *entries, **options)
    ours = gradients(fused_linear_tad_loss, *entries, **options, chunk_rows=chunk_rows)
    for mine, theirs, true in zip(ours[0][:3], eager[0][:3], exact[0][:3]):
        assert_no_worse_than_eager(mine, theirs, true, dtype)
    assert_no_worse_than_eager(*(result[0].entry_losses for result in (ours, eager, exact)), dtype)
    for mine, theirs, true in zip(ours[1:], eager[1:], exact[1:]):
        assert mine.dtype == dtype
        assert_no_worse_than_eager(mine, theirs, true, dtype)


@pytest.mark.parametrize("chunk_rows", [1, 5, None])
@pytest.mark.parametrize("option", ["ce_weight", "kl_weight", "row_weight"])
@pytest.mark.parametrize("function", [fused_linear_tad_loss, reference.fused_linear_tad_loss])
def test_weight_0_is_gradient_0(
    device: str, dtype: torch.dtype, function: Callable, option: str, chunk_rows: int | None
) -> None:
    """Of hidden states and of the head, in whose products 0 times NaN would be NaN. Silent entries have no weight."""
    student, teacher, head, labels, steps = hidden_entries(dtype, device)
    off = switched_off(steps)[option]
    weight = torch.where(off, 0.0, 2.0) if option == "row_weight" else 0.0
    options = {"delta": 2, "chunk_rows": chunk_rows, option: weight}
    clean = gradients(function, student, teacher, head, labels, steps, **options)
    off |= steps <= 0
    student[off, 3], teacher[off, 5] = torch.nan, torch.inf
    poisoned = gradients(function, student, teacher, head, labels, steps, **options)
    assert torch.equal(poisoned[0].loss, clean[0].loss)
    for mine, harmless in zip(poisoned[1:], clean[1:]):
        assert torch.equal(mine, harmless)
        assert mine.any()
    assert (poisoned[1][off] == 0).all()


def test_a_call_without_weight_has_no_gradient_whatever_the_head(device: str) -> None:
    student, teacher, head, labels, _ = hidden_entries(torch.float32, device)
    head[7] = torch.nan
    for function in (fused_linear_tad_loss, reference.fused_linear_tad_loss):
        steps = torch.full((N,), 9, device=device)
        result, *grads = gradients(function, student, teacher, head, labels, steps, delta=2, kl_weight=0.0)
        assert result.kl.isnan()
        assert not any(tensor.any() for tensor in (result.loss, *grads))


def test_teacher_hidden_may_hold_the_distant_rows_only(device: str) -> None:
    student, teacher, head, labels, steps = hidden_entries(torch.float32, device)
    distant = steps > 2
    teacher_rows = torch.where(distant, distant.cumsum(0) - 1, -1)
    whole = gradients(fused_linear_tad_loss, student, teacher, head, labels, steps, delta=2)
    packed = gradients(
        fused_linear_tad_loss, student, teacher[distant], head, labels, steps, delta=2, teacher_rows=teacher_rows
    )
    for a, b in zip((whole[0].loss, *whole[1:]), (packed[0].loss, *packed[1:])):
        assert_same_products(device, a, b)


def test_more_distant_entries_than_teacher_rows(device: str) -> None:
    """Rows may be shared as far as there are no fewer than distant entries. On a GPU, where nobody looks, the others
    have none."""
    student, teacher, head, labels, steps = hidden_entries(torch.float32, device)
    rows = torch.zeros(N, dtype=torch.int64, device=device)
    shared = fused_linear_tad_loss(student, teacher, head, labels, steps, delta=2, teacher_rows=rows)
    expected = fused_linear_tad_loss(student, teacher[:1].expand(N, D), head, labels, steps, delta=2)
    torch.testing.assert_close(shared.kl, expected.kl)
    assert torch.equal(shared.ce, expected.ce)
    too_few = fused_linear_tad_loss(student, teacher[:1], head, labels, steps, delta=2, teacher_rows=rows)
    if device == "cpu" and not CUDA_ON_HOST:
        torch.testing.assert_close(too_few.kl, expected.kl)
    else:
        assert too_few.kl.isnan()
        assert torch.equal(too_few.ce, expected.ce)


def test_the_head_itself(device: str) -> None:
    student, teacher, weight, labels, steps = hidden_entries(torch.float32, device)
    head = torch.nn.Linear(D, VOCABULARY, bias=False, device=device)
    head.weight.data = weight
    by_weight = gradients(fused_linear_tad_loss, student, teacher, weight, labels, steps, delta=2)
    student.requires_grad_()
    result = fused_linear_tad_loss(student, teacher, head, labels, steps, delta=2)
    result.loss.backward()
    assert torch.equal(result.loss, by_weight[0].loss)
    assert torch.equal(student.grad, by_weight[1])
    assert torch.equal(head.weight.grad, by_weight[2])


def test_a_head_that_is_more_than_its_weight_is_refused(device: str) -> None:
    student, teacher, _, labels, steps = hidden_entries(torch.float32, device)

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lm_head = torch.nn.Linear(D, VOCABULARY, bias=False, device=device)

    adapted = peft.inject_adapter_in_model(peft.LoraConfig(r=2, target_modules=["lm_head"]), Model()).lm_head
    assert isinstance(adapted.weight, Tensor)  # the base's, so that a weight alone cannot tell
    for head in (adapted, torch.nn.Linear(D, VOCABULARY, device=device)):
        with pytest.raises(ValueError, match=r"lm_head_weight is .*Linear.*would be left out of the loss"):
            fused_linear_tad_loss(student, teacher, head, labels, steps, delta=2)


def test_no_more_than_one_chunk_of_logits_is_alive(device: str) -> None:
    rows, hidden, vocabulary, chunk = 96, 8, 20_000, 8
    student, teacher, _, steps = random_entries(rows, hidden, torch.float32, device)
    head = random_entries(vocabulary, hidden, torch.float32, device, seed=1)[0]
    student.requires_grad_()
    labels = torch.zeros(rows, dtype=torch.int64, device=device)

    def peak(chunk_rows: int) -> int:
        student.grad = None
        loss = partial(fused_linear_tad_loss, student, teacher, head, labels, steps, delta=2, chunk_rows=chunk_rows)
        return peak_bytes(lambda: loss().loss.backward(), device)

    tile = 64 if device == "cpu" and not CUDA_ON_HOST else chunk  # the CPU multiplies whole tiles
    logits = 4 * vocabulary
    assert peak(chunk) < 1.1 * max(chunk, tile) * logits
    assert peak(2 * rows) > 0.9 * rows * logits  # the measurement sees what a chunk takes


@pytest.mark.parametrize(("rows", "most", "alive"), [(640, 512, 384), (520, 512, 260), (520, 520, 520)])
def test_no_short_chunk_is_left_over(device: str, rows: int, most: int, alive: int) -> None:
    """640 rows, at most 512 at a time, are 384 and 256; 520 are not 512 and 8, nor 384 and 136, but twice 260."""
    hidden, vocabulary = 8, 5_000
    student, _, labels, _ = random_entries(rows, hidden, torch.float32, device)
    head, steps = torch.randn(vocabulary, hidden, device=device), torch.ones_like(labels)
    student.requires_grad_()

    loss = partial(fused_linear_tad_loss, student, None, head, labels, steps, delta=2, kl_weight=0.0, chunk_rows=most)
    peak = peak_bytes(lambda: loss().loss.backward(), device)
    tile = 64 if device == "cpu" and not CUDA_ON_HOST else 1  # the CPU multiplies whole tiles
    logits = 4 * vocabulary * -(-alive // tile) * tile
    assert 0.95 * logits < peak < 1.1 * logits


def test_entries_have_the_shape_of_the_labels(device: str) -> None:
    student, teacher, head, labels, steps = hidden_entries(torch.float32, device)
    arguments = (student[:6], teacher[:6], head, labels[:6].view(2, 3), steps[:6].view(2, 3))
    ours = fused_linear_tad_loss(*arguments, delta=2, chunk_rows=4)
    exact = reference.fused_linear_tad_loss(*arguments, delta=2)
    torch.testing.assert_close(ours.entry_losses, exact.entry_losses, rtol=1e-5, atol=1e-5)


def test_gradcheck_in_float64(device: str) -> None:
    """With respect to the head only for CE: the teacher's logits, a constant for us, move with the head."""
    student, teacher, head, labels, steps = hidden_entries(torch.float64, device)
    student, head = student[:7].clone().requires_grad_(), head[:9].clone().requires_grad_()
    labels, steps = labels[:7] % 9, steps[:7]

    def both(x: Tensor) -> Tensor:
        return fused_linear_tad_loss(x, teacher[:7], head.detach(), labels, steps, delta=2, chunk_rows=3).loss

    def ce(x: Tensor, weight: Tensor) -> Tensor:
        return fused_linear_tad_loss(x, None, weight, labels, steps, delta=2, kl_weight=0.0, chunk_rows=3).loss

    assert torch.autograd.gradcheck(both, (student,))
    assert torch.autograd.gradcheck(ce, (student, head))


@pytest.mark.parametrize("weight_grad", [False, True])
def test_opcheck(device: str, weight_grad: bool) -> None:
    student, teacher, head, labels, steps = hidden_entries(torch.float32, device)
    student.requires_grad_()
    head.requires_grad_(weight_grad)
    arguments = (student, teacher, head, labels, steps, 2, 1.0, 1.0, 1.0, None, None, None, None, 8, True, weight_grad)
    torch.library.opcheck(torch.ops.tad_ext.linear_tad_loss.default, arguments)
    backward = (torch.tensor(2.0, device=device), student.detach(), head.detach(), student.detach(), head.detach())
    torch.library.opcheck(torch.ops.tad_ext.linear_tad_loss_backward.default, backward)


@pytest.mark.parametrize("autocast", [False, True])
def test_compiles_without_graph_breaks(device: str, autocast: bool) -> None:
    student, teacher, head, labels, steps = hidden_entries(torch.float32, device)

    def step(x: Tensor) -> Tensor:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=autocast):
            return fused_linear_tad_loss(x * 2, teacher, head, labels, steps, delta=2).loss

    x, y = student.clone().requires_grad_(), student.clone().requires_grad_()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")(x)
    compiled.backward()
    plain = step(y)
    plain.backward()
    assert torch.equal(compiled, plain)
    assert torch.equal(x.grad, y.grad)


def test_vocabulary_of_many_slices(device: str) -> None:
    """The CPU adds up the hidden gradient of a large vocabulary slice by slice; the last one is not whole here."""
    student, teacher, _, steps = random_entries(N, D, torch.float64, device, scale=1.0)
    head = random_entries(20_001, D, torch.float64, device, seed=1, scale=0.5)[0]
    labels = torch.arange(N, device=device) * 869
    exact = gradients(reference.fused_linear_tad_loss, student, teacher, head, labels, steps, delta=2)
    entries = (student.float(), teacher.float(), head.float(), labels, steps)
    eager = gradients(reference.fused_linear_tad_loss, *entries, delta=2)
    ours = gradients(fused_linear_tad_loss, *entries, delta=2)
    for mine, theirs, true in zip(ours[1:], eager[1:], exact[1:]):
        assert_no_worse_than_eager(mine, theirs, true, torch.float32)


@pytest.mark.parametrize("vocabulary", [5000, 20_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_same_bits_at_any_batch_size_chunk_and_thread_count(device: str, dtype: torch.dtype, vocabulary: int) -> None:
    """Sizes at which a BLAS library left to itself takes other paths for other shapes and thread counts."""
    student, teacher, _, steps = random_entries(50, 256, dtype, device, scale=1.0)
    head = random_entries(vocabulary, 256, dtype, device, seed=1, scale=0.1)[0]
    labels = torch.arange(50, device=device) * 91

    def run(chosen: slice, chunk_rows: int | None = None) -> tuple[Tensor, Tensor]:
        x = student[chosen].detach().clone().requires_grad_()
        loss = fused_linear_tad_loss(
            x, teacher[chosen], head, labels[chosen], steps[chosen], delta=2, near_count=1, distant_count=1,
            chunk_rows=chunk_rows,
        ).loss  # fmt: skip
        loss.backward()
        assert x.grad is not None
        return loss.detach(), x.grad

    loss, gradient = run(slice(None))
    try:
        torch.set_num_threads(2)
        threaded = run(slice(None))
    finally:
        torch.set_num_threads(1)
    again = run(slice(None))
    assert torch.equal(again[0], loss)
    assert torch.equal(again[1], gradient)
    for other in (threaded, run(slice(None), chunk_rows=7)):
        assert_same_products(device, other[0], loss)
        assert_same_products(device, other[1], gradient)
    for first in (0, 17, 33):
        assert_same_products(device, run(slice(first, first + 1))[1], gradient[first : first + 1])
        assert_same_products(device, run(slice(first, first + 9))[1], gradient[first : first + 9])


def test_no_gradients_are_made_where_none_are_wanted(device: str) -> None:
    student, teacher, head, labels, steps = hidden_entries(torch.float32, device)
    assert not fused_linear_tad_loss(student, teacher, head, labels, steps, delta=2).loss.requires_grad
    student.requires_grad_()
    with torch.no_grad():
        quiet = fused_linear_tad_loss(student, teacher, head, labels, steps, delta=2).loss
    loud = fused_linear_tad_loss(student, teacher, head, labels, steps, delta=2).loss
    assert not quiet.requires_grad
    assert torch.equal(quiet, loud)
    loud.backward()
    assert head.grad is None


def test_autocast_is_the_linear_layers(device: str) -> None:
    student, teacher, head, labels, steps = hidden_entries(torch.float32, device)
    low = [tensor.bfloat16() for tensor in (student, teacher, head)]
    expected = fused_linear_tad_loss(*low, labels, steps, delta=2).loss
    with torch.autocast(device, dtype=torch.bfloat16):
        mixed = gradients(fused_linear_tad_loss, student, teacher, head, labels, steps, delta=2)
    assert torch.equal(mixed[0].loss, expected)
    assert mixed[1].dtype == torch.float32


def test_same_loss_as_on_logits_and_retained_graph(device: str) -> None:
    student, teacher, head, labels, steps = hidden_entries(torch.float32, device)
    student.requires_grad_()
    result = fused_linear_tad_loss(student, teacher, head, labels, steps, delta=2)
    logits = fused_tad_loss(student @ head.T, teacher @ head.T, labels, steps, delta=2)
    torch.testing.assert_close(result.loss, logits.loss)
    (first,) = torch.autograd.grad(result.loss, student, retain_graph=True)
    (second,) = torch.autograd.grad(result.loss, student, retain_graph=True)
    assert torch.equal(first, second)
    (graph,) = torch.autograd.grad(result.loss, student, create_graph=True)
    with pytest.raises(RuntimeError, match="loss_backward is not implemented"):
        graph.sum().backward()


@pytest.mark.usefixtures("indices_are_checked")
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"student_hidden": torch.zeros(4, 3)}, ValueError, r"student_hidden has shape \[4, 3\]"),
        ({"teacher_hidden": torch.zeros(4, 8).bfloat16()}, TypeError, "teacher_hidden has dtype"),
        ({"teacher_hidden": None}, ValueError, "teacher_hidden is None"),
        ({"lm_head_weight": torch.zeros(8)}, ValueError, "lm_head_weight has shape"),
        ({"chunk_rows": 0}, ValueError, "chunk_rows is 0"),
        ({"labels": torch.tensor([9, 0, 0, 0])}, ValueError, r"labels\[0\] is 9"),
    ],
)
def test_bad_arguments_are_named(device: str, changes: dict, error: type[Exception], message: str) -> None:
    arguments = {
        "student_hidden": torch.zeros(4, 8, device=device),
        "teacher_hidden": torch.zeros(4, 8, device=device),
        "lm_head_weight": torch.zeros(9, 8, device=device),
        "labels": torch.zeros(4, device=device).long(),
        "steps_to_reveal": torch.tensor([1, 2, 3, 4], device=device),
        "delta": 2,
        **on(device, changes),
    }
    with pytest.raises(error, match=message):
        fused_linear_tad_loss(**arguments)


def test_zero_rows(device: str) -> None:
    head = torch.randn(9, 8, device=device)
    student = torch.zeros(0, 8, requires_grad=True, device=device)
    empty = torch.zeros(0, device=device).long()
    result = fused_linear_tad_loss(student, torch.zeros(0, 8, device=device), head, empty, empty, delta=2)
    result.loss.backward()
    assert result.loss == 0
    assert student.grad.shape == (0, 8)
