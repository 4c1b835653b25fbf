"""Training samples: every state of every trajectory, built when it is asked for and never stored.

State s of a trajectory, 0 <= s < num_steps, is the canvas after s forwards of the teacher. The student sees its own
prompt and that canvas; the teacher sees its privileged prompt and the same canvas. Every position still masked is one
entry of the loss.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tad_ext.data.trajectories import Trajectory, TrajectoryMetadata
from tad_ext.models.tokenizers import tokenizer_hash


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

    def count_entries(self, indices: Iterable[int], *, delta: int) -> tuple[int, int]:
        """Near and distant entries of the states `indices` together, read off the reveal steps: no model is needed."""
        near = distant = 0
        for index in indices:
            trajectory, step = self._locate(index)
            steps = trajectory.steps_to_reveal(step)
            far = int((steps > delta).sum())
            distant += far
            near += int((steps > 0).sum()) - far
        return near, distant

    def _locate(self, index: int) -> tuple[Trajectory, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"state index must lie in 0..{len(self) - 1}, got {index}")
        which = int(np.searchsorted(self._ends, index, side="right"))
        trajectory = self.trajectories[which]
        return trajectory, int(index - self._ends[which]) + trajectory.num_steps


def shuffled(num_states: int, *, seed: int, epoch: int) -> Tensor:
    """(num_states,) int64: an order that depends on the seed and the epoch alone, the same on every rank."""
    return torch.from_numpy(np.random.default_rng((seed, epoch)).permutation(num_states))


@dataclass(frozen=True, eq=False)
class TADBatch:
    """A micro-batch of B states with N masked positions in all, M of them distant. int64; rows padded on the right.

    Rows whose state has no distant entry need no teacher, so the teacher's batch holds only the T <= B rows that do.
    Positions are flattened, `row * L + column`, into the padded ids of the same side, as `hidden_rows` takes them.
    """

    student_input_ids: Tensor  #: (B, L): student prompt, then the canvas
    student_lengths: Tensor | None  #: (B,) real tokens per row; None where no row is padded
    student_positions: Tensor  #: (N,) every masked position
    teacher_input_ids: Tensor  #: (T, L'): teacher prompt, then the same canvas
    teacher_lengths: Tensor | None  #: (T,) or None, as above
    teacher_positions: Tensor  #: (M,) the masked positions that are distant
    teacher_rows: Tensor  #: (N,) each entry's index into teacher_positions; -1 where it is near
    labels: Tensor  #: (N,) the trajectory's token
    steps_to_reveal: Tensor  #: (N,) >= 1
    state_index: Tensor  #: (N,) the row of the student's batch that an entry belongs to

    @property
    def num_states(self) -> int:
        """B."""
        return self.student_input_ids.shape[0]

    def to(self, device: torch.device | str) -> TADBatch:
        """The same batch on another device."""
        return self._replace({name: tensor.to(device, non_blocking=True) for name, tensor in self._tensors().items()})

    def without_entries(self) -> TADBatch:
        """The same ids with no entry of the loss: loss and gradients are zero, and no teacher is asked."""
        of_entries = (
            "student_positions",
            "teacher_positions",
            "teacher_rows",
            "labels",
            "steps_to_reveal",
            "state_index",
        )
        return self._replace({name: getattr(self, name)[:0] for name in of_entries})

    def _tensors(self) -> dict[str, Tensor]:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def _replace(self, changes: dict[str, Tensor]) -> TADBatch:
        return dataclasses.replace(self, **changes)


def collate(states: Sequence[State], *, delta: int, pad_token_id: int = 0) -> TADBatch:
    """States to one ragged batch; entries with up to `delta` steps to reveal are near. `pad_token_id`: any valid id."""
    if not states:
        raise ValueError("states must hold at least one state, got none")
    with_teacher = [state for state in states if (state.steps_to_reveal > delta).any()]
    student_ids, student_lengths = _pad([(state.prompt_ids, state.canvas) for state in states], pad_token_id)
    teacher_ids, teacher_lengths = _pad(
        [(state.teacher_prompt_ids, state.canvas) for state in with_teacher], pad_token_id
    )

    masked = [np.flatnonzero(state.steps_to_reveal > 0) for state in states]
    student_positions = [
        row * student_ids.shape[1] + len(state.prompt_ids) + columns
        for row, (state, columns) in enumerate(zip(states, masked, strict=True))
    ]
    teacher_positions = [
        row * teacher_ids.shape[1] + len(state.teacher_prompt_ids) + np.flatnonzero(state.steps_to_reveal > delta)
        for row, state in enumerate(with_teacher)
    ]
    steps = _join([state.steps_to_reveal[columns] for state, columns in zip(states, masked, strict=True)])
    distant = steps > delta
    # Both sides list rows and columns in ascending order, so the k-th distant entry is row k of the teacher.
    teacher_rows = torch.where(distant, distant.cumsum(0) - 1, -1)
    return TADBatch(
        student_input_ids=student_ids,
        student_lengths=student_lengths,
        student_positions=_join(student_positions),
        teacher_input_ids=teacher_ids,
        teacher_lengths=teacher_lengths,
        teacher_positions=_join(teacher_positions),
        teacher_rows=teacher_rows,
        labels=_join([state.response_ids[columns] for state, columns in zip(states, masked, strict=True)]),
        steps_to_reveal=steps,
        state_index=_join([np.full(len(columns), row) for row, columns in enumerate(masked)]),
    )


def _pad(rows: Sequence[tuple[np.ndarray, np.ndarray]], pad_token_id: int) -> tuple[Tensor, Tensor | None]:
    """Prompt and canvas of each row joined and padded on the right; lengths only where a row is padded."""
    lengths = np.array([len(prompt) + len(canvas) for prompt, canvas in rows], dtype=np.int64)
    ids = np.full((len(rows), lengths.max(initial=0)), pad_token_id, dtype=np.int64)
    for row, (prompt, canvas) in enumerate(rows):
        ids[row, : lengths[row]] = np.concatenate((prompt, canvas))
    padded = bool((lengths < ids.shape[1]).any())
    return torch.from_numpy(ids), torch.from_numpy(lengths) if padded else None


def _join(arrays: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate([np.empty(0, dtype=np.int64), *arrays]).astype(np.int64))


def check_fits(metadata: TrajectoryMetadata, trajectories: Iterable[Trajectory], config: Any, tokenizer: Any) -> None:
    """Refuse trajectories that do not fit the model behind `config` and `tokenizer`, naming what does not fit.

    Raises:
        ValueError: another mask id or tokenizer, a prompt and response longer than the model's positions, or a token id
            outside its vocabulary.
    """
    if metadata.mask_token_id != config.mask_token_id:
        raise ValueError(
            f"trajectories were made with mask_token_id {metadata.mask_token_id}, the model's is {config.mask_token_id}"
        )
    found = tokenizer_hash(tokenizer)
    if metadata.tokenizer_hash != found:
        raise ValueError(
            f"trajectories were made with another tokenizer (hash {metadata.tokenizer_hash}) than the model's ({found})"
        )
    for trajectory in trajectories:
        for name in ("prompt_ids", "teacher_prompt_ids"):
            prompt = getattr(trajectory, name)
            length = len(prompt) + len(trajectory.response_ids)
            if length > config.max_position_embeddings:
                raise ValueError(
                    f"trajectory {trajectory.id!r}: {name} and response_ids need {length} positions together, "
                    f"the model has {config.max_position_embeddings}"
                )
            highest = max(int(prompt.max(initial=0)), int(trajectory.response_ids.max()))
            if highest >= config.vocab_size:
                raise ValueError(
                    f"trajectory {trajectory.id!r}: token id {highest} is outside the vocabulary of {config.vocab_size}"
                )
