"""Training samples: every state of every trajectory, built when it is asked for and never stored.

State s of a trajectory, 0 <= s < num_steps, is the canvas after s forwards of the teacher. The student sees its own
prompt and that canvas; the teacher sees its privileged prompt and the same canvas. Every position still masked is an
entry: what a model is asked about.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tad_ext.data.ragged import Ragged, ragged, to_device
from tad_ext.data.trajectories import Trajectory


@dataclass(frozen=True, eq=False)
class State:
    """One training sample: a trajectory after some step. All arrays are int64."""

    prompt_ids: np.ndarray  #: (P,)
    teacher_prompt_ids: np.ndarray  #: (Q,)
    canvas: np.ndarray  #: (G,) tokens revealed so far, the mask id elsewhere
    response_ids: np.ndarray  #: (G,) the finished canvas
    steps_to_reveal: np.ndarray  #: (G,) <= 0 where revealed already


class TrajectoryStates(Dataset[State]):
    """All states of some trajectories, in order: `num_steps` of the first, then those of the second, ...

    Args:
        trajectories: at least one.
        mask_token_id: the model's mask id.

    Raises:
        ValueError: no trajectories, or a mask id left in a finished response.
    """

    def __init__(self, trajectories: Sequence[Trajectory], *, mask_token_id: int) -> None:
        if not trajectories:
            raise ValueError("trajectories must hold at least one trajectory, got none")
        for trajectory in trajectories:
            if (trajectory.response_ids == mask_token_id).any():
                raise ValueError(
                    f"trajectory {trajectory.id!r} is unfinished: response_ids holds the mask id {mask_token_id}"
                )
        self.trajectories = trajectories
        self.mask_token_id = mask_token_id
        self._ends = np.cumsum([trajectory.num_steps for trajectory in trajectories])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> State:
        trajectory, step = self._locate(index)
        return State(
            prompt_ids=trajectory.prompt_ids.astype(np.int64),
            teacher_prompt_ids=trajectory.teacher_prompt_ids.astype(np.int64),
            canvas=trajectory.canvas_at(step, self.mask_token_id),
            response_ids=trajectory.response_ids.astype(np.int64),
            steps_to_reveal=trajectory.steps_to_reveal(step),
        )

    def steps_to_reveal(self, indices: Iterable[int]) -> np.ndarray:
        """(N,) int64: the steps, >= 1, of all entries of the states `indices`, which need not be built for it."""
        located = [self._locate(index) for index in indices]
        steps = [trajectory.steps_to_reveal(step) for trajectory, step in located]
        return np.concatenate([remaining[remaining > 0] for remaining in steps])

    def _locate(self, index: int) -> tuple[Trajectory, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"state index must lie in 0..{len(self) - 1}, got {index}")
        which = int(np.searchsorted(self._ends, index, side="right"))
        trajectory = self.trajectories[which]
        return trajectory, int(index - self._ends[which]) + trajectory.num_steps


@dataclass(frozen=True, eq=False)
class StateBatch:
    """A micro-batch of B states with N entries in all: row after row, and ascending within a row. int64."""

    states: Sequence[State]  #: on the host: whoever asks the teacher, too, makes its rows from them
    student: Ragged  #: (B, L): student prompt, then the canvas; (N,) positions of the entries
    labels: Tensor  #: (N,) the trajectory's token
    steps_to_reveal: Tensor  #: (N,) >= 1
    state_index: Tensor  #: (N,) the row that an entry belongs to

    def to(self, device: torch.device | str) -> StateBatch:
        """The same batch on another device, which is not waited for."""
        of_entries = (self.labels, self.steps_to_reveal, self.state_index)
        return StateBatch(self.states, self.student.to(device), *(to_device(tensor, device) for tensor in of_entries))

    def without_entries(self) -> StateBatch:
        """The same ids of the student, of which nothing is asked: loss and gradients are zero."""
        student = self.student._replace(positions=self.student.positions[:0])
        return StateBatch((), student, self.labels[:0], self.steps_to_reveal[:0], self.state_index[:0])


def collate(states: Sequence[State]) -> StateBatch:
    """One batch of at least one state, on the CPU."""
    if not states:
        raise ValueError("states must hold at least one state, got none")
    masked = [np.flatnonzero(state.steps_to_reveal > 0) for state in states]

    def of_entries(rows: Iterable[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.concatenate([row[columns] for row, columns in zip(rows, masked, strict=True)]))

    return StateBatch(
        states=states,
        student=_side(
            [(state.prompt_ids, state.canvas, columns) for state, columns in zip(states, masked, strict=True)]
        ),
        labels=of_entries(state.response_ids for state in states),
        steps_to_reveal=of_entries(state.steps_to_reveal for state in states),
        state_index=of_entries(np.full(len(state.canvas), row) for row, state in enumerate(states)),
    )


def teacher_side(states: Sequence[State], wanted: Sequence[np.ndarray]) -> Ragged:
    """What the teacher sees of states, on the CPU: its prompt, then the same canvas; and the entries it is asked about.

    Args:
        wanted: (G,) bool of each state; a state of which nothing is wanted gets no row. Entries stand in the order of
            a `StateBatch`.
    """
    return _side(
        [
            (state.teacher_prompt_ids, state.canvas, np.flatnonzero(chosen))
            for state, chosen in zip(states, wanted, strict=True)
            if chosen.any()
        ]
    )


def _side(rows: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Ragged:
    """Of rows of prompt, canvas, and the wanted columns of the canvas."""
    ids = [np.concatenate((prompt, canvas)) for prompt, canvas, _ in rows]
    return ragged(ids, [len(prompt) + columns for prompt, _, columns in rows])
