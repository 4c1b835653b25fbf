"""d-OPSD against its definition: which states there are, what hindsight shows, and the clipped loss, written out."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from slow_losses import MASK, check_that_no_entries_have_no_gradient, gradients, responses_logits

from tad_ext.data.trajectories.states import TrajectoryStates
from tad_ext.distillation.d_opsd import DOPSDObjective
from tad_ext.distillation.settings import DOPSDSettings
from tad_ext.jobs.distill.config import DistillConfig
from tad_ext.jobs.distill.run import distill

SETTINGS = DOPSDSettings(hindsight=0.5, hindsight_block_length=4, teacher_top_k=5, entry_clip=0.02)


@pytest.fixture
def trajectories(make_trajectories: Callable[..., Any]) -> list[Any]:
    """12 positions in blocks of 4, two revealed at a time."""
    made = make_trajectories(length=12)
    for trajectory in made:
        order = np.array([2, 0, 3, 1, 5, 4, 7, 6, 8, 9, 11, 10])
        object.__setattr__(trajectory, "reveal_step", np.argsort(order) // 2 + 1)
        object.__setattr__(trajectory, "num_steps", 6)
    return made


def states_of(trajectories: list[Any], **options: Any) -> Any:
    recorded = TrajectoryStates(trajectories, mask_token_id=MASK, **options)
    return DOPSDObjective.states(recorded, SETTINGS, 3)


def test_hindsight_is_of_what_stands_behind_the_current_block(trajectories: list[Any]) -> None:
    states = states_of(trajectories)
    assert states.counts == [4, 4, 4, 4]  # those of the last block are none
    seen: set[int] = set()
    for number in range(400):
        state, step = states.at(number, 0.0), number % 4
        assert state.trajectory.id == trajectories[number % 16 // 4].id
        np.testing.assert_array_equal(state.trajectory.teacher_prompt_ids, state.trajectory.prompt_ids)
        np.testing.assert_array_equal(state.canvas, state.trajectory.canvas_at(step, MASK))
        assert np.flatnonzero(state.is_entry).tolist() == {0: [0, 1, 2, 3], 1: [1, 3], 2: [4, 5, 6, 7], 3: [6, 7]}[step]
        behind = 4 if step < 2 else 8
        told = np.flatnonzero(state.shown_to_teacher() != state.canvas)
        assert len(told) == (12 - behind) // 2
        assert (told >= behind).all()
        np.testing.assert_array_equal(state.shown_to_teacher()[told], state.trajectory.response_ids[told])
        seen |= {*told.tolist()}
    assert seen == {*range(4, 12)}


def test_a_response_ends_where_nothing_is_learnt_any_more(trajectories: list[Any]) -> None:
    trajectories[0].response_ids[3:], trajectories[1].response_ids[6:] = 22, 22
    states = states_of(trajectories, eos_token_ids=(22,), tail="none")
    assert states.counts == [2, 4, 4]  # ends in its first block, in its second, nowhere
    assert states.at(0, 0.0).trajectory.id == trajectories[1].id
    with pytest.raises(ValueError, match=r"^hindsight_block_length is 4, and no trajectory has something to learn"):
        states_of(trajectories[:1], eos_token_ids=(22,), tail="none")


@pytest.mark.parametrize("split", [[5], [1, 2, 2]])
def test_loss_and_gradient_are_the_slow_formula(
    split: list[int], make_adapted: Any, make_model: Any, trajectories: list[Any]
) -> None:
    model, plain = make_adapted(), make_model().double()
    objective, states = DOPSDObjective(model, SETTINGS), states_of(trajectories)
    chosen = [states.at(number, 0.0) for number in (0, 1, 6, 3, 8)]
    samples, loss = iter(objective.samples(chosen, 0.0)), torch.zeros((), dtype=torch.float64)
    for size in split:
        part, values = objective(objective.micro_batch([next(samples) for _ in range(size)]))
        assert values["kl"] == part
        part.backward()
        loss += part.detach()
    found = gradients(model)

    model.zero_grad()
    expected, clipped = torch.zeros((), dtype=torch.float64), 0
    for state in chosen:
        prompt = state.trajectory.prompt_ids
        student = responses_logits(model, prompt, state.canvas)
        with torch.no_grad():
            teacher = responses_logits(plain, prompt, state.hindsight)
        sure = teacher.softmax(-1).amax(-1)
        places = sorted(np.flatnonzero(state.is_entry).tolist(), key=lambda place: -float(sure[place]))[:2]
        for place in places:
            top = teacher[place].argsort(descending=True)[:5]
            s, t = student[place][top].softmax(-1), teacher[place][top].softmax(-1)
            for one, other in zip(s, t, strict=True):
                entry = one * (one / other).log() - one + other
                clipped += int(entry > 0.02)
                expected = expected + torch.minimum(entry, entry.new_tensor(0.02)) / 5
    expected.backward()
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found, gradients(model), rtol=1e-8, atol=1e-12)
    assert clipped > 3


def test_it_is_trained_by_its_name(job: Callable[..., DistillConfig], make_adapted: Any) -> None:
    """8 positions, one revealed at a time, in any order: before the last block is done, all states are of earlier."""
    given = {"hindsight_block_length": 4, "epochs": 2, "batch_size": 2, "accumulation": 1, "dropout": 0.0}
    config = job(objective="d_opsd", **given)
    steps = distill(config).history
    assert all(step.parts == {"kl": step.loss} for step in steps)
    assert steps[-1].loss != 0  # nothing to learn as long as student and teacher are one, and hindsight says nothing
    with pytest.raises(ValueError, match=r"^objective is d_opsd, and the model attends block-causally .* blocks of 4"):
        DOPSDObjective(make_adapted(causal_block_length=4), SETTINGS)


def test_a_batch_without_entries_has_no_gradient(make_adapted: Any, trajectories: list[Any]) -> None:
    objective, states = DOPSDObjective(make_adapted(), SETTINGS), states_of(trajectories)
    batch = objective.micro_batch(objective.samples([states.at(0, 0.0)], 0.0))
    check_that_no_entries_have_no_gradient(objective, batch)
