"""Finished responses, masked anew for every state, where a teacher's own states are not what is learned from."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from tad_ext.data.trajectories.files import Trajectory
from tad_ext.data.trajectories.states import State, TrajectoryStates


class ResponseStates(ABC):
    """One state of each trajectory in an epoch, or `copies`, whose chance follows from the seed and the state's number.

    Args:
        recorded: the trajectories, and how much of each of their responses is learned.
        seed: another one gives other masks.
    """

    copies: ClassVar[int] = 1  #: states of each trajectory in an epoch

    def __init__(self, recorded: TrajectoryStates, seed: int) -> None:
        self.recorded, self.seed = recorded, seed

    @property
    def counts(self) -> Sequence[int]:
        """The same of each trajectory."""
        return [self.copies] * len(self.recorded.trajectories)

    def at(self, number: int, progress: float) -> State:
        """See `States`."""
        which = number // self.copies % len(self.recorded.trajectories)
        random = np.random.default_rng((self.seed, number, 1))  # (seed, epoch) is the order's
        return self.masked(self.recorded.trajectories[which], self.recorded.learned[which], progress, random)

    @abstractmethod
    def masked(self, trajectory: Trajectory, learned: int, progress: float, random: np.random.Generator) -> State:
        """A state of a trajectory; entries are among its first `learned` positions."""

    def hidden(self, trajectory: Trajectory, masked: np.ndarray) -> np.ndarray:
        """(G,) int64: the response with the mask id where `masked`, (G,) bool."""
        return np.where(masked, self.recorded.mask_token_id, trajectory.response_ids).astype(np.int64)


def unprivileged(recorded: TrajectoryStates) -> TrajectoryStates:
    """The same, with the student's prompt for the teacher."""
    same = copy(recorded)
    same.trajectories = [replace(one, teacher_prompt_ids=one.prompt_ids) for one in recorded.trajectories]
    return same


@dataclass(frozen=True, eq=False)
class RandomState(State):
    """A response of which every position was masked with a probability."""

    probability: np.ndarray  #: (G,) float64
    learned: int  #: positions that are learned, the first ones: masked or not, they count in means
