"""TAD's ablations against the slow formula of TAD's two kinds of terms, and what each of them takes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from slow_losses import MASK, gradients, mean, micro_batches, slow_terms
from torch import Tensor

from tad_ext.data.trajectories.states import TrajectoryStates
from tad_ext.distillation import TADSettings
from tad_ext.distillation.adapter_run import used_settings
from tad_ext.distillation.settings import objective_class
from tad_ext.jobs.distill.config import DistillConfig
from tad_ext.jobs.distill.run import distill

DELTA, INDICES = 3, [0, 3, 7, 8, 14, 15, 20, 26]

# What each learns of the terms of a state, near and distant ones, that TAD has at a delta.
ABLATIONS = {
    "ce_all": ({}, 100, lambda near, distant: near),
    "kl_all": ({"temperature": 2.0}, 0, lambda near, distant: distant),
    "ce_near": ({"delta": DELTA}, DELTA, lambda near, distant: near),
}


@pytest.mark.parametrize("normalization", ["micro_batch", "tokens", "state"])
@pytest.mark.parametrize("name", ABLATIONS)
def test_loss_and_gradient_are_the_slow_formula(
    name: str, normalization: Any, make_adapted: Any, make_model: Any, make_trajectories: Callable[..., Any]
) -> None:
    given, delta, chosen = ABLATIONS[name]
    dataset, model, plain = TrajectoryStates(make_trajectories(), mask_token_id=MASK), make_adapted(), make_model()
    objective = objective_class(name)
    trained = objective(model, objective.Settings(**given, normalization=normalization, group_size=3))
    sums, parts = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for batch in micro_batches(trained, dataset, [INDICES[:3], INDICES[3:]]):
        loss, values = trained(batch)
        loss.backward()
        sums, parts = sums + loss.detach(), parts + values[next(iter(trained.parts))]
    found = gradients(model)

    model.zero_grad()
    settings = TADSettings(delta=delta, temperature=given.get("temperature", 1.0))
    states: list[list[Tensor]] = [
        chosen(*slow_terms(model, plain.double(), dataset[index], settings)) for index in INDICES
    ]
    size = {"micro_batch": 3, "tokens": len(states), "state": 1}[normalization]
    groups = [states[first : first + size] for first in range(0, len(states), size)]
    expected = mean([mean([term for state in group for term in state]) for group in groups])
    expected.backward()
    torch.testing.assert_close(sums, expected.detach(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(parts, expected.detach(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found, gradients(model), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("ce_all", ["delta", "delta_start", "ce_weight", "kl_weight", "temperature"]),
        ("kl_all", ["delta", "delta_start", "ce_weight", "kl_weight"]),
        ("ce_near", ["ce_weight", "kl_weight", "temperature"]),
    ],
)
def test_what_is_fixed_is_no_setting(job: Callable[..., DistillConfig], name: str, refused: list[str]) -> None:
    kept = used_settings(job(objective=name))
    assert {"normalization", "group_size"} <= kept.keys()
    assert not kept.keys() & set(refused)
    for setting in refused:
        with pytest.raises(ValueError, match=f"^{setting} is 1.*; objective '{name}' has no such setting"):
            used_settings(job(objective=name, **{setting: 1}))


@pytest.mark.parametrize("name", ABLATIONS)
def test_they_are_trained_by_their_names(job: Callable[..., DistillConfig], name: str) -> None:
    first, second = distill(job(objective=name, **ABLATIONS[name][0], max_steps=2, dropout=0.0)).history
    assert first.parts == {"kl" if name == "kl_all" else "ce": first.loss}
    assert second.loss != first.loss
    assert (first.totals["near"] == 0, first.totals["distant"] == 0) == (name == "kl_all", name == "ce_all")
