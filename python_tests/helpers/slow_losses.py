"""The losses of distillation written out, one state and one entry at a time, from whole logits; and their gradients."""

import itertools
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from tad_ext.data.trajectories.files import Trajectory
from tad_ext.data.trajectories.states import State, TrajectoryStates
from tad_ext.distillation import Objective, TADSettings
from tad_ext.distillation.samples import MicroBatch
from tad_ext.models.lora import base_model

MASK = 23
Grads = dict[str, Tensor]


def micro_batches(objective: Objective, dataset: TrajectoryStates, split: list[list[int]]) -> list[MicroBatch]:
    """A global batch, cut into these."""
    samples = iter(objective.samples([dataset[index] for part in split for index in part], 0.0))
    return [MicroBatch.of(list(itertools.islice(samples, len(part))), objective.asks_teacher) for part in split]


def gradients(model: PeftModel) -> Grads:
    """Of every weight that is trained, each of which must have one."""
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad and p.grad is not None}
    assert len(found) == sum(parameter.requires_grad for parameter in model.parameters())
    return found


def check_that_no_entries_have_no_gradient(objective: Objective, batch: MicroBatch) -> None:
    """Whether the teacher is run on it or not."""
    for one in (batch.without_entries(), batch.without_entries().with_teacher()):
        loss, _ = objective(one)
        loss.backward()
        assert loss == 0
        assert all(not grad.any() for grad in gradients(objective.model).values())


def responses_logits(model: Any, prompt: Any, canvas: Any) -> Tensor:
    """(G, V): at each position of a canvas behind a prompt, alone and unpadded."""
    ids = torch.tensor([*prompt.tolist(), *canvas.tolist()])[None]
    return base_model(model)(ids).logits[0, len(prompt) :]


#: Rotations are in float32, and the last bit of a cosine depends on how many are computed at a time.
ROTATED = {"rtol": 1e-5, "atol": 1e-8}


def block_logits(model: Any, trajectory: Trajectory, canvas: Any) -> Tensor:
    """(G, V) of a model that attends block-causally: each block of a canvas behind a finished text, alone."""
    prompt = trajectory.prompt_ids.tolist()
    finished, shown = [*prompt, *trajectory.response_ids.tolist()], [*prompt, *canvas.tolist()]
    length = base_model(model).config.causal_block_length
    rows = [
        base_model(model)(torch.tensor([[*finished[:first], *shown[first : first + length]]])).logits[0, first:]
        for first in range(0, len(shown), length)
    ]
    return torch.cat(rows)[len(prompt) :]


def slow_terms(model: PeftModel, plain: Any, state: State, settings: TADSettings) -> tuple[list[Tensor], list[Tensor]]:
    """CE of each near entry and KL of each distant one of one state, alone and unpadded, from whole logits."""

    student = responses_logits(model, state.trajectory.prompt_ids, state.canvas)
    with torch.no_grad():
        teacher = responses_logits(plain, state.trajectory.teacher_prompt_ids, state.canvas)
    near, distant = [], []
    for position, steps in enumerate(state.steps_to_reveal.tolist()):
        if 1 <= steps <= settings.delta:
            near.append(-student[position].log_softmax(-1)[state.trajectory.response_ids[position]])
        elif steps > settings.delta:
            q = (student[position] / settings.temperature).log_softmax(-1)
            p = (teacher[position] / settings.temperature).log_softmax(-1)
            distant.append((p.exp() * (p - q)).sum() * settings.temperature**2)
    return near, distant


def mean(values: list[Tensor]) -> Tensor:
    """0 of nothing."""
    return sum(values) / len(values) if values else torch.zeros((), dtype=torch.float64)  # type: ignore[return-value]
