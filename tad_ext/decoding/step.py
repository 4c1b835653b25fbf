"""One step on the device: forward, statistics of the eligible positions, policy, reveal.

Nothing here looks at a value: a step goes from tensors that stay where they are to tensors that stay where they are,
so that it can be recorded once and replayed (`tad_ext.decoding.cuda_graphs`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tad_ext.ops import select_reveal, unmask_step

from .batch import DecodingBatch, StepShape, Windows
from .forward import Forward
from .policies import checked, selection_of
from .sampling import Sampler
from .sequence import Report


class Step:
    """One forward and its reveals, in place on the tensors of `batch`."""

    def __init__(self, model: Any, batch: DecodingBatch) -> None:
        self.batch, policy = batch, batch.config.policy
        self.forward = Forward(model, batch)
        self.sampler = Sampler(batch)
        self.policy = checked(policy)
        self.prepare = getattr(self.policy, "prepare", None)
        self.selection = selection_of(policy) if self.sampler.plain and self.prepare is None else None

    def __call__(self, shape: StepShape, windows: Windows | None) -> Tensor:
        """(B, fields of `Report`) int64, for the host to read."""
        batch, sequences = self.batch, shape.sequences
        state, canvas, mask = batch.view(shape, windows), batch.canvas[:sequences], batch.tokens.mask
        logits = self.forward.logits(shape, state, windows)
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
        batch.input_ids[:sequences].scatter_(1, batch.columns[:sequences], canvas)
        broken = (state.present & ~statistics.valid).any(dim=1)
        unfinished, eligible, masks = batch.update_positions(sequences).unbind(dim=1)
        # All of one dtype, which torch stacks in one launch.
        report = Report(broken.long(), state.done.long(), state.blocks, unfinished, eligible, masks)
        return torch.stack(list(report), dim=1)
