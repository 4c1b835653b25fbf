"""Finished responses, masked anew for every state, where a teacher's own states are not what is learned from."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tad_ext.data.trajectories.files import Trajectory
from tad_ext.data.trajectories.states import State, TrajectoryStates


class ResponseStates(ABC):
    """One state of each trajectory in an epoch, whose chance follows from the seed and the state's number.

    Args:
        recorded: the trajectories, and how much of each of their responses is learned.
        seed: another one gives other masks.
    """

    def __init__(self, recorded: TrajectoryStates, seed: int) -> None:
        self.recorded, self.seed = recorded, seed

    @property
    def counts(self) -> Sequence[int]:
        """1 of each trajectory."""
        return [1] * len(self.recorded.trajectories)

    def at(self, number: int, progress: float) -> State:
        """See `States`."""
        which = number % len(self.recorded.trajectories)
        random = np.random.default_rng((self.seed, number, 1))  # (seed, epoch) is the order's
        return self.masked(self.recorded.trajectories[which], self.recorded.learned[which], progress, random)

    @abstractmethod
    def masked(self, trajectory: Trajectory, learned: int, progress: float, random: np.random.Generator) -> State:
        """A state of a trajectory; entries are among its first `learned` positions."""

    def hidden(self, trajectory: Trajectory, masked: np.ndarray) -> np.ndarray:
        """(G,) int64: the response with the mask id where `masked`, (G,) bool."""
        return np.where(masked, self.recorded.mask_token_id, trajectory.response_ids).astype(np.int64)


@dataclass(frozen=True, eq=False)
class RandomState(State):
    """A response of which every position was masked with a probability."""

    probability: np.ndarray  #: (G,) float64
    learned: int  #: positions that are learned, the first ones: masked or not, they count in means
