"""D2F's asymmetric distillation (discrete diffusion forcing, arXiv 2508.09192, and its published code).

The student attends block-causally: to the prompt, to its own block of the canvas, and to earlier blocks. So keys and
values of a finished block never change, and later blocks are learnt while earlier ones still have masks. The teacher is
asked about the same tokens, behind the student's own prompt, and attends to all of them.

The tokens of a block are masked with a probability p that does not fall from one block to the next: the first block's
is drawn evenly between `min_block_ratio` and `max_block_ratio`, and each of the n - 1 others adds an even draw between
0 and an n - 1st of what is left to `max_block_ratio`. The loss is

    mean over samples of  mean over masked positions of  KL(teacher || student) / p.

The published one has the teacher's cross-entropy in the divergence's place, which is larger by the teacher's entropy
and has the same gradient; its mean is that of a device's batch, which is one response.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from tad_ext.data.trajectories.files import Trajectory
from tad_ext.data.trajectories.states import State, States, TrajectoryStates
from tad_ext.distillation.objective import Objective, needs_full_attention
from tad_ext.distillation.responses import RandomState, ResponseStates, unprivileged
from tad_ext.distillation.samples import MicroBatch, Sample
from tad_ext.distillation.settings import D2FSettings
from tad_ext.distillation.tad import DISTANT, partitioned_loss
from tad_ext.models.config import DiffusionConfig


class RisingMasks(ResponseStates):
    """Responses whose blocks are masked with probabilities that do not fall; the teacher has the student's prompt."""

    def __init__(self, recorded: TrajectoryStates, seed: int, settings: D2FSettings) -> None:
        super().__init__(unprivileged(recorded), seed)
        self.settings = settings

    def masked(self, trajectory: Trajectory, learned: int, progress: float, random: np.random.Generator) -> State:
        """See `ResponseStates`."""
        settings, count = self.settings, len(trajectory.response_ids)
        block = np.arange(count) // settings.causal_block_length
        later = int(block[-1])  # how many come behind the first
        first = random.uniform(settings.min_block_ratio, settings.max_block_ratio)
        steps = random.random(later) * (settings.max_block_ratio - first) / max(later, 1)
        probability = np.append(first, first + steps.cumsum())[block]
        masked = random.random(count) < probability
        entries = masked & (np.arange(count) < learned)
        canvas = self.hidden(trajectory, masked)
        return RandomState(trajectory, canvas, entries.astype(np.int64), probability, learned)


class D2FObjective(Objective):
    """The teacher's distributions, learnt with block-causal attention."""

    Settings = D2FSettings
    parts: ClassVar[dict[str, str]] = {"kl": "KL over p of masked tokens, nats"}
    settings: D2FSettings

    @classmethod
    def check_model(cls, config: DiffusionConfig) -> None:
        """ValueError for one that attends block-causally."""
        needs_full_attention("d2f", config)

    @classmethod
    def states(cls, recorded: TrajectoryStates, settings: Any, seed: int) -> States:
        """The trajectories' responses, masked more and more from block to block."""
        return RisingMasks(recorded, seed, settings)

    def samples(self, states: Sequence[State], progress: float) -> list[Sample]:
        """See `Objective.samples`."""
        samples = []
        for state in cast("Sequence[RandomState]", states):
            probability = state.probability[state.is_entry]
            weight = 1 / (probability * len(probability) * len(states))
            samples.append(Sample(state, np.zeros(len(weight), dtype=np.int64), weight))
        return samples

    @classmethod
    def asks(cls, settings: Any) -> tuple[int, ...]:
        """About all entries."""
        return (0,)

    def micro_batch(self, samples: Sequence[Sample]) -> MicroBatch:
        """With the blocks of the student's attention: 0 is the prompt. What pads a row goes on counting."""
        batch = super().micro_batch(samples)
        blocks = np.zeros(batch.student.input_ids.shape, dtype=np.int64)
        for row, sample in zip(blocks, samples, strict=True):
            behind = row[len(sample.state.trajectory.prompt_ids) :]
            behind[:] = 1 + np.arange(len(behind)) // self.settings.causal_block_length
        return replace(batch, blocks=torch.from_numpy(blocks))

    def forward(self, batch: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Objective.forward`."""
        asked = replace(batch, side=torch.full_like(batch.side, DISTANT))
        result = partitioned_loss(self, asked, ce_weight=0.0, kl_weight=1.0)
        return result.loss, {"kl": result.kl}
