"""Supervised fine-tuning of a masked diffusion model, as LLaDA's (arXiv 2502.09992, guidelines of its code).

Every token of a response is masked with the same probability p, which a sample draws evenly between `min_mask_ratio`
and 1. The prompt never is. Over the samples of a global batch,

    loss = mean of  1 / length * sum over masked positions of CE(token) / p,

an upper bound of the negative log-likelihood per token. The length is that of the response with the end-of-sequence
tokens that fill the canvas, as far as they are learned.

A model that attends block-causally learns each block behind finished ones, all in one forward of [masked ; finished],
as SDAR (arXiv 2510.06303) and LLaDA2.0 (arXiv 2512.15745) were trained.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, cast

import numpy as np
from torch import Tensor

from tad_ext.data.trajectories.files import Trajectory
from tad_ext.data.trajectories.states import State, States, TrajectoryStates
from tad_ext.distillation.objective import Objective
from tad_ext.distillation.responses import RandomState, ResponseStates
from tad_ext.distillation.samples import MicroBatch, Sample
from tad_ext.distillation.settings import SFTSettings
from tad_ext.distillation.tad import partitioned_loss


class RandomMasks(ResponseStates):
    """Responses masked with one probability each."""

    def __init__(self, recorded: TrajectoryStates, seed: int, min_mask_ratio: float) -> None:
        super().__init__(recorded, seed)
        self.min_mask_ratio = min_mask_ratio

    def masked(self, trajectory: Trajectory, learned: int, progress: float, random: np.random.Generator) -> State:
        """See `ResponseStates`."""
        count = len(trajectory.response_ids)
        ratio = self.min_mask_ratio + (1 - self.min_mask_ratio) * random.random()
        masked = random.random(count) < ratio
        entries = masked & (np.arange(count) < learned)
        canvas = self.hidden(trajectory, masked)
        return RandomState(trajectory, canvas, entries.astype(np.int64), np.full(count, ratio), learned)


class SFTObjective(Objective):
    """Cross-entropy of masked tokens over the probability of being masked."""

    Settings = SFTSettings
    parts: ClassVar[dict[str, str]] = {"ce": "CE over p, nats per token of a response"}
    behind_finished_blocks = True

    @classmethod
    def states(cls, recorded: TrajectoryStates, settings: Any, seed: int) -> States:
        """The trajectories' responses, masked by chance."""
        return RandomMasks(recorded, seed, settings.min_mask_ratio)

    def samples(self, states: Sequence[State], progress: float) -> list[Sample]:
        """See `Objective.samples`."""
        samples = []
        for state in cast("Sequence[RandomState]", states):
            weight = 1 / (state.probability[state.is_entry] * state.learned * len(states))
            samples.append(Sample(state, np.zeros(len(weight), dtype=np.int64), weight))
        return samples

    def forward(self, batch: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Objective.forward`."""
        result = partitioned_loss(self, batch)
        return result.loss, {"ce": result.ce}
