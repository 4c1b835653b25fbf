"""One step on the device: forward, statistics of the eligible positions, policy, reveal.

Nothing here looks at a value: a step goes from tensors that stay where they are to tensors that stay where they are,
so that it can be recorded once and replayed (`tad_ext.decoding.recording`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tad_ext.ops import DecodeState, TokenStatistics, unmask_step

from .batch import DecodingBatch, StepShape
from .forward import Forward, Windows
from .policies import checked
from .progress import Report
from .sampling import Sampler


class Step:
    """One forward and its reveals, in place on the tensors of `batch`."""

    def __init__(self, model: Any, batch: DecodingBatch) -> None:
        self.batch, policy = batch, batch.config.policy
        self.forward = Forward(model, batch)
        self.sampler = Sampler(batch)
        self.policy = checked(policy)
        self.prepare = getattr(self.policy, "prepare", None)

    def __call__(self, shape: StepShape, windows: Windows | None) -> Tensor:
        """(B, fields of `Report`) int64, for the host to read."""
        batch, rows = self.batch, shape.rows
        state, canvas, mask = batch.view(shape), batch.canvas[:rows], batch.tokens.mask
        logits = self.forward.logits(shape, state, windows)
        if self.prepare is not None:
            logits = self.prepare(logits, state)
        statistics = self.sampler(logits, state)
        unmask_step(canvas, statistics, state, self.policy, mask_token_id=mask)
        batch.keep_memory(state)
        columns = torch.arange(canvas.shape[1], device=canvas.device)
        batch.input_ids[:rows].scatter_(1, batch.starts[:rows, None] + columns, canvas)
        masks = (canvas == mask).unflatten(1, (-1, state.block_length)).sum(dim=2)  # in each block
        unfinished = (masks > 0).int().argmax(dim=1)
        if batch.config.infill:  # blocks that were given whole take no forward
            state.blocks.copy_(torch.maximum(state.blocks, unfinished + 1))
        return _report(masks, unfinished, statistics, state)


def _report(masks: Tensor, unfinished: Tensor, statistics: TokenStatistics, state: DecodeState) -> Tensor:
    created = torch.arange(masks.shape[1], device=masks.device) < state.blocks[:, None]
    fields = Report(
        broken=(state.eligible & ~statistics.valid).any(dim=1),
        done=state.done,
        created=state.blocks,
        unfinished=unfinished,
        eligible=(masks * created).sum(dim=1),
        masks=masks.sum(dim=1),
    )
    return torch.stack(list(fields), dim=1)
