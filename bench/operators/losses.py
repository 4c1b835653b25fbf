"""The losses as they are timed: forward and backward, near : distant rows in a given ratio."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tad_ext import fused_linear_tad_loss, fused_tad_loss

from ..stopwatch import Implementation, Workload, training_step
from . import eager, peers
from .loaders import by_other_loaders

DELTA = 4
PRODUCTS = "its matrix products alone"


def tad_loss(
    rows: int, vocabulary: int, dtype: torch.dtype, *, near: int, distant: int, positions: int | None = None
) -> Workload:
    """A compact caller has gathered its rows already. A dense one has logits of more `positions`, of which so many
    rows, evenly spaced, take part: baselines gather them by masks, and the gradient is dense.

    Compact baselines get near and distant rows as tensors of their own, so that they have nothing to gather; those "by
    masks" get one tensor, as tad_ext does.
    """
    positions, compact = positions or rows, positions is None
    student, teacher, labels = _tensors(positions, vocabulary, vocabulary, dtype)
    steps, near_rows = _steps(rows, near, distant)
    parts = [student[:near_rows].requires_grad_(), student[near_rows:].requires_grad_()]
    student.requires_grad_()
    named = torch.arange(rows) * (positions // rows)
    every_step = torch.zeros(positions, dtype=torch.int64).index_copy(0, named, steps)
    rows_named = {} if compact else {"student_rows": named, "teacher_rows": named}

    def fused(*tensors: Tensor, **options: Any) -> Tensor:
        return fused_tad_loss(*tensors, delta=DELTA, **rows_named, **options).loss

    entries = (teacher, labels[named], steps)
    paths = {
        "tad_ext": training_step(fused, [student], *entries),
        "tad_ext, recomputed": training_step(fused, [student], *entries, recompute_gradient=True),
    }
    paths |= by_other_loaders(student, paths["tad_ext"])
    if compact:
        paths |= _eager_and_compiled("", eager.tad_loss, parts, teacher[near_rows:], labels[:near_rows])
    masks = (teacher, labels, every_step, DELTA)
    paths |= _eager_and_compiled(", by masks" if compact else "", eager.dense_tad_loss, [student], *masks)
    if compact and distant == 0:
        paths |= peers.cross_entropy(student, labels)
    if compact and near == 0:
        paths |= peers.kl_divergence(student, teacher)
    # Rows of a dense caller that no entry names are not read, and their gradient is written: zeros.
    passes = _row_passes(rows, near_rows) + positions - rows
    return Workload(paths, passes * vocabulary * dtype.itemsize)


def linear_tad_loss(
    rows: int, hidden_size: int, vocabulary: int, dtype: torch.dtype, *, near: int, distant: int
) -> Workload:
    """The loss of hidden states, with the output head inside, which is frozen."""
    student, teacher, labels = _tensors(rows, hidden_size, vocabulary, dtype)
    weight = torch.randn(vocabulary, hidden_size).to(dtype) / hidden_size**0.5
    steps, near_rows = _steps(rows, near, distant)
    teacher = teacher[near_rows:]
    teacher_rows = torch.arange(rows) - near_rows  # negative where an entry is near: not read
    parts = [student[:near_rows].requires_grad_(), student[near_rows:].requires_grad_()]
    student.requires_grad_()

    def fused(*tensors: Tensor) -> Tensor:
        return fused_linear_tad_loss(*tensors, delta=DELTA, teacher_rows=teacher_rows).loss

    paths = {
        "tad_ext": training_step(fused, [student], teacher, weight, labels, steps),
        **_eager_and_compiled("", eager.linear_tad_loss, parts, teacher, weight, labels[:near_rows]),
        PRODUCTS: _products(student.detach(), teacher, weight),
    }
    if distant == 0:
        paths |= peers.linear_cross_entropy(student, weight, labels)
    if near == 0:
        paths |= peers.linear_kl_divergence(student, teacher, weight)
    passes = _row_passes(rows, near_rows) * hidden_size
    return Workload(paths, (weight.numel() + passes) * dtype.itemsize, flops=2 * passes * vocabulary)


def _tensors(rows: int, columns: int, vocabulary: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Student, teacher, labels."""
    student, teacher = (torch.randn(rows, columns).to(dtype) for _ in range(2))
    return student, teacher, torch.randint(vocabulary, (rows,))


def _steps(rows: int, near: int, distant: int) -> tuple[Tensor, int]:
    """(rows,) steps to reveal, and how many of them are near: the first."""
    near_rows = rows * near // (near + distant)
    return torch.where(torch.arange(rows) < near_rows, 1, DELTA + 5), near_rows


def _row_passes(rows: int, near_rows: int) -> int:
    """Student read and gradient written; of distant rows the teacher is read, too."""
    return 2 * near_rows + 3 * (rows - near_rows)


def _eager_and_compiled(
    words: str, loss: Callable[..., Tensor], leaves: list[Tensor], *others: Any
) -> dict[str, Implementation]:
    functions = {"eager": loss, "torch.compile": eager.compiled(loss)}
    return {path + words: training_step(function, leaves, *others) for path, function in functions.items()}


def _products(student: Tensor, teacher: Tensor, weight: Tensor) -> Implementation:
    """Logits of the student and of the distant teacher, and the gradient of the student's hidden states."""
    student_logits, teacher_logits = student @ weight.T, teacher @ weight.T
    gradient = torch.empty_like(student)

    def run() -> Tensor:
        torch.mm(student, weight.T, out=student_logits)
        torch.mm(teacher, weight.T, out=teacher_logits)
        return torch.mm(student_logits, weight, out=gradient)

    return Implementation(run)
