"""d3LLM's pseudo-trajectory distillation (hao-ai-lab/d3LLM, its code).

One block of a response is masked as it was when the teacher had revealed a share of it, everything behind it fully; the
complement of the block is trained with it. The loss is that of `certainty`, with the entropy of the block alone, not of
its complement's, and divided by 4.

Both the masked share and the length of blocks go from easy to hard. The share is drawn evenly between a lower end,
which rises from `mask_ratio_start` to `mask_ratio` during the training, and `mask_ratio`. The length goes through
`block_lengths`, one after the other in equal parts of the training, and within a part towards the next. With the share
t of n positions masked that begin at position a, the canvas is the one where the teacher has revealed
a + floor((1 - t) n) tokens.

Here a mean is that of one canvas; there it is that of the four in a device's batch.
"""

from typing import Any, ClassVar

import numpy as np

from tad_ext.data.trajectories.files import Trajectory
from tad_ext.data.trajectories.states import States, TrajectoryStates
from tad_ext.distillation.blocks import BlockStates
from tad_ext.distillation.certainty import MASKED, CertaintyObjective
from tad_ext.distillation.settings import D3LLMSettings


class TeacherOrder(BlockStates):
    """Blocks masked as the teacher had them at some moment."""

    def __init__(self, recorded: TrajectoryStates, seed: int, settings: D3LLMSettings) -> None:
        super().__init__(recorded, seed)
        self.settings = settings

    def block_length_at(self, progress: float) -> int:
        """See `D3LLMSettings`."""
        return self.settings.block_length_at(progress)

    def masked_in(
        self, trajectory: Trajectory, block: slice, progress: float, random: np.random.Generator
    ) -> np.ndarray:
        """Those that come later in the teacher's order."""
        least, most = self.settings.mask_ratio_at(progress), self.settings.mask_ratio
        share = least + (most - least) * random.random()
        revealed = block.start + int((1 - share) * (block.stop - block.start))
        rank = np.empty(len(trajectory.reveal_step), dtype=np.int64)  # tokens that were revealed before
        rank[np.argsort(trajectory.reveal_step, kind="stable")] = np.arange(len(rank))
        return rank[block] >= revealed


class D3LLMObjective(CertaintyObjective):
    """Certainty forcing in the teacher's order."""

    Settings = D3LLMSettings
    certain: ClassVar[tuple[int, ...]] = (MASKED,)
    scale: ClassVar[float] = 0.25

    @classmethod
    def states(cls, recorded: TrajectoryStates, settings: Any, seed: int) -> States:
        """The trajectories' responses with one block masked in the teacher's order."""
        return TeacherOrder(recorded, seed, settings)
