"""The TAD objective (arXiv 2605.09536) on the hidden rows of a model, and what its means are taken over.

    loss = ce_weight * mean over near entries    of CE(trajectory token, student)
         + kl_weight * mean over distant entries of KL(teacher || student) * temperature^2

An entry is a masked position of a state: near when the trajectory reveals it within delta steps, distant when later.
The student and the teacher compute hidden states everywhere, but meet the language model head at these entries only.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from tad_ext.data.trajectories.states import StateBatch, teacher_side
from tad_ext.distillation.objective import Objective
from tad_ext.distillation.settings import TADSettings
from tad_ext.models.lora import teacher
from tad_ext.ops import fused_linear_tad_loss


class TADObjective(Objective):
    """Teacher forward where it is needed, student forward, and the fused loss."""

    Settings = TADSettings
    parts: ClassVar[dict[str, str]] = {
        "ce": "CE of near entries, nats",
        "kl": "KL of distant entries, nats x temperature^2",
    }
    settings: TADSettings

    def count(self, steps_to_reveal: np.ndarray) -> dict[str, int]:
        """Near and distant entries."""
        distant = int(self._distant(steps_to_reveal).sum())
        return {"near": len(steps_to_reveal) - distant, "distant": distant}

    def forward(self, batch: StateBatch, totals: Mapping[str, int]) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Objective.forward`; `totals` are of all micro-batches."""
        settings, model = self.settings, self.diffusion_model
        distant = self._distant(batch.steps_to_reveal)
        # The teacher first: its forward keeps nothing, so the two never hold activations at the same time.
        teacher_hidden = teacher_rows = None
        if settings.kl_weight > 0:
            teacher_hidden = self._teacher_hidden(batch)
            teacher_rows = torch.where(distant, distant.cumsum(0) - 1, -1)  # the k-th distant entry is its row k
        student_hidden = model.hidden_rows(**batch.student._asdict())

        share = 1.0
        means: dict[str, Any] = {}  # what means are taken over: by default this micro-batch's own entries
        if settings.normalization == "micro_batch":
            share = 1.0 / totals["micro_batches"]
        elif settings.normalization == "tokens":
            means = {"near_count": max(totals["near"], 1), "distant_count": max(totals["distant"], 1)}
        else:
            weights = _state_weights(batch, distant).to(torch.promote_types(student_hidden.dtype, torch.float32))
            means = {"near_count": totals["states"], "distant_count": totals["states"], "row_weight": weights}
        result = fused_linear_tad_loss(
            student_hidden,
            teacher_hidden,
            model.lm_head,
            batch.labels,
            batch.steps_to_reveal,
            delta=settings.delta,
            ce_weight=settings.ce_weight * share,
            kl_weight=settings.kl_weight * share,
            temperature=settings.temperature,
            teacher_rows=teacher_rows,
            **means,
        )
        return result.loss, {"ce": result.ce * share, "kl": result.kl * share}

    def _distant(self, steps_to_reveal: Any) -> Any:
        """Which entries are distant; the others are near."""
        return steps_to_reveal > self.settings.delta

    def _teacher_hidden(self, batch: StateBatch) -> Tensor:
        """(M, D) of the distant entries, from a forward of the states that have some."""
        model, device = self.diffusion_model, batch.labels.device
        side = teacher_side(batch.states, [self._distant(state.steps_to_reveal) for state in batch.states])
        if side.positions.numel() == 0:
            return model.lm_head.weight.new_empty(0, model.lm_head.weight.shape[1])
        with teacher(self.model):
            return model.hidden_rows(**side.to(device)._asdict())


def _state_weights(batch: StateBatch, distant: Tensor) -> Tensor:
    """(N,) float64: one over the number of entries of the same state on the same side: each state's side sums to 1."""
    group = batch.state_index * 2 + distant
    sizes = torch.zeros(2 * len(batch.student.input_ids), dtype=torch.float64, device=group.device)
    sizes.index_add_(0, group, torch.ones_like(group, dtype=torch.float64))
    return 1.0 / sizes[group]
