"""D2F against its formula written out: what student and teacher see, the blocks of a batch, the loss."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from slow_losses import MASK, gradients, responses_logits

from tad_ext.data.trajectories.states import TrajectoryStates
from tad_ext.distillation.d2f import D2FObjective
from tad_ext.distillation.settings import D2FSettings
from tad_ext.jobs.distill.config import DistillConfig
from tad_ext.jobs.distill.run import distill
from tad_ext.models.lora import base_model

SETTINGS = D2FSettings(causal_block_length=5, min_block_ratio=0.3, max_block_ratio=0.9)


def states_of(trajectories: list[Any]) -> Any:
    return D2FObjective.states(TrajectoryStates(trajectories, mask_token_id=MASK), SETTINGS, 1)


def test_the_blocks_of_a_batch(make_adapted: Any, make_trajectories: Callable[..., Any]) -> None:
    """Prompts of 5 and 3 tokens before 8 positions in blocks of 5."""
    trajectories = make_trajectories()
    first, second = (next(one for one in trajectories if len(one.prompt_ids) == length) for length in (5, 3))
    states, objective = states_of([first, second]), D2FObjective(make_adapted(), SETTINGS)
    batch = objective.micro_batch(objective.samples([states.at(0, 0.0), states.at(1, 0.0)], 0.0))
    assert batch.blocks is not None
    assert batch.blocks.tolist() == [
        [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2],
        [0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2],  # the last two are padding
    ]
    assert batch.teacher is not None
    assert batch.teacher.input_ids.tolist() == batch.student.input_ids.tolist()
    assert batch.to("cpu").without_entries().blocks is not None


@pytest.mark.parametrize("split", [[5], [1, 2, 2]])
def test_loss_and_gradient_are_the_slow_formula(
    split: list[int], make_adapted: Any, make_model: Any, make_trajectories: Callable[..., Any]
) -> None:
    trajectories, model, plain = make_trajectories(), make_adapted(), make_model().double()
    objective, states = D2FObjective(model, SETTINGS), states_of(trajectories)
    chosen = [states.at(number, 0.0) for number in (0, 1, 2, 3, 6)]

    samples, loss = iter(objective.samples(chosen, 0.0)), torch.zeros((), dtype=torch.float64)
    for size in split:
        part, values = objective(objective.micro_batch([next(samples) for _ in range(size)]))
        assert values["kl"] == part
        part.backward()
        loss += part.detach()
    found = gradients(model)

    model.zero_grad()
    expected = cross_entropy = torch.zeros((), dtype=torch.float64)
    for state in chosen:
        prompt, places = state.trajectory.prompt_ids, (state.canvas == MASK).nonzero()[0].tolist()
        ids = torch.tensor([*prompt.tolist(), *state.canvas.tolist()])[None]
        blocks = torch.tensor([[0] * len(prompt) + [1] * 5 + [2] * 3])
        student = base_model(model)(ids, blocks=blocks).logits[0, len(prompt) :].log_softmax(-1)
        with torch.no_grad():
            teacher = responses_logits(plain, prompt, state.canvas).log_softmax(-1)
        for place in places:
            p, share = teacher[place].exp(), float(state.probability[place]) * len(places) * len(chosen)
            expected = expected + (p * (teacher[place] - student[place])).sum() / share
            cross_entropy = cross_entropy - (p * student[place]).sum() / share  # as published
    cross_entropy.backward()
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found, gradients(model), rtol=1e-8, atol=1e-12)
    assert loss > 0.01


def test_it_is_trained_by_its_name(job: Callable[..., DistillConfig]) -> None:
    steps = distill(job(objective="d2f", causal_block_length=4, epochs=3, batch_size=1, dropout=0.0)).history
    assert [step.totals["states"] for step in steps] == [2] * 6
    assert all(step.parts == {"kl": step.loss} and step.loss > 0 for step in steps)


def test_its_teacher_sees_what_the_student_sees(job: Callable[..., DistillConfig]) -> None:
    config = job(objective="d2f", teacher_prompt="system")
    with pytest.raises(ValueError, match=r"^teacher_prompt is 'system'; objective 'd2f' has no such setting"):
        distill(config)
    assert not Path(config.output).exists()
