"""On-policy uniform training against its definition: two canvases of a response, the model's own tokens, the loss."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from slow_losses import MASK, ROTATED, block_logits, gradients, responses_logits
from torch import Tensor
from torch.nn.functional import cross_entropy

from tad_ext.data.trajectories.states import TrajectoryStates
from tad_ext.distillation.oput import OPUTObjective
from tad_ext.distillation.settings import OPUTSettings
from tad_ext.jobs.distill.config import DistillConfig
from tad_ext.jobs.distill.run import distill

SUPPRESSED = 7


def states_of(trajectories: list[Any], **given: Any) -> Any:
    return OPUTObjective.states(TrajectoryStates(trajectories, mask_token_id=MASK), OPUTSettings(**given), 2)


def test_each_response_is_two_canvases(make_trajectories: Callable[..., Any]) -> None:
    trajectories = make_trajectories(length=400)
    states = states_of(trajectories)
    assert states.counts == [2, 2, 2, 2]
    for number in range(16):
        state = states.at(number, 0.0)
        assert state.trajectory.id == trajectories[number % 8 // 2].id
        assert state.on_policy == (number % 2 == 1)
        assert state.is_entry.all()  # masked or not
        assert 0.65 < (state.canvas == MASK).mean() < 0.85
        assert not np.array_equal(state.canvas, states.at(number ^ 1, 0.0).canvas)


@pytest.mark.parametrize("split", [[6], [2, 3, 1]])
@pytest.mark.parametrize("block", [None, 3])
def test_loss_and_gradient_are_the_slow_formula(
    split: list[int], block: int | None, make_adapted: Any, make_trajectories: Callable[..., Any]
) -> None:
    model = make_adapted(causal_block_length=block, suppress_token_ids=[SUPPRESSED])

    def logits_of(state: Any, canvas: Any) -> Tensor:
        if block is None:
            return responses_logits(model, state.trajectory.prompt_ids, canvas)
        return block_logits(model, state.trajectory, canvas)

    objective, states = OPUTObjective(model, OPUTSettings()), states_of(make_trajectories(), noise_ratio=0.5)
    chosen = [states.at(number, 0.0) for number in range(6)]
    samples, loss = iter(objective.samples(chosen, 0.0)), torch.zeros((), dtype=torch.float64)
    for size in split:
        batch = objective.micro_batch([next(samples) for _ in range(size)]).to("cpu")
        part, values = objective(batch)
        assert values["ce"] == part
        part.backward()
        loss += part.detach()
    found = gradients(model)

    model.zero_grad()
    expected, changed = torch.zeros((), dtype=torch.float64), 0
    for state in chosen:
        canvas = state.canvas.copy()
        if state.on_policy:
            with torch.no_grad():
                logits = logits_of(state, canvas)
            logits[:, [MASK, SUPPRESSED]] = -torch.inf
            canvas = np.where(canvas == MASK, logits.argmax(-1).numpy(), canvas)
            changed += int((canvas != state.trajectory.response_ids).sum())
        labels = torch.from_numpy(state.trajectory.response_ids).long()
        expected = expected + cross_entropy(logits_of(state, canvas), labels) / 6
    expected.backward()
    torch.testing.assert_close(loss, expected.detach(), **(ROTATED if block else {"rtol": 1e-9, "atol": 1e-12}))
    torch.testing.assert_close(found, gradients(model), **(ROTATED if block else {"rtol": 1e-8, "atol": 1e-12}))
    assert changed > 3  # wrong tokens are learnt to be mended


def test_the_models_own_tokens_are_told_without_dropout(make_adapted: Any, make_trajectories: Any) -> None:
    model = make_adapted(attention_dropout=0.5)
    objective, states = OPUTObjective(model, OPUTSettings()), states_of(make_trajectories())
    batch = objective.micro_batch(objective.samples([states.at(number, 0.0) for number in range(8)], 0.0))
    told = objective.student_inputs(batch)["input_ids"]
    objective.train()
    before = torch.get_rng_state()
    assert torch.equal(objective.student_inputs(batch)["input_ids"], told)
    assert torch.equal(torch.get_rng_state(), before)
    assert objective.model.training
    assert (told == MASK).any(dim=1).tolist() == [True, False] * 4


def test_it_is_trained_by_its_name(job: Callable[..., DistillConfig]) -> None:
    config = job(objective="oput", noise_ratio=0.5, epochs=2, batch_size=2, log_every=1)
    steps = distill(config).history
    assert [step.totals for step in steps] == [{"states": 4, "entries": 32}] * 4
    assert all(step.parts == {"ce": step.loss} and step.loss > 0 for step in steps)
    assert steps[0].watched["entries"]["confidence"] > 0


def test_a_batch_in_which_nothing_becomes_the_models_own(make_adapted: Any, make_trajectories: Any) -> None:
    objective, states = OPUTObjective(make_adapted(), OPUTSettings()), states_of(make_trajectories())
    samples = objective.samples([states.at(0, 0.0), states.at(1, 0.0)], 0.0)
    batch = objective.micro_batch(samples[:1])
    assert torch.equal(objective.student_inputs(batch)["input_ids"], batch.student.input_ids)
    loss, _ = objective(objective.micro_batch(samples[1:]).without_entries())
    loss.backward()
    assert loss == 0
