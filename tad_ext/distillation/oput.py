"""DMax's on-policy uniform training (OPUT; code: czg1225/DMax): tokens are learnt where others stand in their place.

Every response is trained on twice, each time with other positions masked, each with probability `noise_ratio`. Once it
stays so. The other time every mask becomes the token that the model, as it is by then, holds for the most probable
there: such a canvas is what many tokens at once leave behind, and `SoftParallel` decoding starts from. Either way all
learned positions are asked about, also those that show the token itself:

    loss = mean over canvases of  mean over learned positions of  CE(token).

The published code learns the first 32 positions behind the end besides, which is here `eos_tail`'s choice, and may put
the mask token back in, which is not repeated.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from tad_ext.data.trajectories.files import Trajectory
from tad_ext.data.trajectories.states import State, States, TrajectoryStates
from tad_ext.distillation.objective import Objective
from tad_ext.distillation.responses import ResponseStates
from tad_ext.distillation.samples import MicroBatch, Sample
from tad_ext.distillation.settings import OPUTSettings
from tad_ext.distillation.tad import partitioned_loss
from tad_ext.models.base import evaluation_mode
from tad_ext.ops import token_statistics

_ROWS = 256  # masks whose logits exist at a time


@dataclass(frozen=True, eq=False)
class NoisyState(State):
    """A response with masks, of which all learned positions are entries."""

    on_policy: bool  #: its masks become the model's own tokens


class NoisyResponses(ResponseStates):
    """Each response twice: with masks, and with the model's tokens in their place."""

    copies = 2

    def __init__(self, recorded: TrajectoryStates, seed: int, noise_ratio: float) -> None:
        super().__init__(recorded, seed)
        self.noise_ratio = noise_ratio

    def at(self, number: int, progress: float) -> NoisyState:
        """See `States`."""
        state = super().at(number, progress)
        return NoisyState(state.trajectory, state.canvas, state.steps_to_reveal, on_policy=number % 2 == 1)

    def masked(self, trajectory: Trajectory, learned: int, progress: float, random: np.random.Generator) -> State:
        """See `ResponseStates`."""
        count = len(trajectory.response_ids)
        canvas = self.hidden(trajectory, random.random(count) < self.noise_ratio)
        return State(trajectory, canvas, (np.arange(count) < learned).astype(np.int64))


@dataclass(frozen=True, eq=False)
class NoisyBatch(MicroBatch):
    """A micro-batch, and the masks that become the model's own tokens."""

    replaced: Tensor = field(kw_only=True)  #: (M,) int64, flattened places in the student's (B, L)


class OPUTObjective(Objective):
    """Cross-entropy of all tokens, behind masks or behind the model's own ones."""

    Settings = OPUTSettings
    parts: ClassVar[dict[str, str]] = {"ce": "CE of all learned tokens, nats"}
    behind_finished_blocks = True

    @classmethod
    def states(cls, recorded: TrajectoryStates, settings: Any, seed: int) -> States:
        """The trajectories' responses, twice each."""
        return NoisyResponses(recorded, seed, settings.noise_ratio)

    @property
    def group_size(self) -> int | None:
        """Each canvas has a mean of its own."""
        return 1

    def micro_batch(self, samples: Sequence[Sample]) -> NoisyBatch:
        """With the masks of those canvases that are on-policy."""
        batch = super().micro_batch(samples)
        width = batch.student.input_ids.shape[1]
        replaced = [
            row * width + len(sample.state.trajectory.prompt_ids) + np.flatnonzero(_masks(sample.state, self._mask))
            for row, sample in enumerate(samples)
        ]
        values = {one.name: getattr(batch, one.name) for one in fields(batch)}
        return NoisyBatch(**values, replaced=torch.from_numpy(np.concatenate(replaced)))

    def student_inputs(self, batch: MicroBatch) -> dict[str, Any]:
        """See `Objective.student_inputs`; a forward without dropout and gradients tells the model's own tokens."""
        inputs, model = super().student_inputs(batch), self.diffusion_model
        if not isinstance(batch, NoisyBatch):
            raise TypeError(f"batch must be a NoisyBatch, got {type(batch).__name__}")
        ids = batch.student.input_ids
        never = torch.tensor([self._mask, *(model.config.suppress_token_ids or ())], device=ids.device)
        with torch.no_grad(), evaluation_mode(self.modules()):
            hidden = model.hidden_rows(**inputs | {"positions": batch.replaced})
            tokens = [
                token_statistics(model.lm_head(rows), suppress_tokens=never).token for rows in hidden.split(_ROWS)
            ]
        return inputs | {"input_ids": ids.flatten().scatter(0, batch.replaced, torch.cat(tokens)).view_as(ids)}

    def forward(self, batch: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Objective.forward`."""
        result = partitioned_loss(self, batch)
        return result.loss, {"ce": result.ce}

    @property
    def _mask(self) -> int:
        return int(self.diffusion_model.config.mask_token_id)


def _masks(state: State, mask: int) -> np.ndarray:
    """(G,) bool: those that become the model's own tokens."""
    assert isinstance(state, NoisyState)
    return (state.canvas == mask) & state.on_policy
