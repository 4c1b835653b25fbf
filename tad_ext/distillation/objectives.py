"""The TAD objective (arXiv 2605.09536) on the hidden rows of a model, and what its means are taken over.

    loss = ce_weight * mean over near entries    of CE(trajectory token, student)
         + kl_weight * mean over distant entries of KL(teacher || student) * temperature^2

An entry is a masked position of a state: near when the trajectory reveals it within delta steps, distant when later.
The student and the teacher compute hidden states everywhere, but meet the language model head at these entries only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from peft import PeftModel
from torch import Tensor, nn

from tad_ext.distillation.dataset import TADBatch
from tad_ext.distillation.settings import TADSettings
from tad_ext.models.lora import base_model, teacher
from tad_ext.ops import fused_linear_tad_loss


@dataclass(frozen=True)
class BatchTotals:
    """What a global batch (one optimizer step) holds, over all micro-batches and ranks; known from the data alone."""

    micro_batches: int
    states: int
    near: int  #: entries
    distant: int  #: entries


class Contribution(NamedTuple):
    """A micro-batch's part of the global batch's loss: SUMMED over micro-batches and ranks, the whole. 0-d tensors."""

    loss: Tensor  #: differentiable
    ce: Tensor
    kl: Tensor


class TADObjective(nn.Module):
    """Student forward, teacher forward where it is needed, and fused loss, as one module, so that DDP wraps all of it.

    Args:
        model: a masked diffusion model with a trainable adapter; the teacher is the same model with the adapter off.
        settings: the objective's numbers.
    """

    def __init__(self, model: PeftModel, settings: TADSettings) -> None:
        super().__init__()
        self.model = model
        self.settings = settings

    def forward(self, batch: TADBatch, totals: BatchTotals) -> Contribution:
        """The micro-batch's contribution to the loss of the global batch that `totals` describes."""
        settings = self.settings
        # The teacher first: its forward keeps nothing, so the two never hold activations at the same time.
        teacher_hidden = self._teacher_rows(batch) if settings.kl_weight > 0 else None
        student_hidden = base_model(self.model).hidden_rows(
            batch.student_input_ids, lengths=batch.student_lengths, positions=batch.student_positions
        )
        row_weight: Tensor | None = None
        near_count: int | None = None
        distant_count: int | None = None
        share = 1.0
        if settings.normalization == "micro_batch":
            share = 1.0 / totals.micro_batches
        elif settings.normalization == "tokens":
            near_count, distant_count = max(totals.near, 1), max(totals.distant, 1)
        else:
            exact = student_hidden.dtype == torch.float64
            row_weight = state_weights(batch, settings.delta).to(torch.float64 if exact else torch.float32)
            near_count = distant_count = totals.states
        result = fused_linear_tad_loss(
            student_hidden,
            teacher_hidden,
            base_model(self.model).lm_head,
            batch.labels,
            batch.steps_to_reveal,
            delta=settings.delta,
            ce_weight=settings.ce_weight,
            kl_weight=settings.kl_weight,
            temperature=settings.temperature,
            row_weight=row_weight,
            teacher_rows=None if teacher_hidden is None else batch.teacher_rows,
            near_count=near_count,
            distant_count=distant_count,
        )
        return Contribution(result.loss * share, result.ce * share, result.kl * share)

    def _teacher_rows(self, batch: TADBatch) -> Tensor:
        """(M, D) hidden rows of the distant entries; no forward where there are none."""
        if batch.teacher_positions.numel() == 0:
            head = base_model(self.model).lm_head.weight
            return head.new_empty(0, head.shape[1])
        with teacher(self.model):
            return base_model(self.model).hidden_rows(
                batch.teacher_input_ids, lengths=batch.teacher_lengths, positions=batch.teacher_positions
            )


def state_weights(batch: TADBatch, delta: int) -> Tensor:
    """(N,) float64: one over the number of entries of the same state on the same side: each state's side sums to 1."""
    distant = (batch.steps_to_reveal > delta).to(torch.int64)
    group = batch.state_index * 2 + distant
    sizes = torch.zeros(2 * batch.num_states, dtype=torch.float64, device=group.device)
    sizes.index_add_(0, group, torch.ones_like(group, dtype=torch.float64))
    return 1.0 / sizes[group]
