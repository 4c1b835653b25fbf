"""Certainty forcing by hand, and against its formula written out."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from slow_losses import MASK, gradients, responses_logits
from torch import Tensor, nn

from tad_ext.data.trajectories.states import TrajectoryStates
from tad_ext.distillation import certainty
from tad_ext.distillation.samples import MicroBatch
from tad_ext.distillation.settings import objective_class
from tad_ext.jobs.distill.config import DistillConfig
from tad_ext.jobs.distill.run import distill

SETTINGS: dict[str, dict[str, Any]] = {
    "dparallel": {"block_length": 5, "entropy_weight": 1.7, "entropy_temperature": 0.6},
    "d3llm": {"block_lengths": (3, 5), "entropy_weight": 1.7, "entropy_temperature": 0.6},
}


def test_doubts_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits (2, 0) and (0, 1) of two tokens, label 0: right with p = 1 / (1 + e^-2), wrong with p = 1 / (1 + e)."""
    monkeypatch.setattr(certainty, "CHUNK_ROWS", 1)
    head = nn.Linear(2, 2, bias=False).double()
    head.weight.data = torch.eye(2, dtype=torch.float64)
    hidden = torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    found = certainty.doubts(hidden, head, torch.tensor([0, 0]), 0.5)
    assert found.right.tolist() == [True, False]
    assert found.ce.tolist() == pytest.approx([math.log(1 + math.exp(-2)), math.log(1 + math.e)], rel=1e-12)
    p = 1 / (1 + math.exp(-4))  # of the first at temperature 0.5
    assert found.entropy[0].item() == pytest.approx(-p * math.log(p) - (1 - p) * math.log(1 - p), rel=1e-12)
    # dH/dz = -p (1 - p) z / T^2 of logits (z, 0): with z = 2, -4 * 2 * p (1 - p).
    (gradient,) = torch.autograd.grad(found.entropy[0], hidden)
    assert gradient[0].tolist() == pytest.approx([-8 * p * (1 - p), 8 * p * (1 - p)], rel=1e-10)


def right_sometimes(trajectories: list[Any], model: Any) -> None:
    """Puts what the model says of an empty canvas into every second place, so that some predictions are right."""
    for trajectory in trajectories:
        logits = responses_logits(model, trajectory.prompt_ids, torch.full((8,), MASK))
        trajectory.response_ids[::2] = logits[::2, :MASK].argmax(-1)


def slow_loss(name: str, model: Any, states: list[Any], settings: Any) -> Tensor:
    zero = torch.zeros((), dtype=torch.float64)
    total = zero
    for state in states:
        for canvas in (state, state.complement):
            logits = responses_logits(model, canvas.trajectory.prompt_ids, canvas.canvas)
            ce, entropies = [], []
            for place in canvas.is_entry.nonzero()[0].tolist():
                label = int(canvas.trajectory.response_ids[place])
                ce.append(-logits[place].log_softmax(-1)[label])
                if int(logits[place].argmax()) == label:
                    p = (logits[place] / settings.entropy_temperature).softmax(-1)
                    entropies.append(-(p * p.log()).sum())
            total = total + (sum(ce) / len(ce) if ce else zero)
            if entropies and (name == "dparallel" or canvas is state):
                total = total + settings.entropy_weight * sum(entropies) / len(entropies)
    return total / len(states) / (1 if name == "dparallel" else 4)


@pytest.mark.parametrize("split", [[10], [1, 4, 2, 3], [2] * 5])
@pytest.mark.parametrize("name", SETTINGS)
def test_loss_and_gradient_are_the_slow_formula(
    name: str,
    split: list[int],
    make_adapted: Any,
    make_trajectories: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(certainty, "CHUNK_ROWS", 3)
    trajectories, model = make_trajectories(), make_adapted()
    right_sometimes(trajectories, model)
    kind = objective_class(name)
    objective = kind(model, kind.Settings(**SETTINGS[name]))
    states = kind.states(TrajectoryStates(trajectories, mask_token_id=MASK), objective.settings, 1)
    chosen: list[Any] = [states.at(number, 0.3) for number in (0, 1, 2, 3, 7)]

    samples, sums = iter(objective.samples(chosen, 0.3)), torch.zeros(4, dtype=torch.float64)
    for size in split:
        loss, parts = objective(MicroBatch.of([next(samples) for _ in range(size)], objective.asks_teacher))
        loss.backward()
        sums += torch.stack([loss, *parts.values()]).detach()
    found = gradients(model)
    assert sums.min() > 0.01
    scale = 1 if name == "dparallel" else 0.25
    assert float(sums[0]) == pytest.approx(scale * float(sums[1] + sums[2] + 1.7 * sums[3]), rel=1e-12)

    model.zero_grad()
    expected = slow_loss(name, model, chosen, objective.settings)
    expected.backward()
    torch.testing.assert_close(sums[0], expected.detach(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found, gradients(model), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_batch_without_entries_gives_zero_gradients(
    name: str, make_adapted: Any, make_trajectories: Callable[..., Any]
) -> None:
    kind, model = objective_class(name), make_adapted()
    objective = kind(model, kind.Settings())
    states = kind.states(TrajectoryStates(make_trajectories(), mask_token_id=MASK), objective.settings, 1)
    batch = MicroBatch.of(objective.samples([states.at(0, 0.0)], 0.0)).without_entries()
    loss, parts = objective(batch)
    loss.backward()
    assert [loss, *parts.values()] == [0, 0, 0, 0]
    assert all(not gradient.any() for gradient in gradients(model).values())


@pytest.mark.parametrize("name", SETTINGS)
def test_they_are_trained_by_their_names(job: Callable[..., DistillConfig], name: str) -> None:
    """4 trajectories are 8 canvases: two micro-batches of 4. The last blocks of 8 positions are the shortest."""
    (step,) = distill(job(objective=name, **SETTINGS[name], dropout=0.0)).history
    assert step.totals["states"] == 8
    assert step.totals["masked"] + step.totals["complement"] >= 4 * {"dparallel": 3, "d3llm": 2}[name]
