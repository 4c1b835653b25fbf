"""One step on the device: forward, statistics of what the policy sees, policy, reveal.

Nothing here looks at a value: a step goes from tensors that stay where they are to tensors that stay where they are,
so that it can be recorded once and replayed (`tad_ext.decoding.cuda_graphs`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tad_ext.ops import select_reveal, unmask_step

from .batch import DecodingBatch, Plan
from .forward import logits_of
from .policies.by_selection import selection_of
from .policies.checking import checked
from .sampling import Sampler


class Step:
    """One forward and its reveals, in place on the tensors of `batch`."""

    def __init__(self, model: Any, batch: DecodingBatch) -> None:
        self.model, self.batch, policy = model, batch, batch.config.policy
        self.sampler = Sampler(batch)
        self.policy = checked(policy)
        self.prepare = getattr(self.policy, "prepare", None)
        self.selection = selection_of(policy) if self.sampler.plain and self.prepare is None else None

    def __call__(self, plan: Plan) -> Tensor:
        """(B, 5) int64, for the host to read: the arguments of `SequenceProgress.advance`."""
        batch, mask = self.batch, self.batch.tokens.mask
        state, canvas = batch.view(plan), batch.canvas[: plan.sequences]
        logits = logits_of(self.model, batch, plan, state)
        if self.prepare is not None:
            logits = self.prepare(logits, state)
        logits = self.sampler.allowed(logits, state)
        if self.selection is not None:
            options = self.sampler.arguments(state)
            statistics, _ = select_reveal(canvas, logits, state, self.selection, mask_token_id=mask, **options)
        else:
            statistics = self.sampler(logits, state)
            unmask_step(canvas, statistics, state, self.policy, mask_token_id=mask)
        batch.keep_memory(state)
        batch.input_ids[: plan.sequences].scatter_(1, batch.columns[: plan.sequences], canvas)
        broken = (state.present & ~statistics.valid).any(dim=1)
        counts = batch.update_positions(plan.sequences)
        # All of one dtype, which torch stacks in one launch.
        return torch.stack([broken.long(), state.blocks, *counts.unbind(dim=1)], dim=1)
