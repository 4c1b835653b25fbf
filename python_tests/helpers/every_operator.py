"""One call of every operator, forward and backward, for tests that are about devices and not about numbers."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tad_ext.decoding import ConfidenceThreshold
from tad_ext.ops import (
    DecodeState,
    Selection,
    commit_reveal,
    eligible_positions,
    fused_linear_tad_loss,
    fused_tad_loss,
    masked_log_softmax,
    select_reveal,
    token_statistics,
    truncate_logits,
    unmask_step,
)

N, D = 12, 16
MASK, EOS = 1, 3
BATCH, GEN_LENGTH, BLOCK_LENGTH, WIDTH = 3, 12, 4, 8


@dataclass(frozen=True)
class Case:
    """A call of an operator on tensors that exist already, so that it can be captured in a CUDA graph."""

    name: str
    inputs: Callable[[int], tuple[Tensor, ...]]  # seed -> CPU tensors
    run: Callable[..., list[Tensor]]  # the inputs on any device -> results; the inputs stay as they are

    def __str__(self) -> str:
        return self.name


def every_operator(vocabulary: int = 515, dtype: torch.dtype = torch.float32) -> list[Case]:
    """Cases with logits of this vocabulary and dtype."""

    def normal(generator: torch.Generator, *shape: int) -> Tensor:
        return (torch.randn(shape, generator=generator, dtype=torch.float64) * 3).to(dtype)

    def integers(generator: torch.Generator, high: int, *shape: int) -> Tensor:
        return torch.randint(0, high, shape, generator=generator)

    def loss_inputs(seed: int) -> tuple[Tensor, ...]:
        g = torch.Generator().manual_seed(seed)
        student, teacher = normal(g, N, vocabulary), normal(g, N, vocabulary)
        return student, teacher, integers(g, vocabulary, N), integers(g, 6, N) - 1, torch.rand(N, generator=g)

    def dense_inputs(seed: int) -> tuple[Tensor, ...]:
        g = torch.Generator().manual_seed(seed)
        rows = integers(g, N, N), integers(g, N, N)  # some are named twice, some not at all
        return *loss_inputs(seed)[:4], *rows, torch.tensor(5.0)

    def linear_inputs(seed: int) -> tuple[Tensor, ...]:
        g = torch.Generator().manual_seed(seed)
        hidden = normal(g, N, D) / 3, normal(g, N, D) / 3, normal(g, vocabulary, D) / 3
        return *hidden, integers(g, vocabulary, N), integers(g, 6, N) - 1

    def log_softmax_inputs(seed: int) -> tuple[Tensor, ...]:
        g = torch.Generator().manual_seed(seed)
        return normal(g, N, vocabulary), integers(g, N, 7), normal(g, 7, vocabulary)

    def statistics_inputs(seed: int) -> tuple[Tensor, ...]:
        g = torch.Generator().manual_seed(seed)
        ids = integers(g, vocabulary, min(3, vocabulary - 1)), integers(g, vocabulary, 2)
        return normal(g, N, vocabulary), integers(g, N + 1, 3, 4) - 1, *ids, integers(g, 99, 3, 1), integers(g, 99, 4)

    def canvas_inputs(seed: int) -> tuple[Tensor, ...]:
        g = torch.Generator().manual_seed(seed)
        canvas = torch.where(torch.rand(BATCH, GEN_LENGTH, generator=g) < 0.6, MASK, 5)
        forwards, blocks = integers(g, 9, BATCH), 1 + integers(g, GEN_LENGTH // BLOCK_LENGTH, BATCH)
        positions = torch.stack([torch.randperm(GEN_LENGTH, generator=g)[:WIDTH].sort().values for _ in range(BATCH)])
        return canvas, torch.zeros_like(canvas), forwards, blocks, (canvas != MASK).all(1), positions

    def reveal_inputs(seed: int) -> tuple[Tensor, ...]:
        g = torch.Generator().manual_seed(seed)
        score = torch.rand(BATCH, WIDTH, generator=g)
        return *canvas_inputs(seed), 2 + integers(g, 5, BATCH, WIDTH), score, score > 0.7

    def unmask_inputs(seed: int) -> tuple[Tensor, ...]:
        g = torch.Generator().manual_seed(seed)
        return *canvas_inputs(seed), normal(g, BATCH, WIDTH, vocabulary)

    cases = [
        Case("loss", loss_inputs, _loss),
        Case("dense loss", dense_inputs, _dense_loss),
        Case("linear loss", linear_inputs, _linear_loss),
        Case("log softmax", log_softmax_inputs, _log_softmax),
        Case("statistics", statistics_inputs, _statistics),
        Case("sampling", statistics_inputs, _sampling),
        Case("truncate", lambda seed: statistics_inputs(seed)[:1], _truncate),
        Case("commit", reveal_inputs, _commit),
    ]
    if vocabulary > MASK:
        cases += [Case("unmask", unmask_inputs, _unmask), Case("select", unmask_inputs, _select)]
    return cases


def _loss(student: Tensor, teacher: Tensor, labels: Tensor, steps: Tensor, weight: Tensor) -> list[Tensor]:
    student = student.detach().requires_grad_()
    result = fused_tad_loss(student, teacher, labels, steps, delta=2, temperature=1.5, row_weight=weight)
    return [*result, *torch.autograd.grad(result.loss, student)]


def _dense_loss(
    student: Tensor, teacher: Tensor, labels: Tensor, steps: Tensor, rows: Tensor, teacher_rows: Tensor, count: Tensor
) -> list[Tensor]:
    student = student.detach().requires_grad_()
    result = fused_tad_loss(
        student, teacher, labels, steps, delta=2, student_rows=rows, teacher_rows=teacher_rows, near_count=count,
        distant_count=7,
    )  # fmt: skip
    return [*result, *torch.autograd.grad(result.loss, student)]


def _linear_loss(student: Tensor, teacher: Tensor, head: Tensor, labels: Tensor, steps: Tensor) -> list[Tensor]:
    student, head = student.detach().requires_grad_(), head.detach().requires_grad_()
    result = fused_linear_tad_loss(student, teacher, head, labels, steps, delta=2, chunk_rows=5)
    return [*result, *torch.autograd.grad(result.loss, (student, head))]


def _log_softmax(logits: Tensor, rows: Tensor, upstream: Tensor) -> list[Tensor]:
    logits = logits.detach().requires_grad_()
    out = masked_log_softmax(logits, rows=rows, temperature=0.8)
    return [out, *torch.autograd.grad(out, logits, upstream)]


def _statistics(logits: Tensor, rows: Tensor, suppress: Tensor, queries: Tensor, *_: Tensor) -> list[Tensor]:
    return [*token_statistics(logits, rows=rows, suppress_tokens=suppress, query_tokens=queries)]


def _sampling(
    logits: Tensor, rows: Tensor, suppress: Tensor, queries: Tensor, seeds: Tensor, offsets: Tensor
) -> list[Tensor]:
    return [
        *token_statistics(logits, rows=rows, temperature=0.9, suppress_tokens=suppress, seeds=seeds, offsets=offsets)
    ]


def _truncate(logits: Tensor) -> list[Tensor]:
    return [
        truncate_logits(logits, temperature=0.9, top_k=top_k, top_p=top_p)
        for top_k, top_p in ((None, 0.8), (7, 0.8), (7, 1.0))
    ]


def _commit(
    canvas: Tensor, reveal_step: Tensor, forwards: Tensor, blocks: Tensor, done: Tensor, *entries: Tensor
) -> list[Tensor]:
    written = [tensor.clone() for tensor in (canvas, reveal_step, forwards, blocks, done)]
    revealed = commit_reveal(
        *written, *entries, block_length=BLOCK_LENGTH, block_add_threshold=0.5, decoded_token_threshold=0.5,
        mask_token_id=MASK, eos_token_ids=[EOS],
    )  # fmt: skip
    return [*written, revealed]


def _state(canvas: Tensor, *tensors: Tensor) -> tuple[Tensor, DecodeState]:
    """Copies that may be written to, and the positions."""
    *written, positions = tensors
    own = [tensor.clone() for tensor in written]
    return canvas.clone(), DecodeState(*own, positions, BLOCK_LENGTH, block_add_threshold=0.5, eos_token_ids=(EOS,))


def _unmask(*tensors: Tensor) -> list[Tensor]:
    *given, logits = tensors
    canvas, state = _state(*given)
    revealed = unmask_step(canvas, logits, state, ConfidenceThreshold(0.3), mask_token_id=MASK)
    return [canvas, *state.tensors, revealed]


def _select(*tensors: Tensor) -> list[Tensor]:
    *given, logits = tensors
    canvas, state = _state(*given)
    suppress, positions = torch.full((1,), MASK, device=canvas.device), torch.empty_like(canvas)
    statistics, revealed = select_reveal(
        canvas, logits, state, Selection("entropy-budget", 2.0), mask_token_id=MASK, suppress_tokens=suppress
    )
    progress = eligible_positions(canvas, state.blocks, positions, block_length=BLOCK_LENGTH, mask_token_id=MASK)
    return [canvas, *state.tensors, *statistics, revealed, positions, progress]
