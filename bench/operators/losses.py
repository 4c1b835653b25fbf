"""The losses as they are timed: forward and backward, near : distant rows in a given ratio.

A compact caller has gathered its rows already; a dense one has logits of every position.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tad_ext import fused_linear_tad_loss, fused_tad_loss

from ..stopwatch import Implementation
from . import eager, peers
from .work import Device, Workload, normal, training_step

DELTA = 4
PRODUCTS = "its matrix products alone"


def compact_tad_loss(
    rows: int, vocabulary: int, dtype: torch.dtype, device: Device = "cpu", *, near: int, distant: int
) -> Workload:
    """Baselines get near and distant rows as tensors of their own, so that they have nothing to gather; "by masks": in
    one tensor, as tad_ext does.
    """
    student, teacher, labels = _tensors(rows, vocabulary, vocabulary, dtype, device)
    steps, near_rows = _steps(rows, near, distant, device)
    parts = [student[:near_rows].requires_grad_(), student[near_rows:].requires_grad_()]
    student.requires_grad_()

    def by_parts(loss: Callable[..., Tensor]) -> Implementation:
        return training_step(parts, lambda: loss(*parts, teacher[near_rows:], labels[:near_rows]))

    paths = {
        "eager": by_parts(eager.tad_loss),
        "torch.compile": by_parts(torch.compile(eager.tad_loss)),
        **{f"{path}, by masks": step for path, step in _by_masks(student, teacher, labels, steps).items()},
        **_fused(student, teacher, labels, steps),
    }
    if distant == 0:
        paths |= peers.cross_entropy(student, labels)
    if near == 0:
        paths |= peers.kl_divergence(student, teacher)
    return Workload(paths, bytes=_row_passes(rows, near_rows) * vocabulary * dtype.itemsize)


def dense_tad_loss(
    rows: int, positions: int, vocabulary: int, dtype: torch.dtype, device: Device = "cpu", *, near: int, distant: int
) -> Workload:
    """`rows` of `positions`, evenly spaced, take part; baselines gather them by masks. The gradient is dense."""
    student, teacher, labels = _tensors(positions, vocabulary, vocabulary, dtype, device)
    student.requires_grad_()
    steps, near_rows = _steps(rows, near, distant, device)
    named = torch.arange(rows, device=device) * (positions // rows)
    dense_steps = torch.zeros(positions, dtype=torch.int64, device=device).index_copy(0, named, steps)
    paths = _by_masks(student, teacher, labels, dense_steps)
    paths |= _fused(student, teacher, labels[named], steps, student_rows=named, teacher_rows=named)
    # Rows that no entry names are not read, and their gradient is written: zeros.
    row_passes = _row_passes(rows, near_rows) + positions - rows
    return Workload(paths, bytes=row_passes * vocabulary * dtype.itemsize)


def linear_tad_loss(
    rows: int, hidden_size: int, vocabulary: int, dtype: torch.dtype, device: Device = "cpu", *, near: int, distant: int
) -> Workload:
    """The loss of hidden states, with the output head inside, which is frozen."""
    student, teacher, labels = _tensors(rows, hidden_size, vocabulary, dtype, device)
    weight = normal(vocabulary, hidden_size, torch.Generator(device).manual_seed(1), dtype) / hidden_size**0.5
    steps, near_rows = _steps(rows, near, distant, device)
    distant_teacher = teacher[near_rows:]
    teacher_rows = torch.arange(rows, device=device) - near_rows  # negative where an entry is near: not read
    parts = [student[:near_rows].requires_grad_(), student[near_rows:].requires_grad_()]
    student.requires_grad_()

    def by_parts(loss: Callable[..., Tensor]) -> Implementation:
        return training_step(parts, lambda: loss(*parts, distant_teacher, weight, labels[:near_rows]))

    def fused() -> Tensor:
        hidden = (student, distant_teacher, weight)
        return fused_linear_tad_loss(*hidden, labels, steps, delta=DELTA, teacher_rows=teacher_rows).loss

    paths = {
        "eager": by_parts(eager.linear_tad_loss),
        "torch.compile": by_parts(torch.compile(eager.linear_tad_loss)),
        PRODUCTS: _products(student.detach(), distant_teacher, weight),
        "tad_ext": training_step([student], fused),
    }
    if distant == 0:
        paths |= _torch_linear_cross_entropy(student, weight, labels)
        paths |= peers.linear_cross_entropy(student, weight, labels)
    passes = _row_passes(rows, near_rows) * hidden_size
    return Workload(paths, bytes=(weight.numel() + passes) * dtype.itemsize, flops=2 * passes * vocabulary)


def _tensors(rows: int, columns: int, vocabulary: int, dtype: torch.dtype, device: Device) -> tuple[Tensor, ...]:
    """Student, teacher, labels."""
    generator = torch.Generator(device).manual_seed(0)
    student, teacher = (normal(rows, columns, generator, dtype) for _ in range(2))
    return student, teacher, torch.randint(vocabulary, (rows,), generator=generator, device=device)


def _steps(rows: int, near: int, distant: int, device: Device) -> tuple[Tensor, int]:
    """(rows,) steps to reveal, and how many of them are near: the first."""
    near_rows = rows * near // (near + distant)
    return torch.where(torch.arange(rows, device=device) < near_rows, 1, DELTA + 5), near_rows


def _row_passes(rows: int, near_rows: int) -> int:
    """Student read and gradient written; of distant rows the teacher is read, too."""
    return 2 * near_rows + 3 * (rows - near_rows)


def _by_masks(student: Tensor, teacher: Tensor, labels: Tensor, steps: Tensor) -> dict[str, Implementation]:
    def step(loss: Callable[..., Tensor]) -> Implementation:
        return training_step([student], lambda: loss(student, teacher, labels, steps, DELTA))

    return {"eager": step(eager.dense_tad_loss), "torch.compile": step(torch.compile(eager.dense_tad_loss))}


def _fused(student: Tensor, teacher: Tensor, labels: Tensor, steps: Tensor, **named: Tensor) -> dict[str, Any]:
    def step(**options: Any) -> Implementation:
        entries = (student, teacher, labels, steps)
        return training_step([student], lambda: fused_tad_loss(*entries, delta=DELTA, **named, **options).loss)

    return {"tad_ext": step(), "tad_ext, recomputed": step(recompute_gradient=True)}


def _torch_linear_cross_entropy(hidden: Tensor, weight: Tensor, labels: Tensor) -> dict[str, Implementation]:
    """PyTorch's own, where this version has it: with whole logits, and in chunks, which on a CPU would take seconds."""
    if not hasattr(F, "linear_cross_entropy"):
        return {}

    def step(**options: Any) -> Implementation:
        return training_step([hidden], lambda: F.linear_cross_entropy(hidden, weight, labels, **options))

    paths = {"F.linear_cross_entropy": step()}
    if hidden.is_cuda and hasattr(torch.nn, "LinearCrossEntropyOptions"):
        paths["F.linear_cross_entropy, chunked"] = step(options=torch.nn.LinearCrossEntropyOptions())
    return paths


def _products(student: Tensor, distant_teacher: Tensor, weight: Tensor) -> Implementation:
    """Logits of the student and of the distant teacher, and the gradient of the student's hidden states."""
    student_logits, teacher_logits = (hidden @ weight.T for hidden in (student, distant_teacher))
    gradient = torch.empty_like(student)

    def run() -> Tensor:
        torch.mm(student, weight.T, out=student_logits)
        torch.mm(distant_teacher, weight.T, out=teacher_logits)
        return torch.mm(student_logits, weight, out=gradient)

    return Implementation(run)
