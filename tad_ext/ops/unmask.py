"""One unmasking step: statistics of the eligible positions -> a policy's choice -> tokens written to the canvas."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .backend import commit_reveal, token_statistics
from .types import DecodeState, TokenStatistics

Policy = Callable[[TokenStatistics, DecodeState], tuple[Tensor, Tensor]]
"""policy(statistics of (B, W) tensors, state) -> (score (B, W) float, higher is better; accept (B, W) bool)."""


def unmask_step(
    canvas: Tensor,
    statistics: TokenStatistics | Tensor,
    state: DecodeState,
    policy: Policy,
    *,
    mask_token_id: int,
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
    return commit_reveal(
        canvas,
        *state.tensors,
        statistics.token,
        score.to(torch.float32).masked_fill(~statistics.valid, -torch.inf),
        accept & statistics.valid,
        top_tokens=statistics.top_token,
        mask_token_id=mask_token_id,
        **state.schedule,
    )
