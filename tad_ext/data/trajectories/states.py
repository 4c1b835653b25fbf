"""Training samples: every state of every trajectory, built when it is asked for and never stored.

State s of a trajectory, 0 <= s < num_steps, is the canvas after s forwards of the teacher. The student sees its own
prompt and that canvas; the teacher sees its privileged prompt and the same canvas. Every position still masked is an
entry: what a model is asked about. The tail behind a response's first end-of-sequence token may be left out of that: it
is the longer part of many a canvas, and says nothing more.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tad_ext.data.ragged import Ragged, ragged, to_device
from tad_ext.data.trajectories.files import Trajectory
from tad_ext.settings import EosTail


@dataclass(frozen=True, eq=False)
class State:
    """One training sample: a trajectory after some step, or its response masked in another way."""

    trajectory: Trajectory
    canvas: np.ndarray  #: (G,) int64: tokens revealed so far, the mask id elsewhere
    #: (G,) int64: >= 1 at the entries; <= 0 where revealed already, or masked and not asked about
    steps_to_reveal: np.ndarray

    @property
    def is_entry(self) -> np.ndarray:
        """(G,) bool: what a model is asked about."""
        return self.steps_to_reveal > 0

    def shown_to_teacher(self) -> np.ndarray:
        """(G,) int64: the canvas as the teacher sees it, by default the same."""
        return self.canvas


class States(Protocol):
    """What is trained on."""

    @property
    def counts(self) -> Sequence[int]:
        """How many states each trajectory has."""

    def at(self, number: int, progress: float) -> State:
        """A state by its number, which goes on from epoch to epoch, at a progress from 0 to below 1.

        The same number gives the same state: what is chance in it follows from that and a seed.
        """


class TrajectoryStates(Dataset[State]):
    """All states of some trajectories, in order: those of the first, then those of the second, ...

    With the whole `tail` a trajectory has `num_steps` states, otherwise as many as have entries. "one" is the tail's
    first token. Raises ValueError for no trajectories, or a mask id left in a finished response.
    """

    def __init__(
        self,
        trajectories: Sequence[Trajectory],
        *,
        mask_token_id: int,
        eos_token_ids: Collection[int] = (),
        tail: EosTail = "all",
    ) -> None:
        if not trajectories:
            raise ValueError("trajectories must hold at least one trajectory, got none")
        for trajectory in trajectories:
            if (trajectory.response_ids == mask_token_id).any():
                raise ValueError(
                    f"trajectory {trajectory.id!r} is unfinished: response_ids holds the mask id {mask_token_id}"
                )
        self.trajectories = trajectories
        self.mask_token_id = mask_token_id
        #: of each trajectory, how many positions are learned: all from the first on
        self.learned = [_learned(trajectory, eos_token_ids, tail) for trajectory in trajectories]
        self._counts = [
            trajectory.num_steps if tail == "all" else int(trajectory.reveal_step[:learned].max())
            for trajectory, learned in zip(trajectories, self.learned, strict=True)
        ]
        self._ends = np.cumsum(self._counts)

    @property
    def counts(self) -> Sequence[int]:
        """How many states each trajectory has."""
        return self._counts

    def at(self, number: int, progress: float) -> State:
        """A state by a number that goes on from epoch to epoch; the same at every progress of a training."""
        return self[number % len(self)]

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> State:
        which, step = self._locate(index)
        trajectory = self.trajectories[which]
        return State(trajectory, trajectory.canvas_at(step, self.mask_token_id), self._steps(which, step))

    def _steps(self, which: int, step: int) -> np.ndarray:
        remaining = self.trajectories[which].steps_to_reveal(step)
        remaining[self.learned[which] :] = 0
        return remaining

    def _locate(self, index: int) -> tuple[int, int]:
        """The number of the trajectory, and the step, of a state."""
        if not 0 <= index < len(self):
            raise IndexError(f"state index must lie in 0..{len(self) - 1}, got {index}")
        which = int(np.searchsorted(self._ends, index, side="right"))
        return which, int(index - self._ends[which]) + self._counts[which]


def _learned(trajectory: Trajectory, eos_token_ids: Collection[int], tail: EosTail) -> int:
    length = len(trajectory.response_ids)
    return length if tail == "all" else min(length, trajectory.response_length(eos_token_ids) + (tail == "one"))


@dataclass(frozen=True, eq=False)
class StateBatch:
    """A micro-batch of B states with N entries in all: state after state, and ascending within a state. int64."""

    states: Sequence[State]  #: on the host: whoever asks the teacher, too, makes its sequences from them
    student: Ragged  #: (B, L): student prompt, then the canvas; (N,) positions of the entries
    labels: Tensor  #: (N,) the trajectory's token
    steps_to_reveal: Tensor  #: (N,) >= 1

    @property
    def state_index(self) -> Tensor:
        """(N,) the state that an entry belongs to, 0 <= state_index < B."""
        return self.student.positions // self.student.input_ids.shape[1]

    def to(self, device: torch.device | str) -> "StateBatch":
        """The same batch on another device, which is not waited for."""
        labels, steps = to_device(self.labels, device), to_device(self.steps_to_reveal, device)
        return StateBatch(self.states, self.student.to(device), labels, steps)


def collate(states: Sequence[State]) -> StateBatch:
    """One batch of at least one state, on the CPU."""
    if not states:
        raise ValueError("states must hold at least one state, got none")
    masked = [state.is_entry for state in states]
    labels = [state.trajectory.response_ids[chosen] for state, chosen in zip(states, masked, strict=True)]
    steps = [state.steps_to_reveal[chosen] for state, chosen in zip(states, masked, strict=True)]
    return StateBatch(
        states=states,
        student=_side([state.trajectory.prompt_ids for state in states], [one.canvas for one in states], masked),
        labels=torch.from_numpy(np.concatenate(labels).astype(np.int64)),
        steps_to_reveal=torch.from_numpy(np.concatenate(steps)),
    )


def teacher_side(states: Sequence[State], wanted: Sequence[np.ndarray]) -> Ragged:
    """What the teacher sees of states, on the CPU: its prompt, then its canvas; and the entries it is asked about.

    `wanted` is (G,) bool of each state; a state without wanted entries is left out. Their order is a `StateBatch`'s.
    """
    asked = [state for state, chosen in zip(states, wanted, strict=True) if chosen.any()]
    prompts = [state.trajectory.teacher_prompt_ids for state in asked]
    canvases = [state.shown_to_teacher() for state in asked]
    return _side(prompts, canvases, [chosen for chosen in wanted if chosen.any()])


def _side(prompts: Sequence[np.ndarray], canvases: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> Ragged:
    """Each prompt with its canvas behind it, and the wanted (G,) bool entries of that."""
    return ragged(
        [np.concatenate((prompt, canvas)) for prompt, canvas in zip(prompts, canvases, strict=True)],
        [len(prompt) + np.flatnonzero(chosen) for prompt, chosen in zip(prompts, wanted, strict=True)],
    )
