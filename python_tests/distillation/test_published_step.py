"""Fifty optimizer steps beside the published step in plain PyTorch: two models, every position's logits, boolean masks,
means of micro-batches of four.
"""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import get_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from tad_ext.data.trajectories.states import State, TrajectoryStates
from tad_ext.distillation.order import Order
from tad_ext.jobs.distill.config import DistillConfig
from tad_ext.jobs.distill.run import distill
from tad_ext.models.loading import load_model
from tad_ext.models.lora import add_lora, base_model

pytestmark = pytest.mark.slow

MASK, PAD, STEPS = 23, 0, 50


def canvas_logits(model: Any, prompts: list[Any], states: list[State]) -> Tensor:
    """(B, G, V): of all positions of a padded batch, the canvases'."""
    rows = [torch.tensor([*prompt.tolist(), *state.canvas.tolist()]) for prompt, state in zip(prompts, states)]
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
    logits = model(ids, lengths=lengths).logits
    return torch.stack([one[length - len(states[0].canvas) : length] for one, length in zip(logits, lengths)])


def published_loss(student: Any, teacher: Any, states: list[State], delta: int) -> Tensor:
    steps = torch.stack([torch.from_numpy(state.steps_to_reveal) for state in states])
    tokens = torch.stack([torch.from_numpy(state.trajectory.response_ids).long() for state in states])
    ours = canvas_logits(student, [state.trajectory.prompt_ids for state in states], states)
    with torch.no_grad():
        theirs = canvas_logits(teacher, [state.trajectory.teacher_prompt_ids for state in states], states)
    near, distant = (steps > 0) & (steps <= delta), steps > delta
    loss = ours.sum() * 0
    if near.any():
        loss = loss + F.cross_entropy(ours[near], tokens[near])
    if distant.any():
        log_q, log_p = ours[distant].log_softmax(-1), theirs[distant].log_softmax(-1)
        loss = loss + F.kl_div(log_q, log_p, log_target=True, reduction="batchmean")
    return loss


@pytest.mark.parametrize(("batch_size", "accumulation"), [(4, 2), (8, 1)])
def test_fifty_steps(
    job: Callable[..., DistillConfig], make_trajectories: Any, batch_size: int, accumulation: int
) -> None:
    """However many states a device takes at a time."""
    config = job(
        max_steps=STEPS, batch_size=batch_size, accumulation=accumulation, dropout=0.0, learning_rate=3e-3, save_every=0
    )
    result = distill(config)

    base = load_model(config.model)
    teacher = copy.deepcopy(base)
    student = add_lora(base, rank=4, alpha=8.0, seed=config.training.seed)
    weights = [one for one in student.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=3e-3, weight_decay=0.01)
    states = TrajectoryStates(make_trajectories(), mask_token_id=MASK)
    order = Order(states.counts, config.training, 8)
    for step in range(STEPS):
        chosen = [states[number % len(states)] for number in order.numbers(step).tolist()]
        groups = [chosen[at : at + 4] for at in range(0, len(chosen), 4)]
        losses = []
        for group in groups:
            loss = published_loss(base_model(student), teacher, group, config.loss.delta)
            (loss / len(groups)).backward()
            losses.append(float(loss.detach()))
        norm = torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        assert result.history[step].loss == pytest.approx(sum(losses) / len(losses), rel=1e-4), step
        assert result.history[step].grad_norm == pytest.approx(float(norm), rel=1e-3), step
    found = load_file(result.adapter / "adapter_model.safetensors")
    torch.testing.assert_close(found, dict(get_peft_model_state_dict(student)), rtol=1e-2, atol=1e-4)
