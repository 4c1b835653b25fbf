"""Arithmetic on rows of entries that the policies share: tensors of shape (B, W), one row per sequence.

Nothing here reads a value on the host. No row touches another: sums are in float64, so that their last bits do not
depend on the width W, which neighbours in a batch decide.
"""

from collections.abc import Collection

import torch
from torch import Tensor

from tad_ext.ops import DecodeState, TokenStatistics, best_first, in_place, pack_offsets, uniform_noise


def candidates(statistics: TokenStatistics, state: DecodeState) -> Tensor:
    """(B, W) bool: entries that may be revealed."""
    return state.eligible & statistics.valid


def leading(score: Tensor, candidate: Tensor, count: Tensor) -> Tensor:
    """(B, W) bool: the `count`, (B, 1), best-scored candidates of each row, ties to the lowest position."""
    order = best_first(score, candidate)
    rank = torch.arange(order.shape[-1], device=order.device).expand(order.shape)
    return in_place(order, rank < count) & candidate


def noise(state: DecodeState, step: Tensor | int) -> Tensor:
    """(B, W) float64 in (0, 1): a random number of each position in a step, (B, 1), by its row's seed."""
    if state.seeds is None:
        raise ValueError("state.seeds is None: expected (B,) int64, the rows' seeds, for a random order")
    return uniform_noise(state.seeds[:, None], pack_offsets(step, state.positions.clamp(min=0)))


def is_one_of(tokens: Tensor, ids: Collection[int]) -> Tensor:
    """bool, in the shape of `tokens`: which of them are among some ids."""
    found = torch.zeros_like(tokens, dtype=torch.bool)
    for one in ids:
        found = found | (tokens == one)
    return found


def written(state: DecodeState) -> Tensor:
    """(B, W) bool: entries that hold a token which a forward has revealed, this one included."""
    return state.present & (state.reveal_step.gather(1, state.positions.clamp(min=0)) > 0)


def first_position(state: DecodeState) -> Tensor:
    """(B, 1) int64: the first eligible position, the canvas's length where there is none."""
    return torch.where(state.eligible, state.positions, state.reveal_step.shape[1]).amin(dim=-1, keepdim=True)


def first_block(state: DecodeState) -> Tensor:
    """(B, 1) int64: the first block with an eligible position."""
    return first_position(state) // state.block_length


def in_first_block(state: DecodeState) -> Tensor:
    """(B, W) bool: the eligible entries of the first block that has some."""
    return state.eligible & (state.positions // state.block_length == first_block(state))


def block_clock(state: DecodeState, name: str) -> tuple[Tensor, Tensor]:
    """(B, 1) int64 each: how many forwards ago the first block became the first one, and how many masks it had then."""
    memory = remembered(state, f"{name}.clock", 3)
    known, step, total = memory.split(1, dim=1)
    block, masks = first_block(state) + 1, in_first_block(state).sum(dim=-1, keepdim=True)
    same = known == block
    step, total = torch.where(same, step + 1, 0), torch.where(same, total, masks)
    memory.copy_(torch.cat([block, step, total], dim=1))
    return step, total


def remembered(state: DecodeState, name: str, *shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
    """The memory `name` of a policy, (B, *shape), zeros at first."""
    if name not in state.memory:
        state.memory[name] = state.forwards.new_zeros(len(state.forwards), *shape, dtype=dtype)
        state.own.add(name)
    return state.memory[name]


def remembered_columns(state: DecodeState, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The same per canvas column, (B, gen_length + 1, *shape); the last takes what is written for padding."""
    return remembered(state, name, state.reveal_step.shape[1] + 1, *shape, dtype=dtype)


def columns_of(state: DecodeState) -> tuple[Tensor, Tensor]:
    """The index of the entries in what is remembered: `memory[columns_of(state)]` is (B, W, *shape)."""
    rows = torch.arange(state.positions.shape[0], device=state.positions.device)
    return rows[:, None], torch.where(state.present, state.positions, state.reveal_step.shape[1])


def tokens_of(state: DecodeState, policy: object) -> Tensor:
    """`state.tokens`, (B, W). ValueError if they are not there."""
    if state.tokens is None:
        raise ValueError(f"policy {policy}: state.tokens is None; expected what the canvas holds at each entry")
    return state.tokens


def needs_prepare(state: DecodeState, name: str, policy: object) -> None:
    """RuntimeError if the memory that `policy.prepare` makes is not there."""
    if name not in state.memory:
        raise RuntimeError(f"policy {policy}: prepare(logits, state) must be called before it, in every forward")
