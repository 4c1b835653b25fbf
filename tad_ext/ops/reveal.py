"""One decoding step behind the logits: which tokens are revealed, the canvases and schedules after it, what is next."""

import math
from collections.abc import Callable, Sequence
from typing import get_args

import torch
from torch import Tensor

from .checks import Call, expect, values_may_be_read
from .library import empty, operator, register_fakes
from .selection import Rule, Selection
from .statistics import check_statistics, empty_statistics, token_statistics
from .types import DecodeState, ForcedProgress, TokenStatistics

_MAX_EOS_TOKENS = 16  # as in csrc/common/arguments.h

Policy = Callable[[TokenStatistics, DecodeState], tuple[Tensor, Tensor]]
"""policy(statistics of (B, W) tensors, state) -> (score (B, W) float, higher is better; accept (B, W) bool)."""


def unmask_step(
    canvas: Tensor, statistics: TokenStatistics | Tensor, state: DecodeState, policy: Policy, *, mask_token_id: int
) -> Tensor:
    """One step of decoding: ask the policy which entries to reveal, write them to `canvas` and `state` in place.

    Args:
        canvas: (B, G) int64, the generation region of each sequence, `mask_token_id` where nothing is revealed.
        statistics: of the entries `state.positions`, (B, W) each; or their logits (B, W, V).
        state: counters, block schedule and positions; its tensors are updated.
        policy: scores entries and accepts some of them. Entries with invalid statistics are never accepted.

    Returns:
        (B, W) bool: the entries revealed by this step.
    """
    if isinstance(statistics, Tensor):
        suppress = torch.full((1,), mask_token_id, device=statistics.device)  # made there: a copy would wait for it
        statistics = token_statistics(statistics, suppress_tokens=suppress)
    score, accept = policy(statistics, state)
    choice = state.to_commit(statistics, score, accept)
    return commit_reveal(canvas, *state.tensors, **choice, mask_token_id=mask_token_id)


def _check_blocks(call: Call) -> None:
    call.check("canvas", call.canvas.dim() == 2, "(batch, gen_length)")
    length = call.canvas.shape[1]
    whole = call.block_length >= 1 and length >= 1 and length % call.block_length == 0
    call.check("block_length", whole, f"a divisor of the generation length {length}")


def _check_canvases(call: Call) -> None:
    _check_blocks(call)
    call.check("positions", call.positions.dim() == 2, "(batch, width)")
    batch, length = call.canvas.shape
    for name in ("block_add_threshold", "decoded_token_threshold"):
        call.check(name, 0 <= getattr(call, name) <= 1, "0 <= value <= 1")
    for name in ("canvas", "reveal_step"):
        call.check_shape(name, (batch, length), written=True)
    for name in ("forwards", "blocks", "done"):
        call.check_shape(name, (batch,), written=True)
    call.check_shape("positions", (batch, call.positions.shape[1]))
    call.check("eos_token_ids", len(call.eos_token_ids) <= _MAX_EOS_TOKENS, f"at most {_MAX_EOS_TOKENS} ids")
    call.check_range("positions", -1, length, "columns of the canvas, -1 for padding")
    call.check_range("blocks", 1, length // call.block_length + 1, "created blocks")
    words = get_args(ForcedProgress)
    call.check("forced_progress", call.forced_progress in words, f"one of {', '.join(words)}")


def _check_commit(call: Call) -> None:
    _check_canvases(call)
    if call.top_tokens is None:
        call.top_tokens = call.tokens
    for name in ("tokens", "top_tokens", "score", "accept"):
        call.check_shape(name, call.positions.shape)
    for name in ("tokens", "top_tokens"):
        if values_may_be_read(tokens := getattr(call, name)):
            masks = (call.positions >= 0) & ~call.done[:, None] & (tokens == call.mask_token_id)
            call.check_none(masks, name, "another than the mask token: revealing a mask reveals nothing")


@operator(_check_commit)
def commit_reveal(
    canvas: Tensor,
    reveal_step: Tensor,
    forwards: Tensor,
    blocks: Tensor,
    done: Tensor,
    positions: Tensor,
    tokens: Tensor,
    score: Tensor,
    accept: Tensor,
    *,
    top_tokens: Tensor | None = None,
    block_length: int,
    block_add_threshold: float = 1.0,
    decoded_token_threshold: float = 1.0,
    forced_progress: ForcedProgress = "row",
    mask_token_id: int,
    eos_token_ids: Sequence[int] = (),
) -> Tensor:
    """Write one forward's accepted tokens to the canvases and advance counters, blocks and done flags, all in place.

    Per row that is not done:

    1. `forwards` is counted up; it is the step number of this forward's reveals.
    2. Every eligible accepted entry is revealed. Eligible: its position is masked and lies in a created block.
    3. Where too little is accepted, the best-scored entries are revealed as well (ties and NaN: lowest position), so
       every forward makes progress. By `forced_progress`:

       * "row": if no entry of the row is accepted, the row's best; and then, if the first fully active block that has
         eligible entries got none, its best, with its top token (TAD; d3LLM's code for LLaDA);
       * "block": the second half of that alone, with its token (d3LLM's code for Dream);
       * "blocks": the best of every fully active block that got none (D2F).

       A block is fully active when it is the first, or when the revealed share of its predecessor, before this forward,
       is at least `decoded_token_threshold`. Where `positions` lists all masks of the created blocks, the first such
       block is simply the first unfinished one, whatever the threshold: it matters to "blocks" alone. With one block at
       a time all three are the same.
    4. With `eos_token_ids`: the first end-of-sequence token revealed fills all later positions, with this step.
    5. One block is created if the newest one's revealed share is at least `block_add_threshold`, or it is complete;
       and all up to the first one that holds a mask.
    6. A row is done when its canvas holds no mask.

    Args:
        canvas, reveal_step: (B, G) int64, of the generation region; written.
        forwards, blocks: (B,) int64; written.
        done: (B,) bool; written.
        positions: (B, W) int64, the canvas column of each entry, each at most once in a row, -1 for padding.
        tokens: (B, W) int64, never the mask token.
        score, accept: (B, W) float32; (B, W) bool.
        top_tokens: (B, W) int64, the most probable ones where `tokens` (the default) are samples; never the mask token.
        eos_token_ids: at most 16.

    Returns:
        (B, W) bool: the entries that were revealed.
    """
    return torch.ops.tad_ext.commit_reveal(
        canvas, reveal_step, forwards, blocks, done, positions,
        tokens, tokens if top_tokens is None else top_tokens, score, accept,
        block_length, block_add_threshold, decoded_token_threshold, forced_progress, mask_token_id, list(eos_token_ids),
    )  # fmt: skip


def _check_select(call: Call) -> None:
    call = Call(**{"canvas": call.canvas, **vars(call.state), **call.selection._asdict(), **vars(call)})
    call.check_tensors()
    call.check("rule", call.rule in get_args(Rule), f"one of {', '.join(get_args(Rule))}")
    call.check("value", not math.isnan(call.value), f"the parameter of {call.rule}")
    _check_canvases(call)
    logits, suppress, mask, entries = call.logits, call.suppress_tokens, call.mask_token_id, call.positions.numel()
    call.check("logits", logits.shape[:-1].numel() == entries, f"a row for each of the {entries} positions")
    named = not values_may_be_read(suppress) or bool((suppress == mask).any())
    expect(named, f"suppress_tokens does not name the mask token {mask}: revealing a mask reveals nothing")
    check_statistics(call, call.positions.shape, ascending=True)


@operator(_check_select)
def select_reveal(
    canvas: Tensor,
    logits: Tensor,
    state: DecodeState,
    selection: Selection,
    *,
    mask_token_id: int,
    suppress_tokens: Tensor,
    temperature: float = 0.0,
    seeds: Tensor | None = None,
    offsets: Tensor | None = None,
) -> tuple[TokenStatistics, Tensor]:
    """Statistics, selection and reveals of one forward, in place on `canvas` and `state`: two launches on a GPU.

    The same as `token_statistics`, `select` and `commit_reveal` one after the other, up to the last bit of the sums of
    entropies that a budget is compared with.

    Args:
        canvas: (B, G) int64, the generation region; written.
        logits: (B * W, V) or (B, W, V), of the entries `state.positions`; those of padding are not read.
        state: counters, block schedule and positions; its tensors are updated.
        selection: which entries are accepted.
        suppress_tokens: int64 ids that are never chosen, ascending, the mask token among them.
        temperature, seeds, offsets: as in `token_statistics`; seeds and offsets broadcastable to (B, W).

    Returns:
        The statistics, (B, W) each, without query logits; and (B, W) bool, the entries that were revealed.

    Raises:
        ValueError, TypeError: as the three functions, naming the argument.
    """
    *statistics, revealed = torch.ops.tad_ext.select_reveal(
        canvas, *state.tensors, logits, selection.rule, float(selection.value),
        float(temperature), suppress_tokens, seeds, offsets,
        state.block_length, state.block_add_threshold, state.decoded_token_threshold, state.forced_progress,
        mask_token_id, list(state.eos_token_ids),
    )  # fmt: skip
    no_queries = logits.new_empty((*revealed.shape, 0))
    return TokenStatistics._make([*statistics, no_queries]), revealed


def _check_eligible(call: Call) -> None:
    _check_blocks(call)
    call.check_shape("canvas", call.canvas.shape, written=True)
    call.check_shape("positions", call.canvas.shape, written=True)
    call.check_shape("blocks", call.canvas.shape[:1])


@operator(_check_eligible)
def eligible_positions(
    canvas: Tensor, blocks: Tensor, positions: Tensor, *, block_length: int, mask_token_id: int
) -> Tensor:
    """Eligible positions of every canvas, and counts.

    Args:
        canvas: (B, G) int64.
        blocks: (B,) int64, created blocks.
        positions: (B, G) int64; written: the masked columns of created blocks, ascending, -1 behind the last.

    Returns:
        (B, 3) int64: the first block with a mask (0 where none has), masks in created blocks, all masks.
    """
    return torch.ops.tad_ext.eligible_positions(canvas, blocks, positions, block_length, mask_token_id)


register_fakes(
    commit_reveal=lambda call: empty(call.accept),
    select_reveal=lambda call: [
        *empty_statistics(call.positions, call.positions.shape),
        call.positions.new_empty(call.positions.shape, dtype=torch.bool),
    ],
    eligible_positions=lambda call: call.canvas.new_empty(call.canvas.shape[0], 3),
)
