"""The published optimizer step, as TAD's own trainers have it: the baseline of `bench.train`.

Two copies of the model, logits of every position of both, rows chosen by boolean masks, PyTorch's own losses in
float32, means of each micro-batch, gradients of the mean over micro-batches, AdamW. Layers and adapter are everyone's,
with PyTorch's attention and dropout.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tad_ext.data.trajectories.states import State
from tad_ext.distillation.settings import TrainingSettings
from tad_ext.models.lora import base_model

from .clock import PartClock


class PublishedStep:
    """Optimizer steps of an adapted student beside a teacher that is another model; their states have one length."""

    def __init__(self, student: Any, teacher: Any, training: TrainingSettings, delta: int, clock: PartClock) -> None:
        self.student, self.teacher, self.training, self.delta, self.clock = student, teacher, training, delta, clock
        self.parameters = [one for one in student.parameters() if one.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=training.learning_rate, weight_decay=training.weight_decay
        )
        for model in (base_model(student), teacher):
            model.lm_head.forward = clock.timed("head", model.lm_head.forward)

    def run(self, states: Sequence[State]) -> float:
        """One step on these states; the loss."""
        device, size, total = self.parameters[0].device, self.training.batch_size, 0.0
        half = self.teacher.dtype == torch.bfloat16
        micro_batches = [states[first : first + size] for first in range(0, len(states), size)]
        self.student.train()
        for some in micro_batches:
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
                loss = self._loss(some, device) / len(micro_batches)
            with self.clock.part("backward"):
                loss.backward()
            total += loss.item()
        with self.clock.part("AdamW"):
            torch.nn.utils.clip_grad_norm_(self.parameters, self.training.max_grad_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
        return total

    def _loss(self, states: Sequence[State], device: torch.device) -> Tensor:
        """Of a micro-batch: the mean CE of its near entries and the mean KL of its distant ones."""
        with self.clock.part("states"):
            labels = torch.from_numpy(np.stack([state.trajectory.response_ids for state in states])).long().to(device)
            ids, steps = _side(states, "prompt_ids", device)
            teacher_ids, teacher_steps = _side(states, "teacher_prompt_ids", device)
        with self.clock.part("teacher"), torch.no_grad():
            teacher_logits = self.teacher(teacher_ids).logits
        with self.clock.part("student"):
            logits = base_model(self.student)(ids).logits
        with self.clock.part("gathers"):
            near, distant = (steps > 0) & (steps <= self.delta), steps > self.delta
            near_logits, distant_logits = logits[near], logits[distant]
            asked_logits = teacher_logits[teacher_steps > self.delta]
            near_labels = labels[near[:, -labels.shape[1] :]]
        with self.clock.part("loss"):
            losses = []
            if len(near_labels):
                losses.append(functional.cross_entropy(near_logits.float(), near_labels))
            if len(distant_logits):
                student_log, probabilities = distant_logits.float().log_softmax(-1), asked_logits.float().softmax(-1)
                losses.append(functional.kl_div(student_log, probabilities, reduction="batchmean"))
            return torch.stack(losses).sum()


def _side(states: Sequence[State], prompts: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """What the student or the teacher sees: ids (B, L), and the steps until each of them is revealed (B, L)."""
    asked = [getattr(state.trajectory, prompts) for state in states]
    ids = [np.concatenate((prompt, state.canvas)) for prompt, state in zip(asked, states, strict=True)]
    steps = [
        np.concatenate((np.zeros_like(prompt), state.steps_to_reveal))
        for prompt, state in zip(asked, states, strict=True)
    ]
    ids_of_all, steps_of_all = (torch.from_numpy(np.stack(some)).long().to(device) for some in (ids, steps))
    return ids_of_all, steps_of_all
