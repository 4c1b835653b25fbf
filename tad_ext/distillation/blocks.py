"""Canvases as they stand while one block of a response is decoded: before it everything is shown, behind it nothing.

Each comes with its complement, in which the block's other positions are masked; together they ask for all of the block.
"""

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from tad_ext.data.trajectories.files import Trajectory
from tad_ext.data.trajectories.states import State
from tad_ext.distillation.responses import ResponseStates


@dataclass(frozen=True, eq=False)
class BlockState(State):
    """A block of a response masked in part. The masked positions behind it are no entries."""

    complement: State  #: the same with the block's other positions masked


class BlockStates(ResponseStates):
    """One block of each response, drawn evenly among those that its learned positions are cut into."""

    def masked(self, trajectory: Trajectory, learned: int, progress: float, random: np.random.Generator) -> BlockState:
        """See `ResponseStates`."""
        length = self.block_length_at(progress)
        first = length * int(random.integers(-(-learned // length)))
        block = slice(first, min(first + length, learned))
        chosen = self.masked_in(trajectory, block, progress, random)
        state, complement = (self._state(trajectory, block, masked) for masked in (chosen, ~chosen))
        return BlockState(trajectory, state.canvas, state.steps_to_reveal, complement)

    @abstractmethod
    def block_length_at(self, progress: float) -> int:
        """Positions of a block, at a progress of the training from 0 to below 1."""

    @abstractmethod
    def masked_in(
        self, trajectory: Trajectory, block: slice, progress: float, random: np.random.Generator
    ) -> np.ndarray:
        """(n,) bool: the block's masked positions."""

    def _state(self, trajectory: Trajectory, block: slice, masked: np.ndarray) -> State:
        entries = np.zeros(len(trajectory.response_ids), dtype=np.int64)
        entries[block] = masked
        behind = np.arange(len(entries)) >= block.stop
        return State(trajectory, self.hidden(trajectory, (entries > 0) | behind), entries)
