"""The partitioned CE/KL loss of TAD on logits, and on hidden states with the output head inside."""

import math

import torch
from torch import Tensor

from .checks import Call, expect, outside, values_may_be_read
from .library import empty, operator, register_fakes
from .types import Count, TADLoss, compute_dtype


def _check_loss(call: Call) -> None:
    teacher, labels, (*rows, vocabulary) = call.teacher_logits, call.labels, call.student_logits.shape
    teacher_rows = None if teacher is None else teacher.shape[:-1].numel()
    _check_entries(call, vocabulary, math.prod(rows), "teacher_logits", teacher_rows)
    fits = teacher is None or teacher.shape[-1] == vocabulary
    call.check("teacher_logits", fits, f"a vocabulary of {vocabulary} like student_logits")
    fits = call.student_rows is not None or labels.dim() == 1 or list(labels.shape) == rows
    call.check("labels", fits, f"{rows} like the rows of student_logits")


@operator(_check_loss)
def fused_tad_loss(
    student_logits: Tensor,
    teacher_logits: Tensor | None,
    labels: Tensor,
    steps_to_reveal: Tensor,
    *,
    delta: int,
    ce_weight: float = 1.0,
    kl_weight: float = 1.0,
    temperature: float = 1.0,
    row_weight: Tensor | None = None,
    student_rows: Tensor | None = None,
    teacher_rows: Tensor | None = None,
    near_count: Count = None,
    distant_count: Count = None,
    recompute_gradient: bool | None = None,
) -> TADLoss:
    """The TAD loss: cross-entropy on near entries, KL(teacher || student) on distant ones (arXiv 2605.09536).

    With s = steps_to_reveal, w = row_weight, T = temperature::

        ce   = sum over entries with 1 <= s <= delta of w * -log softmax(student)[label]       / near_count
        kl   = sum over entries with s > delta of w * T^2 * KL(softmax(teacher/T) || softmax(student/T)) / distant_count
        loss = ce_weight * ce + kl_weight * kl

    Entries with s <= 0 contribute nothing; an empty side is exactly 0. Where a weight is 0 so is the gradient, even of
    logits that are NaN or inf: a side of weight 0 adds nothing to `loss`, though its part is reported as it is (NaN or
    inf, too); an entry of row weight 0 adds nothing to its part, but is counted.

    One visit of the logits gives loss and gradient, and nothing else of their size is allocated. (Logits whose rows are
    not evenly spaced, such as a slice `logits[:, p:]`, are copied: pass the whole and `student_rows` instead.)
    Results have the same bits at any number of threads, and run after run. On a GPU nothing waits for the device, so
    indices are not checked: an entry whose label or row does not exist has a NaN loss. TAD_EXT_DEBUG=1 checks them.

    Args:
        student_logits: (..., V) float32, bfloat16, float16 or float64; gets the gradient, in its own shape and dtype.
        teacher_logits: (..., V), any of these dtypes, a constant; read at distant entries only. May be None if
            `kl_weight` is 0.
        labels: int64, one per entry, read at near entries only.
        steps_to_reveal: int64, one per entry.
        delta: entries revealed within so many steps are near; an integer >= 0.
        ce_weight, kl_weight: >= 0, of the two parts. A factor of the whole loss that is known by now, such as one over
            the number of accumulation steps, belongs into both: `loss / steps` visits the gradient once more.
        row_weight: floating point, one per entry, a constant; multiplies the entry's loss.
        student_rows: int64, the row of the flattened student logits that each entry reads (dense form). Rows named
            twice add their gradients, in entry order and in its dtype; rows not named get zero. Default (compact form):
            entry i reads row i.
        teacher_rows: likewise for the teacher; -1 where an entry is not distant.
        near_count, distant_count: denominators, constants; number or 0-d tensor, which may be on the CPU in any case; 0
            counts as 1. Default: this call's own counts.
        recompute_gradient: False: forward computes the gradient, for a loss of weight 1, and backward multiplies it by
            the loss's own gradient where that is not 1. True: forward keeps nothing, and backward visits the logits
            once more: the least memory between the two. Default: True for float16, whose small gradients a loss scaler
            could not rescue any more, otherwise False. What torch.compile traces recomputes in any case.

    Returns:
        TADLoss; losses in float32 (float64 for float64 logits), those of single entries in float64. Only `loss` is
        differentiable, once, in reverse mode and by the student's logits alone. The logits must not be changed before
        backward.

    Raises:
        ValueError, TypeError: wrong shapes, dtypes, devices, values or indices, naming the argument.
        NotImplementedError: a tangent in the student's logits, of forward-mode differentiation.
    """
    _check_delta(delta)
    if recompute_gradient is None:
        recompute_gradient = student_logits.dtype == torch.float16
    needs_gradient = torch.is_grad_enabled() and student_logits.requires_grad
    in_forward = needs_gradient and not recompute_gradient and not torch.compiler.is_compiling()
    *result, _ = torch.ops.tad_ext.tad_loss(
        student_logits, None if teacher_logits is None else teacher_logits.detach(), student_rows,
        labels, steps_to_reveal, delta, ce_weight, kl_weight, temperature,
        None if row_weight is None else row_weight.detach(), teacher_rows,
        _count_tensor(near_count, labels), _count_tensor(distant_count, labels), in_forward,
    )  # fmt: skip
    return TADLoss(*result)


def _check_linear_loss(call: Call) -> None:
    head = call.lm_head_weight = _weight_of_head(call.lm_head_weight)
    student, teacher, call.student_rows = call.student_hidden, call.teacher_hidden, None
    call.check_tensors()
    call.check("lm_head_weight", head.dim() == 2, "(vocabulary, D)")
    for name, hidden in (("student_hidden", student), ("teacher_hidden", teacher)):
        if hidden is not None:
            fits = hidden.dim() == 2 and hidden.shape[1] == head.shape[1]
            call.check(name, fits, f"(rows, {head.shape[1]}) to go with lm_head_weight")
            if _autocast_dtype(student) is None:
                call.check_dtype(name, head.dtype)
    call.check("chunk_rows", call.chunk_rows is None or call.chunk_rows >= 1, "an integer >= 1")
    _check_entries(call, len(head), len(student), "teacher_hidden", None if teacher is None else len(teacher))


@operator(_check_linear_loss)
def fused_linear_tad_loss(
    student_hidden: Tensor,
    teacher_hidden: Tensor | None,
    lm_head_weight: Tensor | torch.nn.Module,
    labels: Tensor,
    steps_to_reveal: Tensor,
    *,
    delta: int,
    ce_weight: float = 1.0,
    kl_weight: float = 1.0,
    temperature: float = 1.0,
    row_weight: Tensor | None = None,
    teacher_rows: Tensor | None = None,
    near_count: Count = None,
    distant_count: Count = None,
    chunk_rows: int | None = None,
) -> TADLoss:
    """`fused_tad_loss` of `hidden @ lm_head_weight.T`, whose logits never exist as a whole.

    Rows are worked through in chunks: logits of student and teacher in one product, then loss and, in the logits'
    place, their gradient, which is multiplied back to the hidden size at once. Gradients flow to `student_hidden`, and
    to `lm_head_weight` if it requires one. Forward computes them, of a loss of weight 1 in the dtype of
    `student_hidden`; backward only scales them, too late for a loss scaler to rescue float16: use bfloat16.

    On the CPU loss and hidden gradient have the same bits at any batch size, chunk size and number of threads. On a GPU
    the matrix products are PyTorch's: the same bits run after run, but not from one chunk size to another.

    Args:
        student_hidden: (N, D), the hidden state of each entry, gathered before the head; dtype as `lm_head_weight`.
        teacher_hidden: (M, D), a constant; read at distant entries only. None if `kl_weight` is 0.
        lm_head_weight: (V, D), or the head itself, a `torch.nn.Linear` without bias. Any other head, an adapted one
            above all, is refused: only its weight would be used. (A weight does not say where it is from: pass the head
            where it might carry an adapter.)
        labels, steps_to_reveal: (N,) int64.
        teacher_rows: (N,) int64, each entry's row of `teacher_hidden`, -1 where it is not distant, so that only distant
            rows need be there. Default: entry i reads row i. On a GPU, where nobody can look at the entries, teacher
            logits are made for min(M, N) of them: pass the distant rows alone, and no fewer than there are distant
            entries (those without one have a NaN loss).
        chunk_rows: rows of logits alive at a time, the student's and the teacher's together. Default: about 64 MiB of
            logits, on a GPU 134 million, in whole 128 rows. On the CPU products are of whole 64 rows, in low precision
            128: a chunk of fewer student rows, or no multiple of them, takes as long as one that is.

    Under autocast the matrix products run in the autocast dtype, as `F.linear` would. Everything else is as in
    `fused_tad_loss`.
    """
    _check_delta(delta)
    lm_head_weight = _weight_of_head(lm_head_weight)
    if (dtype := _autocast_dtype(student_hidden)) is not None:
        student_hidden, lm_head_weight = student_hidden.to(dtype), lm_head_weight.to(dtype)
        teacher_hidden = None if teacher_hidden is None else teacher_hidden.to(dtype)
    if chunk_rows is None:
        chunk_rows = _default_chunk_rows(lm_head_weight)
    # Gradients, the last two, are asked for where the operator is differentiated: under vmap tensors do not show here
    # whether they require one.
    *result, _, _ = torch.ops.tad_ext.linear_tad_loss(
        student_hidden, None if teacher_hidden is None else teacher_hidden.detach(), lm_head_weight,
        labels, steps_to_reveal, delta, ce_weight, kl_weight, temperature,
        None if row_weight is None else row_weight.detach(), teacher_rows,
        _count_tensor(near_count, labels), _count_tensor(distant_count, labels), chunk_rows, False, False,
    )  # fmt: skip
    return TADLoss(*result)


def _check_delta(delta: int) -> None:
    """An integer, for which PyTorch takes what is none."""
    if isinstance(delta, (bool, float)):
        raise TypeError(f"delta is {delta!r}, expected an integer >= 0")


def _weight_of_head(head: Tensor | torch.nn.Module) -> Tensor:
    """The weight of a head that is nothing but its weight."""
    if isinstance(head, Tensor):
        return head
    if type(head) is not torch.nn.Linear or head.bias is not None:
        bias = " with a bias" if type(head) is torch.nn.Linear else ""
        raise ValueError(
            f"lm_head_weight is a {type(head).__module__}.{type(head).__qualname__}{bias}, expected a tensor or a "
            "plain torch.nn.Linear without bias: adapter or bias would be left out of the loss (merge an adapter "
            "first, or do not adapt the head)"
        )
    return head.weight


def _check_entries(call: Call, vocabulary: int, student_rows: int, teacher: str, teacher_rows: int | None) -> None:
    """What both losses are told of their entries fits the rows there are. No teacher: None."""
    _check_delta(call.delta)
    call.check("delta", call.delta >= 0, "an integer >= 0")
    call.check("temperature", 1e-6 <= call.temperature <= 1e6, "1e-6 <= value <= 1e6")
    for name in ("ce_weight", "kl_weight"):
        call.check(name, math.isfinite(getattr(call, name)), "a finite number")
    needed = call.kl_weight != 0
    call.check(teacher, not needed or teacher_rows is not None, f"rows because kl_weight is {call.kl_weight}")
    call.check_shape("steps_to_reveal", call.labels.shape)
    labels, steps, entries = call.labels.reshape(-1), call.steps_to_reveal.reshape(-1), call.labels.numel()
    for name in ("student_rows", "teacher_rows", "row_weight"):
        choice = getattr(call, name)
        call.check(name, choice is None or choice.numel() == entries, f"{entries} elements, one per entry")
    for name in ("near_count", "distant_count"):
        count = getattr(call, name)
        if isinstance(count, Tensor):
            call.check(name, count.numel() == 1, "a 0-d tensor")
            count = count.item() if values_may_be_read(count) else None
        call.check(name, count is None or 0 <= count < math.inf, "a finite number >= 0")
    for who, rows in (("student", student_rows), ("teacher", teacher_rows)):
        fits = getattr(call, f"{who}_rows") is not None or rows is None or rows == entries
        expect(fits, f"the {who} has {rows} rows, expected {entries}, one per label, unless {who}_rows says which")
    call.check_range("student_rows", 0, student_rows, "rows of student_logits")
    if not values_may_be_read(labels):
        return
    wrong = (steps >= 1) & (steps <= call.delta) & outside(labels, 0, vocabulary)
    call.check_none(wrong, "labels", f"0 <= label < {vocabulary} (the vocabulary)")
    if call.teacher_rows is not None and teacher_rows is not None:
        wrong = (steps > call.delta) & outside(call.teacher_rows.reshape(-1), 0, teacher_rows)
        call.check_none(wrong, "teacher_rows", f"0 <= row < {teacher_rows} because the entry is distant")


def _autocast_dtype(tensor: Tensor) -> torch.dtype | None:
    """That of matrix products under autocast; None where there is none."""
    if tensor.is_meta:  # the kind without autocast (PyTorch 2.11 cannot trace the question which kinds have it)
        return None
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None


def _default_chunk_rows(lm_head_weight: Tensor) -> int:
    """Whole tiles of the products, where half of a chunk is the teacher's.

    A GPU multiplies faster the more rows there are: on an H200 1,024 rows of LLaDA's vocabulary at a time take 7 to
    14 % less than 256, and 2,048 hardly less (docs/log.md).
    """
    logits = 2**26 // lm_head_weight.element_size() if lm_head_weight.device.type == "cpu" else 2**27
    return max(1, logits // max(1, lm_head_weight.shape[0]) // 128) * 128


def _count_tensor(count: Count, labels: Tensor) -> Tensor | None:
    if count is None:
        return None
    if isinstance(count, Tensor):
        return count.detach()
    return torch.full((), float(count), dtype=torch.float64, device=labels.device)


def _fake_result(like: Tensor, labels: Tensor) -> list[Tensor]:
    """The fields of `TADLoss`."""
    real, count = compute_dtype(like), torch.int64
    scalars = [like.new_empty((), dtype=dtype) for dtype in (real, real, real, count, count)]
    return [*scalars, like.new_empty(labels.shape, dtype=torch.float64)]


register_fakes(
    tad_loss=lambda call: (
        *_fake_result(call.student_logits, call.labels),
        empty(call.student_logits, call.with_gradient),
    ),
    tad_loss_gradient=lambda call: empty(call.student_logits),
    scale_gradient=lambda call: None,
    linear_tad_loss=lambda call: (
        *_fake_result(call.student_hidden, call.labels),
        empty(call.student_hidden, call.hidden_grad),
        empty(call.lm_head_weight, call.weight_grad),
    ),
    linear_tad_loss_backward=lambda call: (torch.empty_like(call.grad_hidden), torch.empty_like(call.grad_weight)),
)
