"""What an objective is: samples of states, a loss of micro-batches of them, and the names of what is reported of it.

A new one is a class in a file of its own and a line in `settings`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import fields, make_dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor, nn

from tad_ext.data.trajectories.states import State, States, TrajectoryStates
from tad_ext.distillation.samples import MicroBatch, Sample, mean_weights
from tad_ext.models.base import MaskedDiffusionMixin
from tad_ext.models.config import DiffusionConfig
from tad_ext.models.lora import base_model, teacher


class Objective(nn.Module, ABC):
    """A loss that is SUMMED over the micro-batches and ranks of a global batch, one optimizer step.

    It is a module, so that DDP wraps all forwards of its model, a masked diffusion model with a trainable adapter. With
    that off (`lora.teacher`) the model is the teacher, unless it is given another one, which is frozen.

    A global batch is made into samples on the host, by every rank alike; what its means are taken over is thus known
    to all, and how it is cut into micro-batches changes nothing.
    """

    #: Dataclass of its numbers, by default none: the settings of `tad distill` that it takes; others given are refused.
    Settings: ClassVar[type] = make_dataclass("NoSettings", ())
    parts: ClassVar[dict[str, str]]  #: name of each part of the loss -> its meaning and unit, for the loss curve
    sides: ClassVar[tuple[str, ...]] = ("entries",)  #: the kinds of entries that it tells apart
    privileged: ClassVar[bool] = False  #: it asks the teacher with another prompt than the student's
    #: Of a model that attends block-causally, each block of a state is learnt as if those before it were finished.
    behind_finished_blocks: ClassVar[bool] = False

    def __init__(self, model: PeftModel, settings: Any, other_teacher: MaskedDiffusionMixin | None = None) -> None:
        super().__init__()
        self.model, self.settings, self.other_teacher = model, settings, other_teacher
        self.check_model(self.diffusion_model.config)

    @classmethod
    def setting_names(cls) -> list[str]:
        """Of its `Settings`, those that may be given."""
        return [field.name for field in fields(cls.Settings) if field.init]

    @classmethod
    def check_model(cls, config: DiffusionConfig) -> None:
        """ValueError if models of this configuration cannot be trained so, or teach; by default all can."""

    @classmethod
    def states(cls, recorded: TrajectoryStates, settings: Any, seed: int) -> States:
        """What it is trained on, made from trajectories: by default their own states."""
        return recorded

    @property
    def diffusion_model(self) -> MaskedDiffusionMixin:
        """The model inside the adapter, which stays in effect."""
        return base_model(self.model)

    def teacher_rows(self, batch: MicroBatch) -> Tensor:
        """(M, D'): what the teacher has at the entries that are asked of it, for its `lm_head`; without gradients."""
        if batch.teacher is None:
            raise ValueError("batch has nothing to ask the teacher")
        asked = batch.teacher._asdict()
        if self.other_teacher is not None:
            with torch.no_grad():
                return self.other_teacher.hidden_rows(**asked)
        with teacher(self.model):
            return self.diffusion_model.hidden_rows(**asked)

    def samples(self, states: Sequence[State], progress: float) -> list[Sample]:
        """The samples of a global batch, at a progress of the training from 0 to below 1.

        By default the loss is the mean over all entries.
        """
        sides = [self.side_of(state.steps_to_reveal[state.is_entry], progress) for state in states]
        weights = mean_weights(sides, len(self.sides), self.group_size)
        return [Sample(*one) for one in zip(states, sides, weights, strict=True)]

    def side_of(self, steps_to_reveal: np.ndarray, progress: float) -> np.ndarray:
        """(n,) int64: the side of each entry, from the steps, >= 1, until it is revealed."""
        return np.zeros(len(steps_to_reveal), dtype=np.int64)

    @property
    def group_size(self) -> int | None:
        """How many states share a mean, see `mean_weights`; None: all of a global batch."""
        return None

    @classmethod
    def asks(cls, settings: Any) -> tuple[int, ...]:
        """The sides whose entries the teacher is asked about, by its `Settings`."""
        return ()

    @property
    def asks_teacher(self) -> tuple[int, ...]:
        """The sides whose entries the teacher is asked about."""
        return self.asks(self.settings)

    def micro_batch(self, samples: Sequence[Sample]) -> MicroBatch:
        """Of at least one sample, on the CPU."""
        batch = MicroBatch.of(samples, self.asks_teacher)
        blocks = self.diffusion_model.config.causal_block_length is not None
        return batch.with_finished_blocks(samples) if blocks and self.behind_finished_blocks else batch

    def student_inputs(self, batch: MicroBatch) -> dict[str, Any]:
        """What the student sees of a micro-batch, as `hidden_rows` takes it."""
        return {**batch.student._asdict(), "blocks": batch.blocks, "clean": batch.clean}

    @abstractmethod
    def forward(self, batch: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The contribution of a micro-batch to the global batch's loss, differentiable, and to each of its `parts`.

        0-d tensors. A batch may have no entries: its loss is 0, and so are its gradients.
        """


def needs_full_attention(name: str, config: DiffusionConfig) -> None:
    """ValueError, naming the objective, for a model that attends block-causally."""
    own = config.causal_block_length
    if own is not None:
        raise ValueError(
            f"objective is {name}, and the model attends block-causally as it is, in blocks of {own}: expected one "
            f"that attends to all"
        )
