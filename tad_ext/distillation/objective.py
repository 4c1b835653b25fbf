"""What an objective is: a loss of micro-batches of states, and the names of what is reported of it.

A new one is a class in a file of its own and a line in `settings`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import make_dataclass
from typing import Any, ClassVar

import numpy as np
from peft import PeftModel
from torch import Tensor, nn

from tad_ext.data.trajectories.states import StateBatch, TrajectoryStates
from tad_ext.models.base import MaskedDiffusionMixin
from tad_ext.models.lora import base_model


class Objective(nn.Module, ABC):
    """A loss that is SUMMED over the micro-batches and ranks of a global batch, one optimizer step.

    It is a module, so that DDP wraps all forwards of its model, a masked diffusion model with a trainable adapter. With
    that off (`lora.teacher`) the model is the teacher.
    """

    #: Dataclass of its numbers, by default none: the settings of `tad distill` that it takes; others given are refused.
    Settings: ClassVar[type] = make_dataclass("NoSettings", ())
    parts: ClassVar[dict[str, str]]  #: name of each part of the loss -> its meaning and unit, for the loss curve

    def __init__(self, model: PeftModel, settings: Any) -> None:
        super().__init__()
        self.model, self.settings = model, settings

    @property
    def diffusion_model(self) -> MaskedDiffusionMixin:
        """The model inside the adapter, which stays in effect."""
        return base_model(self.model)

    def totals(self, states: TrajectoryStates, micro_batches: Sequence[Sequence[int]]) -> dict[str, int]:
        """What the means of a global batch may be taken over: known on every rank from the indices of its states."""
        steps = states.steps_to_reveal(index for part in micro_batches for index in part)
        return {"micro_batches": len(micro_batches), "states": sum(map(len, micro_batches)), **self.count(steps)}

    def count(self, steps_to_reveal: np.ndarray) -> dict[str, int]:
        """Entries by kind, from the (N,) steps, >= 1, until each is revealed."""
        return {"entries": len(steps_to_reveal)}

    @abstractmethod
    def forward(self, batch: StateBatch, totals: Mapping[str, int]) -> tuple[Tensor, dict[str, Tensor]]:
        """The contribution of a micro-batch to the global batch's loss, differentiable, and to each of its `parts`.

        0-d tensors. A batch may have no entries: its loss is 0, and so are its gradients.
        """
