"""What a model is trained on in one optimizer step: states, what each of their entries counts, and micro-batches."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tad_ext.data.ragged import Ragged, ragged, to_device
from tad_ext.data.trajectories.states import State, collate, teacher_side


@dataclass(frozen=True, eq=False)
class Sample:
    """A state in its global batch. Its n entries are in the order of their positions."""

    state: State
    side: np.ndarray  #: (n,) int64: which of the objective's sides each entry is on
    weight: np.ndarray  #: (n,) float64: what it counts in the loss of the global batch

    @property
    def length(self) -> int:
        """Tokens of the longer of its two sequences."""
        trajectory = self.state.trajectory
        return max(len(trajectory.prompt_ids), len(trajectory.teacher_prompt_ids)) + len(self.state.canvas)


def mean_weights(sides: Sequence[np.ndarray], count: int, group_size: int | None = None) -> list[np.ndarray]:
    """The weights by which a sum over the entries of some states is a mean of means.

    So many states, one after the other, are a group (None: all of them; the last may be smaller). On each side, of
    which there are `count`, a group has the mean of its entries, 0 where it has none, and the groups have the mean of
    these.
    """
    size = group_size or max(len(sides), 1)
    groups = [sides[first : first + size] for first in range(0, len(sides), size)]
    weights = []
    for group in groups:
        entries = np.bincount(np.concatenate(group), minlength=count) * len(groups)
        weights += [1.0 / entries[side] for side in group]
    return weights


@dataclass(frozen=True, eq=False)
class MicroBatch:
    """B samples with N entries in all, sample after sample; M of them are asked of the teacher, too. Tensors."""

    student: Ragged  #: (B, L): the student's prompt, then the canvas; (N,) positions of the entries
    teacher: Ragged | None  #: the teacher's prompt, then the canvas; (M,) positions. None: there is nothing to ask
    teacher_rows: Tensor  #: (N,) int64: the entry's place among the M, or -1
    labels: Tensor  #: (N,) int64: the trajectory's tokens
    side: Tensor  #: (N,) int64
    weight: Tensor  #: (N,) float64
    blocks: Tensor | None = None  #: (B, L) int64, of a student that attends block-causally
    clean: Tensor | None = None  #: (B, L) int64: the finished responses, see `MaskedDiffusionMixin.hidden_rows`
    taught: Tensor | None = None  #: (N,) float64: share of an entry's weight that goes to what the teacher says of it

    @classmethod
    def of(cls, samples: Sequence[Sample], ask_teacher: Collection[int] = ()) -> "MicroBatch":
        """On the CPU; the teacher is asked about the entries on these sides."""
        batch = collate([sample.state for sample in samples])
        side = np.concatenate([sample.side for sample in samples])
        asked = [np.isin(sample.side, list(ask_teacher)) for sample in samples]
        wanted = [sample.state.is_entry for sample in samples]
        for chosen, own in zip(wanted, asked, strict=True):
            chosen[chosen] = own
        flat = np.concatenate(asked)
        return cls(
            student=batch.student,
            teacher=teacher_side(batch.states, wanted) if flat.any() else None,
            teacher_rows=torch.from_numpy(np.where(flat, flat.cumsum() - 1, -1)),
            labels=batch.labels,
            side=torch.from_numpy(side),
            weight=torch.from_numpy(np.concatenate([sample.weight for sample in samples])),
        )

    def to(self, device: torch.device | str) -> "MicroBatch":
        """The same on another device, which is not waited for."""
        moved: dict[str, Any] = {field.name: _on(getattr(self, field.name), device) for field in fields(self)}
        return replace(self, **moved)

    def with_finished_blocks(self, samples: Sequence[Sample]) -> "MicroBatch":
        """The same, for a student whose blocks are each learnt behind finished ones."""
        texts = [(one.state.trajectory.prompt_ids, one.state.trajectory.response_ids) for one in samples]
        finished = ragged([np.concatenate(text) for text in texts], [[]] * len(texts))
        return replace(self, clean=finished.input_ids)

    def without_entries(self) -> "MicroBatch":
        """The same ids of the student, of which nothing is asked: loss and gradients are zero."""
        names = ["teacher_rows", "labels", "side", "weight", *([] if self.taught is None else ["taught"])]
        nothing = {name: getattr(self, name)[:0] for name in names}
        return replace(self, student=_unasked(self.student), teacher=None, **nothing)

    def with_teacher(self) -> "MicroBatch":
        """The same, and a forward of the teacher in any case, of which nothing may be asked."""
        return self if self.teacher is not None else replace(self, teacher=_unasked(self.student))


def _on(value: Ragged | Tensor | None, device: torch.device | str) -> Ragged | Tensor | None:
    if value is None:
        return None
    return value.to(device) if isinstance(value, Ragged) else to_device(value, device)


def _unasked(ragged: Ragged) -> Ragged:
    return ragged._replace(positions=ragged.positions[:0])
