"""CD4LM against its definition: the nested masks, how the divergence's share falls, and the loss, written out."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from slow_losses import MASK, check_that_no_entries_have_no_gradient, gradients, responses_logits

from tad_ext.data.trajectories.states import TrajectoryStates
from tad_ext.distillation.cd4lm import CD4LMObjective
from tad_ext.distillation.settings import CD4LMSettings
from tad_ext.jobs.distill.config import DistillConfig
from tad_ext.jobs.distill.run import distill

SETTINGS = CD4LMSettings()


def states_of(trajectories: list[Any], settings: CD4LMSettings = SETTINGS, **options: Any) -> Any:
    recorded = TrajectoryStates(trajectories, mask_token_id=MASK, **options)
    return CD4LMObjective.states(recorded, settings, 3)


@pytest.mark.parametrize(
    ("length", "of_student", "of_teacher"),
    [
        (10, {2}, {1}),
        (12, set(range(4, 7)), set(range(1, 7))),  # at most half
        (40, set(range(16, 37)), set(range(4, 25))),
    ],
)
def test_the_teachers_masks_are_among_the_students(
    make_trajectories: Callable[..., Any], length: int, of_student: set[int], of_teacher: set[int]
) -> None:
    states = states_of(make_trajectories(length=length))
    seen = np.zeros(length, int)
    for number in range(300):
        state = states.at(number, 0.0)
        np.testing.assert_array_equal(state.trajectory.teacher_prompt_ids, state.trajectory.prompt_ids)
        masked, harder = state.canvas == MASK, state.shown_to_teacher() == MASK
        np.testing.assert_array_equal(masked, state.is_entry)
        assert (masked | ~harder).all()
        assert masked.sum() in of_student
        assert harder.sum() in of_teacher
        assert harder.sum() < masked.sum() or length == 12
        for canvas in (state.canvas, state.shown_to_teacher()):
            shown = canvas != MASK
            np.testing.assert_array_equal(canvas[shown], state.trajectory.response_ids[shown])
        seen += masked
    assert (seen > 0).all()


def test_what_is_not_learnt_is_never_masked(make_trajectories: Callable[..., Any]) -> None:
    trajectories = make_trajectories(length=12)
    for trajectory in trajectories:
        trajectory.response_ids[5:] = 22
    states = states_of(trajectories, eos_token_ids=(22,), tail="none")
    assert all((states.at(number, 0.0).canvas[6:] == 22).all() for number in range(40))  # the first end is learnt


def test_the_divergences_share_falls_as_published() -> None:
    found = [SETTINGS.consistency_at(progress) for progress in (0.0, 0.0999, 0.1, 0.55, 1.0)]
    assert found == pytest.approx([0.9, 0.9, 0.9, 0.7, 0.5])
    with pytest.raises(ValueError, match=r"min_student_share is 0.5, expected at most max_student_share, 0.4"):
        CD4LMSettings(min_student_share=0.5, max_student_share=0.4)


@pytest.mark.parametrize("split", [[4], [1, 2, 1]])
@pytest.mark.parametrize("consistency", [0.9, 0.0])
def test_loss_and_gradient_are_the_slow_formula(
    split: list[int], consistency: float, make_adapted: Any, make_model: Any, make_trajectories: Callable[..., Any]
) -> None:
    settings = CD4LMSettings(consistency_start=consistency, consistency_end=consistency / 2)
    model, plain = make_adapted(), make_model().double()
    objective, states = CD4LMObjective(model, settings), states_of(make_trajectories(length=12), settings)
    progress = 0.55
    chosen = [states.at(number, progress) for number in range(4)]
    samples, loss = iter(objective.samples(chosen, progress)), torch.zeros((), dtype=torch.float64)
    parts = {"ce": 0.0, "kl": 0.0}
    for size in split:
        part, values = objective(objective.micro_batch([next(samples) for _ in range(size)]))
        part.backward()
        loss += part.detach()
        parts = {name: parts[name] + float(value) for name, value in values.items()}
    found = gradients(model)

    model.zero_grad()
    share, count = 0.75 * consistency, sum(int(state.is_entry.sum()) for state in chosen)
    ce, kl = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for state in chosen:
        student = responses_logits(model, state.trajectory.prompt_ids, state.canvas)
        with torch.no_grad():
            teacher = responses_logits(plain, state.trajectory.prompt_ids, state.easier)
        for place in np.flatnonzero(state.is_entry):
            ce = ce - student[place].log_softmax(-1)[state.trajectory.response_ids[place]] / count
            p, q = (teacher[place] / 2).log_softmax(-1), (student[place] / 2).log_softmax(-1)
            kl = kl + 4 * (p.exp() * (p - q)).sum() / count
    expected = share * kl + (1 - share) * ce
    expected.backward()
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-9, atol=1e-12)
    # Norms round in float32 what reaches them from two sums, whose last bits depend on the order of addition.
    torch.testing.assert_close(found, gradients(model), rtol=1e-5, atol=1e-8)
    assert parts == pytest.approx({"ce": (1 - share) * ce.item(), "kl": share * kl.item()})


def test_it_is_trained_by_its_name(job: Callable[..., DistillConfig], make_adapted: Any) -> None:
    given = {"epochs": 2, "batch_size": 2, "accumulation": 1, "dropout": 0.0, "log_every": 1}
    steps = distill(job(objective="cd4lm", **given)).history
    assert all(step.loss == pytest.approx(sum(step.parts.values())) for step in steps)
    assert all(value > 0 for step in steps for value in step.parts.values())
    assert all(step.watched["entries"]["entropy"] > 0 for step in steps)
    with pytest.raises(ValueError, match=r"^objective is cd4lm, and the model attends block-causally .* blocks of 4"):
        CD4LMObjective(make_adapted(causal_block_length=4), SETTINGS)


def test_a_batch_without_entries_has_no_gradient(make_adapted: Any, make_trajectories: Callable[..., Any]) -> None:
    objective, states = CD4LMObjective(make_adapted(), SETTINGS), states_of(make_trajectories(length=12))
    batch = objective.micro_batch(objective.samples([states.at(0, 0.0)], 0.0))
    check_that_no_entries_have_no_gradient(objective, batch)
