"""d-OPSD: self-distillation from what the model itself went on to say (arXiv 2606.18195; code: xingzhejun/d-OPSD).

Trajectories are the student's own right answers. At a state of one, decoded block by block, the teacher sees the same
prompt and canvas, and hindsight: of the positions behind the current block, a random share `hindsight` holds the final
tokens. In the current block, at the `confident_positions` masks where the teacher is surest,

    loss = mean over states of  sum over these positions of  sum over v of  min(d(v), `entry_clip`),
    d = S log(S / T) - S + T,

where v runs over the teacher's `teacher_top_k` most probable tokens, among which both distributions, the student's S
and the teacher's T, are normalized. So the d add up to KL(S || T), and none is below 0. States of the last block with
something to learn have no hindsight, and are no states here. The teacher is the model without its adapter, or another
one.

What the published code does otherwise, and is not repeated: it clips S log(S / T), which may be below 0, from above
alone; that has its least value where S = T / e for as many tokens as possible, and trained towards it a model forgets
(docs/distillation.md). It takes positions by the largest logit, which is not the
largest probability; it steps eight times on states of one rollout, and drops those that do not divide evenly; an answer
that is wrong is computed and multiplied by 0. Its rollouts are by the student as it is before these eight steps: here
`tad collect` makes them, with `--teacher-prompt none`, as often as they are to be fresh. An `eos_tail` of "none" ends
responses where the published ones end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from tad_ext.data.trajectories.states import State, States, TrajectoryStates
from tad_ext.distillation.objective import Objective, needs_full_attention
from tad_ext.distillation.responses import unprivileged
from tad_ext.distillation.samples import MicroBatch, Sample
from tad_ext.distillation.settings import DOPSDSettings
from tad_ext.models.config import DiffusionConfig


@dataclass(frozen=True, eq=False)
class HindsightState(State):
    """A state whose entries are the masks of its current block."""

    hindsight: np.ndarray  #: (G,) int64: the canvas as the teacher sees it

    def shown_to_teacher(self) -> np.ndarray:
        """See `State`."""
        return self.hindsight


class HindsightStates:
    """The states of trajectories that have something behind their current block. ValueError if there is none."""

    def __init__(self, recorded: TrajectoryStates, settings: DOPSDSettings, seed: int) -> None:
        self.mask_token_id, self.settings, self.seed = recorded.mask_token_id, settings, seed
        length = settings.hindsight_block_length
        self.trajectories, self._counts = [], []
        for trajectory, learned in zip(unprivileged(recorded).trajectories, recorded.learned, strict=True):
            last = (learned - 1) // length * length  # where the last block begins: from there on nothing is behind
            if last > 0:
                self.trajectories.append(trajectory)
                self._counts.append(int(trajectory.reveal_step[:last].max()))
        if not self.trajectories:
            raise ValueError(
                f"hindsight_block_length is {length}, and no trajectory has something to learn behind its first block: "
                f"expected less"
            )
        self._ends = np.cumsum(self._counts)

    @property
    def counts(self) -> Sequence[int]:
        """Of each trajectory with more than one block, the states before its last one."""
        return self._counts

    def at(self, number: int, progress: float) -> HindsightState:
        """See `States`."""
        index = number % int(self._ends[-1])
        which = int(np.searchsorted(self._ends, index, side="right"))
        trajectory = self.trajectories[which]
        step = index - int(self._ends[which]) + self._counts[which]
        canvas, steps = trajectory.canvas_at(step, self.mask_token_id), trajectory.steps_to_reveal(step)
        length = self.settings.hindsight_block_length
        behind = (int(np.flatnonzero(steps > 0)[0]) // length + 1) * length
        random = np.random.default_rng((self.seed, number, 1))
        told = (
            behind + random.permutation(len(canvas) - behind)[: int(self.settings.hindsight * (len(canvas) - behind))]
        )
        hindsight = canvas.copy()
        hindsight[told] = trajectory.response_ids[told]
        steps[behind:] = 0
        return HindsightState(trajectory, canvas, steps, hindsight)


class DOPSDObjective(Objective):
    """The teacher's most probable tokens, where hindsight makes it sure."""

    Settings = DOPSDSettings
    parts: ClassVar[dict[str, str]] = {"kl": "clipped KL of the surest masks, nats a state"}
    settings: DOPSDSettings

    @classmethod
    def check_model(cls, config: DiffusionConfig) -> None:
        """ValueError for one that attends block-causally."""
        needs_full_attention("d_opsd", config)

    @classmethod
    def states(cls, recorded: TrajectoryStates, settings: Any, seed: int) -> States:
        """The trajectories' own, before their last blocks."""
        return HindsightStates(recorded, settings, seed)

    def samples(self, states: Sequence[State], progress: float) -> list[Sample]:
        """See `Objective.samples`: of each state a sum."""
        counts = [np.count_nonzero(state.is_entry) for state in states]
        weights = [np.full(count, 1 / len(states)) for count in counts]
        return [Sample(state, np.zeros(len(w), np.int64), w) for state, w in zip(states, weights, strict=True)]

    @classmethod
    def asks(cls, settings: Any) -> tuple[int, ...]:
        """About all entries, of which it takes the surest."""
        return (0,)

    def forward(self, batch: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Objective.forward`."""
        model, settings = self.diffusion_model, self.settings
        taught = None if batch.teacher is None else self.teacher_rows(batch)
        hidden = model.hidden_rows(**self.student_inputs(batch))
        if taught is None or not len(hidden):
            nothing = hidden.sum() * 0
            return nothing, {"kl": nothing}
        with torch.no_grad():
            logits = (self.other_teacher or model).lm_head(taught)
            chosen, exists = self._surest(batch, logits)
            top = logits[chosen].topk(min(settings.teacher_top_k, logits.shape[-1])).indices
            log_t = _log_probabilities(logits[chosen].gather(-1, top))
        log_s = _log_probabilities(model.lm_head(hidden[chosen]).gather(-1, top))
        entries = log_s.exp() * (log_s - log_t) - log_s.exp() + log_t.exp()
        kl = entries.clamp(max=settings.entry_clip).sum(-1)
        loss = (kl * batch.weight[chosen].to(kl.dtype) * exists).sum()
        return loss, {"kl": loss}

    def _surest(self, batch: MicroBatch, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Every state's n surest entries: their places among the N, (B * n,) int64, and whether it has so many."""
        confidence = _log_probabilities(logits).amax(-1)
        sequences, length = batch.student.input_ids.shape
        own = batch.student.positions // length == torch.arange(sequences, device=logits.device)[:, None]
        count = min(self.settings.confident_positions, len(confidence))
        found = torch.where(own, confidence, -torch.inf).topk(count, dim=-1)
        return found.indices.flatten(), found.values.flatten() > -torch.inf


def _log_probabilities(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
