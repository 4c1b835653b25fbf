"""CD4LM's consistency distillation (arXiv 2601.02236; its code, yihao-liang/CDLM): a state learns from an easier one.

Some positions of a response are masked for the student, a share of it drawn for each state; a part of these for the
teacher, too, which sees the others. The student's masks are the entries. Over those of a global batch,

    loss = s * temperature^2 * mean of KL(teacher || student) at that temperature  +  (1 - s) * mean of CE(token),

where s falls as a cosine from `consistency_start` to `consistency_end` once a tenth of the training is over. The
teacher is the model without its adapter, or another one, and is asked at every entry, whether it sees the token there
or not.

Of at most ten positions two are masked, one of them for the teacher; of fewer than 20 at most half, and as the
teacher's share is drawn without that bound, its masks may be the same there. What the published
code does otherwise: its means are a device's, and it cuts each of them off at 5, beyond which nothing would be learnt.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from tad_ext.data.trajectories.files import Trajectory
from tad_ext.data.trajectories.states import State, States, TrajectoryStates
from tad_ext.distillation.objective import Objective, needs_full_attention
from tad_ext.distillation.responses import ResponseStates, unprivileged
from tad_ext.distillation.samples import MicroBatch, Sample
from tad_ext.distillation.settings import CD4LMSettings
from tad_ext.distillation.tad import DISTANT, NEAR, partitioned_loss
from tad_ext.models.config import DiffusionConfig

TEACHER_OF_STUDENT = (0.3, 0.7)  # share of the student's masks that the teacher has, drawn evenly, ...
TEACHER_OF_ALL = (0.1, 0.6)  # ... within such shares of the response


@dataclass(frozen=True, eq=False)
class NestedState(State):
    """A response that is masked for the student, and less so for the teacher."""

    easier: np.ndarray  #: (G,) int64: the canvas as the teacher sees it
    consistency: float  #: s, the share of the divergence in the loss

    def shown_to_teacher(self) -> np.ndarray:
        """See `State`."""
        return self.easier


class NestedMasks(ResponseStates):
    """Responses, each masked for the student, and a part of that for the teacher."""

    def __init__(self, recorded: TrajectoryStates, settings: CD4LMSettings, seed: int) -> None:
        super().__init__(unprivileged(recorded), seed)
        self.settings = settings

    def masked(self, trajectory: Trajectory, learned: int, progress: float, random: np.random.Generator) -> NestedState:
        """See `ResponseStates`."""
        share = random.uniform(self.settings.min_student_share, self.settings.max_student_share)
        of_teacher = np.clip(share * random.uniform(*TEACHER_OF_STUDENT), *TEACHER_OF_ALL)
        share = min(share, 0.5) if learned < 20 else share
        masks, hard = max(int(learned * share), 2, math.ceil(0.1 * learned)), int(learned * of_teacher)
        masks, hard = (2, 1) if learned <= 10 else (masks, hard)
        order = random.permutation(learned)[:masks]
        for_student, for_teacher = (
            np.isin(np.arange(len(trajectory.response_ids)), of) for of in (order, order[:hard])
        )
        return NestedState(
            trajectory,
            self.hidden(trajectory, for_student),
            for_student.astype(np.int64),
            self.hidden(trajectory, for_teacher),
            self.settings.consistency_at(progress),
        )


class CD4LMObjective(Objective):
    """The teacher's distribution on an easier state, and the token."""

    Settings = CD4LMSettings
    parts: ClassVar[dict[str, str]] = {
        "ce": "CE times its share of the loss, nats",
        "kl": "KL times its share of the loss, nats x temperature^2",
    }
    settings: CD4LMSettings

    @classmethod
    def check_model(cls, config: DiffusionConfig) -> None:
        """ValueError for one that attends block-causally."""
        needs_full_attention("cd4lm", config)

    @classmethod
    def states(cls, recorded: TrajectoryStates, settings: Any, seed: int) -> States:
        """The trajectories' responses, masked twice by chance."""
        return NestedMasks(recorded, settings, seed)

    @classmethod
    def asks(cls, settings: Any) -> tuple[int, ...]:
        """About all entries, if there is anything to learn of it."""
        return (0,) if max(settings.consistency_start, settings.consistency_end) > 0 else ()

    def micro_batch(self, samples: Sequence[Sample]) -> MicroBatch:
        """See `Objective.micro_batch`."""
        shares = [np.full(len(one.weight), cast(NestedState, one.state).consistency) for one in samples]
        return replace(super().micro_batch(samples), taught=torch.from_numpy(np.concatenate(shares)))

    def forward(self, batch: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Objective.forward`. Every entry counts twice: near, and distant."""
        if batch.taught is None:
            raise ValueError("batch does not say how much of it is the teacher's: expected one of `micro_batch`")
        twice = replace(
            batch,
            student=batch.student._replace(positions=batch.student.positions.repeat(2)),
            teacher_rows=torch.cat([torch.full_like(batch.teacher_rows, -1), batch.teacher_rows]),
            labels=batch.labels.repeat(2),
            side=torch.cat([torch.full_like(batch.side, NEAR), torch.full_like(batch.side, DISTANT)]),
            weight=torch.cat([batch.weight * (1 - batch.taught), batch.weight * batch.taught]),
        )
        kl_weight, temperature = 1.0 if self.asks_teacher else 0.0, self.settings.consistency_temperature
        result = partitioned_loss(self, twice, kl_weight=kl_weight, temperature=temperature)
        return result.loss, {"ce": result.ce, "kl": result.kl}
