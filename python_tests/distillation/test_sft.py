"""Supervised fine-tuning against its formula, written out."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from slow_losses import MASK, ROTATED, block_logits, gradients, responses_logits
from torch.nn.functional import cross_entropy

from tad_ext.data.trajectories.states import TrajectoryStates
from tad_ext.distillation.settings import SFTSettings
from tad_ext.distillation.sft import SFTObjective
from tad_ext.jobs.distill.config import DistillConfig
from tad_ext.jobs.distill.run import distill


@pytest.mark.parametrize("split", [[6], [1, 3, 2]])
@pytest.mark.parametrize(("tail", "block"), [("all", None), ("none", None), ("none", 3)])
def test_loss_and_gradient_are_the_slow_formula(
    split: list[int], tail: Any, block: int | None, make_adapted: Any, make_trajectories: Callable[..., Any]
) -> None:
    trajectories, model = make_trajectories(), make_adapted(causal_block_length=block)
    for trajectory in trajectories[:2]:
        trajectory.response_ids[5:] = 22
    recorded = TrajectoryStates(trajectories, mask_token_id=MASK, eos_token_ids=(22,), tail=tail)
    objective = SFTObjective(model, SFTSettings(min_mask_ratio=0.1))
    states = objective.states(recorded, objective.settings, 5)
    chosen = [states.at(number, 0.0) for number in range(6)]

    samples, loss = iter(objective.samples(chosen, 0.0)), torch.zeros((), dtype=torch.float64)
    for size in split:
        part, values = objective(objective.micro_batch([next(samples) for _ in range(size)]))
        assert values["ce"] == part
        part.backward()
        loss += part.detach()
    found = gradients(model)

    model.zero_grad()
    expected = torch.zeros((), dtype=torch.float64)
    for number, state in enumerate(chosen):
        length = 8 if tail == "all" or number % 4 > 1 else 6  # with the first end of sequence
        logits = (
            responses_logits(model, state.trajectory.prompt_ids, state.canvas)
            if block is None
            else block_logits(model, state.trajectory, state.canvas)
        )
        for place in range(length):
            if state.canvas[place] == MASK:
                label = torch.tensor(int(state.trajectory.response_ids[place]))
                expected = expected + cross_entropy(logits[place], label) / float(state.probability[0]) / length / 6
    expected.backward()
    torch.testing.assert_close(loss, expected.detach(), **(ROTATED if block else {"rtol": 1e-9, "atol": 1e-12}))
    torch.testing.assert_close(found, gradients(model), **(ROTATED if block else {"rtol": 1e-8, "atol": 1e-12}))


def test_it_is_trained_by_its_name(job: Callable[..., DistillConfig]) -> None:
    history = distill(job(objective="sft", epochs=2, batch_size=1, dropout=0.0)).history
    assert [step.totals["states"] for step in history] == [2, 2, 2, 2]
    assert all(step.parts == {"ce": step.loss} for step in history)
