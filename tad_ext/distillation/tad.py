"""The TAD objective (arXiv 2605.09536) on the hidden rows of a model.

    loss = ce_weight * mean over near entries    of CE(trajectory token, student)
         + kl_weight * mean over distant entries of KL(teacher || student) * temperature^2

An entry is a masked position of a state: near when the trajectory reveals it within delta steps, distant when later.
The student and the teacher compute hidden states everywhere, but meet the language model head at these entries only.
"""

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from tad_ext.distillation.objective import Objective
from tad_ext.distillation.samples import MicroBatch
from tad_ext.distillation.settings import TADSettings
from tad_ext.ops import TADLoss, fused_linear_tad_loss, fused_tad_loss

NEAR, DISTANT = 0, 1


class TADObjective(Objective):
    """Teacher forward where it is needed, student forward, and the fused loss."""

    Settings = TADSettings
    parts: ClassVar[dict[str, str]] = {
        "ce": "CE of near entries, nats",
        "kl": "KL of distant entries, nats x temperature^2",
    }
    sides: ClassVar[tuple[str, ...]] = ("near", "distant")
    privileged: ClassVar[bool] = True
    settings: TADSettings

    def side_of(self, steps_to_reveal: np.ndarray, progress: float) -> np.ndarray:
        """Near (0) or distant (1)."""
        return np.where(steps_to_reveal > self.settings.delta_at(progress), DISTANT, NEAR)

    @property
    def group_size(self) -> int | None:
        """By the normalization."""
        return {"micro_batch": self.settings.group_size, "state": 1, "tokens": None}[self.settings.normalization]

    @classmethod
    def asks(cls, settings: Any) -> tuple[int, ...]:
        """About the distant entries."""
        return (DISTANT,) if settings.kl_weight > 0 else ()

    def forward(self, batch: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Objective.forward`."""
        settings = self.settings
        result = partitioned_loss(
            self,
            batch,
            ce_weight=settings.ce_weight,
            kl_weight=settings.kl_weight,
            temperature=settings.temperature,
        )
        return result.loss, {"ce": result.ce, "kl": result.kl}


def partitioned_loss(
    objective: Objective,
    batch: MicroBatch,
    *,
    ce_weight: float = 1.0,
    kl_weight: float = 0.0,
    temperature: float = 1.0,
) -> TADLoss:
    """The module's loss on a micro-batch with entries on the sides `NEAR` and `DISTANT`, each weighed by its weight.

    The teacher is run where entries are asked of it.
    """
    model, other = objective.diffusion_model, objective.other_teacher
    # The teacher first: its forward keeps nothing, so the two never hold activations at the same time.
    teacher_hidden = None if batch.teacher is None else objective.teacher_rows(batch)
    student_hidden = model.hidden_rows(**objective.student_inputs(batch))
    # Weights are of means already: near entries are those of step 1, distant ones those of step 2.
    entries: dict[str, Any] = {
        "labels": batch.labels,
        "steps_to_reveal": batch.side + 1,
        "delta": 1,
        "ce_weight": ce_weight,
        "kl_weight": kl_weight,
        "temperature": temperature,
        "near_count": 1,
        "distant_count": 1,
        "row_weight": batch.weight.to(torch.promote_types(student_hidden.dtype, torch.float32)),
        "teacher_rows": batch.teacher_rows if kl_weight > 0 else None,
    }
    if teacher_hidden is not None and other is not None:  # its head is another one, and so logits exist as a whole
        with torch.no_grad():
            teacher_logits = other.lm_head(teacher_hidden)
        return fused_tad_loss(model.lm_head(student_hidden), teacher_logits, **entries)
    if teacher_hidden is None and kl_weight > 0:
        teacher_hidden = student_hidden.detach()[:0]
    return fused_linear_tad_loss(student_hidden, teacher_hidden, model.lm_head, **entries)
