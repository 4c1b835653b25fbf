"""The losses as they are timed: forward and backward, near : distant rows in a given ratio.

A compact caller has gathered its rows already; a dense one has logits of every position.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import eager
import peers
import torch
import torch.nn.functional as F
from torch import Tensor
from work import Implementation, Workload, normal, training_step

from tad_ext import fused_linear_tad_loss, fused_tad_loss

DELTA = 4
_CAN_RECOMPUTE = "recompute_gradient" in inspect.signature(fused_tad_loss).parameters


def compact_tad_loss(
    rows: int,
    vocabulary: int,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    *,
    near: int = 1,
    distant: int = 7,
) -> Workload:
    """Baselines get near and distant rows as tensors of their own, so that they have nothing to gather; "by masks": in
    one tensor, as tad_ext does.
    """
    generator = torch.Generator(device).manual_seed(0)
    student, teacher = (normal(rows, vocabulary, generator, dtype) for _ in range(2))
    labels = torch.randint(vocabulary, (rows,), generator=generator, device=device)
    near_rows = rows * near // (near + distant)
    steps = _steps(rows, near_rows, device)
    parts = [student[:near_rows].requires_grad_(), student[near_rows:].requires_grad_()]
    student.requires_grad_()

    def baseline(loss: Callable[..., Tensor]) -> Implementation:
        return training_step(parts, lambda: loss(*parts, teacher[near_rows:], labels[:near_rows]))

    def fused(**options: Any) -> Implementation:
        return training_step(
            [student], lambda: fused_tad_loss(student, teacher, labels, steps, delta=DELTA, **options).loss
        )

    def by_masks(loss: Callable[..., Tensor]) -> Implementation:
        return training_step([student], lambda: loss(student, teacher, labels, steps, DELTA))

    paths = {
        "eager": baseline(eager.tad_loss),
        "torch.compile": baseline(torch.compile(eager.tad_loss)),
        "eager, by masks": by_masks(eager.dense_tad_loss),
        "torch.compile, by masks": by_masks(torch.compile(eager.dense_tad_loss)),
    }
    if distant == 0:
        paths |= peers.cross_entropy(student, labels)
    if near == 0:
        paths |= peers.kl_divergence(student, teacher)
    return Workload(
        paths | _fused_paths(fused),
        bytes=_row_passes(rows, near_rows) * vocabulary * dtype.itemsize,
        elements=rows * vocabulary,
    )


def dense_tad_loss(
    rows: int,
    positions: int,
    vocabulary: int,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    *,
    near: int = 1,
    distant: int = 7,
) -> Workload:
    """`rows` of `positions`, evenly spaced, take part; baselines gather them by masks. The gradient is dense."""
    generator = torch.Generator(device).manual_seed(0)
    student, teacher = (normal(positions, vocabulary, generator, dtype) for _ in range(2))
    student.requires_grad_()
    labels = torch.randint(vocabulary, (positions,), generator=generator, device=device)
    near_rows = rows * near // (near + distant)
    steps = _steps(rows, near_rows, device)
    named = torch.arange(rows, device=device) * (positions // rows)
    named_labels = labels[named]
    dense_steps = torch.zeros(positions, dtype=torch.int64, device=device).index_copy(0, named, steps)

    def baseline(loss: Callable[..., Tensor]) -> Implementation:
        return training_step([student], lambda: loss(student, teacher, labels, dense_steps, DELTA))

    def fused(**options: Any) -> Implementation:
        options |= {"delta": DELTA, "student_rows": named, "teacher_rows": named}
        return training_step([student], lambda: fused_tad_loss(student, teacher, named_labels, steps, **options).loss)

    paths = {"eager": baseline(eager.dense_tad_loss), "torch.compile": baseline(torch.compile(eager.dense_tad_loss))}
    return Workload(
        paths | _fused_paths(fused),
        # Rows that no entry names are not read, and their gradient is written: zeros.
        bytes=(_row_passes(rows, near_rows) + positions - rows) * vocabulary * dtype.itemsize,
        elements=rows * vocabulary,
    )


def linear_tad_loss(
    rows: int,
    hidden_size: int,
    vocabulary: int,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    *,
    near: int = 1,
    distant: int = 7,
) -> Workload:
    """The loss of hidden states, with the output head inside, which is frozen."""
    generator = torch.Generator(device).manual_seed(0)
    student, teacher = (normal(rows, hidden_size, generator, dtype) for _ in range(2))
    weight = normal(vocabulary, hidden_size, generator, dtype) / hidden_size**0.5
    labels = torch.randint(vocabulary, (rows,), generator=generator, device=device)
    near_rows = rows * near // (near + distant)
    steps = _steps(rows, near_rows, device)
    distant_teacher = teacher[near_rows:]
    teacher_rows = torch.arange(rows, device=device) - near_rows  # negative where an entry is near: not read
    parts = [student[:near_rows].requires_grad_(), student[near_rows:].requires_grad_()]
    student.requires_grad_()

    def baseline(loss: Callable[..., Tensor]) -> Implementation:
        return training_step(parts, lambda: loss(*parts, distant_teacher, weight, labels[:near_rows]))

    paths = {
        "eager": baseline(eager.linear_tad_loss),
        "torch.compile": baseline(torch.compile(eager.linear_tad_loss)),
        "its matrix products alone": _products(student.detach(), distant_teacher, weight),
        "tad_ext": training_step(
            [student],
            lambda: (
                fused_linear_tad_loss(
                    student, distant_teacher, weight, labels, steps, delta=DELTA, teacher_rows=teacher_rows
                ).loss
            ),
        ),
    }
    if distant == 0:
        paths |= _torch_linear_cross_entropy(student, weight, labels)
        paths |= peers.linear_cross_entropy(student, weight, labels)
    return Workload(
        paths,
        bytes=(weight.numel() + _row_passes(rows, near_rows) * hidden_size) * dtype.itemsize,
        flops=2 * _row_passes(rows, near_rows) * hidden_size * vocabulary,
    )


def _fused_paths(fused: Callable[..., Implementation]) -> dict[str, Implementation]:
    recomputed = {"tad_ext, recomputed": fused(recompute_gradient=True)} if _CAN_RECOMPUTE else {}
    return {"tad_ext": fused()} | recomputed


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


def _row_passes(rows: int, near_rows: int) -> int:
    """Student read and gradient written; of distant rows the teacher is read, too."""
    return 2 * near_rows + 3 * (rows - near_rows)


def _steps(rows: int, near_rows: int, device: torch.device | str) -> Tensor:
    """(rows,) steps to reveal: the first `near_rows` near, the rest distant."""
    return torch.where(torch.arange(rows, device=device) < near_rows, 1, DELTA + 5)
