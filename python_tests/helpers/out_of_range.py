"""Indices out of range where nobody looks at them first: NaN for that entry, the others as ever, no memory outside.

On a GPU, looking at an index waits for the device, so it is done only where TAD_EXT_DEBUG is 1. What goes wrong here
may end the process, so the tests run `main` in one of its own, and again under compute-sanitizer.
"""

from collections.abc import Callable

import torch
from every_operator import MASK
from op_checks import loss_and_gradient, random_entries
from torch import Tensor

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
)

OUTSIDE = [-1, 1000, 10**12, 2**62, -(2**62)]  # of 50 tokens, and of 18 rows
NEAR, DISTANT = 2, 4  # entries of `random_entries` for delta = 2


def with_value(tensor: Tensor, index: int, value: int) -> Tensor:
    tensor = tensor.clone()
    tensor[index] = value
    return tensor


def check_loss(device: str) -> None:
    student, teacher, labels, steps = random_entries(18, 50, torch.float32, device)
    rows = torch.arange(18, device=device)
    others = rows != NEAR

    def call(labels: Tensor, wrong: int | None = None, **rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        result, gradient = loss_and_gradient(fused_tad_loss, student, teacher, labels, steps, delta=2, **rows)
        assert result.entry_losses.isnan().nonzero().flatten().tolist() == ([] if wrong is None else [wrong])
        return result.loss, result.ce, result.kl, gradient

    _, ce, kl, gradient = call(labels)
    for outside in OUTSIDE:
        wrong = call(with_value(labels, NEAR, outside), NEAR)
        assert [part.isnan().item() for part in wrong[:3]] == [True, True, False]
        assert torch.equal(wrong[2], kl)
        assert torch.equal(wrong[3][others], gradient[others])
        wrong = call(labels, NEAR, student_rows=with_value(rows, NEAR, outside), teacher_rows=rows)
        assert [part.isnan().item() for part in wrong[:3]] == [True, True, False]
        assert torch.equal(wrong[3][others], gradient[others])
        assert (wrong[3][NEAR] == 0).all()  # a row that is not named
        wrong = call(labels, DISTANT, student_rows=rows, teacher_rows=with_value(rows, DISTANT, outside))
        assert [part.isnan().item() for part in wrong[:3]] == [True, False, True]
        assert torch.equal(wrong[1], ce)
    # A teacher without rows is still a teacher.
    none = fused_tad_loss(student, teacher[:0], labels, steps, delta=2, teacher_rows=rows)
    assert [part.isnan().item() for part in none[:3]] == [True, False, True]


def check_linear_loss(device: str) -> None:
    student, teacher, _, steps = random_entries(18, 16, torch.float32, device, scale=1.0)
    head, _, labels, _ = random_entries(50, 16, torch.float32, device, seed=1, scale=0.5)
    rows, labels = torch.arange(18, device=device), labels[:18]
    others = rows != NEAR

    def call(labels: Tensor, teacher_rows: Tensor) -> tuple[Tensor, Tensor]:
        result, gradient = loss_and_gradient(
            fused_linear_tad_loss, student, teacher, head, labels, steps, delta=2, teacher_rows=teacher_rows
        )
        return result.loss, gradient

    _, gradient = call(labels, rows)
    for outside in OUTSIDE:
        loss, wrong = call(with_value(labels, NEAR, outside), rows)
        assert loss.isnan()
        assert torch.equal(wrong[others], gradient[others])
        assert call(labels, with_value(rows, DISTANT, outside))[0].isnan()


def check_log_softmax(device: str) -> None:
    logits, upstream, _, _ = random_entries(18, 50, torch.float32, device)

    def call(rows: Tensor) -> tuple[Tensor, Tensor]:
        x = logits.clone().requires_grad_()
        out = masked_log_softmax(x, rows=rows)
        out.backward(upstream[: len(rows)])
        assert x.grad is not None
        return out.detach(), x.grad

    rows = torch.tensor([3, 8, 1], device=device)
    out, gradient = call(rows)
    for outside in OUTSIDE:
        wrong, wrong_gradient = call(with_value(rows, 1, outside))
        assert torch.equal(wrong[::2], out[::2])
        assert wrong[1].isnan().all()
        assert torch.equal(wrong_gradient[[1, 3]], gradient[[1, 3]])


def check_statistics(device: str) -> None:
    logits, _, _, _ = random_entries(18, 50, torch.float32, device)
    rows, queries = torch.tensor([3, 8, 1], device=device), torch.tensor([7], device=device)
    clean = token_statistics(logits, rows=rows, query_tokens=queries)
    for outside in OUTSIDE:
        found = token_statistics(logits, rows=with_value(rows, 1, outside), query_tokens=queries)
        assert all(torch.equal(a[::2], b[::2]) for a, b in zip(found, clean))
        assert found.valid.tolist() == [True, False, True]
        assert 0 <= found.token[1] < 50


def _check_second_row(call: Callable[[Tensor, Tensor], tuple[Tensor, ...]], device: str) -> None:
    """call(positions (2, 6), blocks (2,)) gives what it did to the second row, whatever stands in the first one's."""
    positions, blocks = torch.arange(6, device=device).repeat(2, 1), torch.tensor([2, 2], device=device)
    clean = call(positions, blocks)
    for outside in [*OUTSIDE, 6]:
        assert all(torch.equal(a, b) for a, b in zip(call(with_value(positions, 0, outside), blocks), clean))
    for outside in (0, -5, 3, 1000):
        assert all(torch.equal(a, b) for a, b in zip(call(positions, with_value(blocks, 0, outside)), clean))


def check_commit(device: str) -> None:
    """The canvas lies inside a larger tensor, which must stay as it is."""
    zeros = torch.zeros(2, 6, device=device)

    def call(positions: Tensor, blocks: Tensor) -> tuple[Tensor, Tensor]:
        around = torch.full((4, 6), MASK, device=device)
        revealed = commit_reveal(
            around[1:3], torch.zeros_like(around)[1:3], torch.zeros_like(blocks), blocks.clone(), blocks > 99999,
            positions, zeros.long(), zeros, torch.ones_like(revealed_all), block_length=3, mask_token_id=MASK,
        )  # fmt: skip
        assert (around[[0, 3]] == MASK).all()
        return around[2], revealed[1]

    revealed_all = zeros == 0
    _check_second_row(call, device)


def check_select(device: str) -> None:
    """As check_commit, of the operator that chooses as well."""
    logits, suppress = torch.randn(12, 20, device=device), torch.tensor([19], device=device)

    def call(positions: Tensor, blocks: Tensor) -> tuple[Tensor, Tensor]:
        around = torch.full((4, 6), 19, device=device)
        state = DecodeState.start(4, 6, block_length=3, device=device)
        state = DecodeState(
            state.reveal_step[1:3], state.forwards[1:3], blocks.clone(), state.done[1:3], positions, block_length=3
        )
        _, revealed = select_reveal(
            around[1:3], logits, state, Selection("topk", 4), mask_token_id=19, suppress_tokens=suppress
        )
        assert (around[[0, 3]] == 19).all()
        return around[2], revealed[1]

    _check_second_row(call, device)


def check_eligible_positions(device: str) -> None:
    """Positions lie inside a larger tensor, which must stay as it is."""
    canvas = torch.full((2, 6), MASK, device=device)
    for outside in [*OUTSIDE, 0, 3, 1000]:
        around = torch.zeros(4, 6, device=device).long()
        eligible_positions(
            canvas, torch.tensor([outside, 2], device=device), around[1:3], block_length=3, mask_token_id=MASK
        )
        assert not around[[0, 3]].any()
        assert around[2].tolist() == list(range(6))


def main(device: str) -> None:
    for check in (
        check_loss,
        check_linear_loss,
        check_log_softmax,
        check_statistics,
        check_commit,
        check_select,
        check_eligible_positions,
    ):
        check(device)
        if device == "cuda":
            torch.cuda.synchronize()
        print(check.__name__, flush=True)
