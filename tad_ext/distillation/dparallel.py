"""dParallel's certainty-forcing distillation (arXiv 2509.26488, and its code, czg1225/dParallel).

One block of a response is half masked, everything behind it fully; the complement of the block is trained with it. The
loss is that of `certainty`. Published are blocks of 32 and an entropy weight of 2 for LLaDA; for Dream the whole canvas
as one block, and 1. What the code does and the paper does not say: the entropy is that at temperature 0.5 of masked
tokens that are predicted right, on both canvases; each position is masked with probability 1/2 by itself; means are
those of a device's batch, which for LLaDA is one response.

Here a block is drawn among those that hold a position; there one draw in so many is of an empty block, where blocks cut
the response evenly.
"""

from typing import Any

import numpy as np

from tad_ext.data.trajectories.files import Trajectory
from tad_ext.data.trajectories.states import States, TrajectoryStates
from tad_ext.distillation.blocks import BlockStates
from tad_ext.distillation.certainty import CertaintyObjective
from tad_ext.distillation.settings import DParallelSettings

MASK_RATIO = 0.5


class HalfMasks(BlockStates):
    """Blocks of one length, half masked."""

    def __init__(self, recorded: TrajectoryStates, seed: int, block_length: int) -> None:
        super().__init__(recorded, seed)
        self.block_length = block_length

    def block_length_at(self, progress: float) -> int:
        """The same at all times."""
        return self.block_length

    def masked_in(
        self, trajectory: Trajectory, block: slice, progress: float, random: np.random.Generator
    ) -> np.ndarray:
        """Each position by chance."""
        return random.random(block.stop - block.start) < MASK_RATIO


class DParallelObjective(CertaintyObjective):
    """Certainty forcing on random halves of blocks."""

    Settings = DParallelSettings

    @classmethod
    def states(cls, recorded: TrajectoryStates, settings: Any, seed: int) -> States:
        """The trajectories' responses with one block half masked."""
        return HalfMasks(recorded, seed, settings.block_length)
