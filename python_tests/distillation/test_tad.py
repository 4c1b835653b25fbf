"""The objective against a slow formula in float64, and what each normalisation promises about splitting a batch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from slow_losses import MASK, Grads, gradients, mean, micro_batches, slow_terms
from torch import Tensor

from tad_ext.data.trajectories.states import TrajectoryStates
from tad_ext.distillation import TADObjective, TADSettings
from tad_ext.models.lora import base_model

DELTA = 3


@pytest.fixture
def dataset(make_trajectories: Callable[..., Any]) -> TrajectoryStates:
    return TrajectoryStates(make_trajectories(), mask_token_id=MASK)


# States of all kinds: fully masked, half way, and (of the last steps) without a distant entry.
INDICES = [0, 3, 7, 8, 14, 15, 20, 26]


def train_step(
    model: PeftModel, dataset: TrajectoryStates, settings: TADSettings, split: list[list[int]], teacher: Any = None
) -> tuple[Tensor, Grads]:
    """(loss, ce, kl) and gradients of a global batch cut into the micro-batches `split`."""
    model.zero_grad()
    objective = TADObjective(model, settings, teacher)
    sums = torch.zeros(3, dtype=torch.float64)
    for batch in micro_batches(objective, dataset, split):
        loss, parts = objective(batch)
        loss.backward()
        sums += torch.stack([loss.detach(), parts["ce"].detach(), parts["kl"].detach()])
    return sums, gradients(model)


def slow_step(model: PeftModel, plain: Any, dataset: TrajectoryStates, settings: TADSettings) -> tuple[Tensor, Grads]:
    """The named means written out, one state and one entry at a time."""
    model.zero_grad()
    states = [slow_terms(model, plain, dataset[index], settings) for index in INDICES]
    size = {"micro_batch": settings.group_size, "tokens": len(states), "state": 1}[settings.normalization]
    parts = [states[first : first + size] for first in range(0, len(states), size)]
    groups = [([x for near, _ in part for x in near], [x for _, far in part for x in far]) for part in parts]
    ce, kl = mean([mean(near) for near, _ in groups]), mean([mean(far) for _, far in groups])
    loss = settings.ce_weight * ce + settings.kl_weight * kl
    loss.backward()
    return torch.stack([loss, ce, kl]).detach(), gradients(model)


def assert_same(found: tuple[Tensor, Grads], expected: tuple[Tensor, Grads]) -> None:
    torch.testing.assert_close(found[0], expected[0], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-8, atol=1e-12)


SPLITS = {
    "whole": [INDICES],
    "quarters": [INDICES[at : at + 2] for at in (0, 2, 4, 6)],
    "ragged": [INDICES[:1], INDICES[1:6], INDICES[6:]],
}


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)
@pytest.mark.parametrize(
    ("normalization", "group_size"),
    [("micro_batch", 4), ("micro_batch", 3), ("micro_batch", 1), ("micro_batch", 50), ("tokens", 4), ("state", 4)],
)
def test_loss_and_gradient_are_the_slow_formula_however_a_batch_is_split(
    normalization: Any,
    group_size: int,
    split: list[list[int]],
    make_adapted: Any,
    make_model: Any,
    dataset: TrajectoryStates,
) -> None:
    means = {"normalization": normalization, "group_size": group_size}
    settings = TADSettings(delta=DELTA, ce_weight=0.7, kl_weight=1.3, temperature=2.0, **means)
    model, plain = make_adapted(), make_model().double()
    found = train_step(model, dataset, settings, split)
    assert found[0].min() > 0.01
    assert_same(found, slow_step(model, plain, dataset, settings))


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)
@pytest.mark.parametrize("delta", [0, DELTA, 50])
def test_another_model_may_be_the_teacher(
    split: list[list[int]], delta: int, make_adapted: Any, make_model: Any, dataset: TrajectoryStates
) -> None:
    """Of another width, too."""
    settings = TADSettings(delta=delta, ce_weight=0.7, kl_weight=1.3, temperature=2.0, normalization="tokens")
    model, other = make_adapted(), make_model(3, hidden_size=16).double().requires_grad_(False)
    found = train_step(model, dataset, settings, split, other)
    assert_same(found, slow_step(model, other, dataset, settings))


def test_normalizations_differ_and_some_are_the_same_by_another_name(
    make_adapted: Any, dataset: TrajectoryStates
) -> None:
    model = make_adapted()

    def loss(**means: Any) -> float:
        return float(train_step(model, dataset, TADSettings(delta=DELTA, **means), [INDICES])[0][0])

    published, tokens, state = (loss(normalization=name) for name in ("micro_batch", "tokens", "state"))
    assert min(abs(published - tokens), abs(published - state), abs(tokens - state)) > 1e-3
    assert loss(group_size=1) == pytest.approx(state, rel=1e-12)
    assert loss(group_size=len(INDICES)) == pytest.approx(tokens, rel=1e-12)


def test_delta_may_grow_during_the_training(make_adapted: Any, dataset: TrajectoryStates) -> None:
    objective = TADObjective(make_adapted(), TADSettings(delta=3, delta_start=1))
    steps = np.arange(1, 6)
    for progress, delta in ((0.0, 1), (0.33, 1), (0.34, 2), (0.66, 2), (0.67, 3), (0.999, 3)):
        assert objective.side_of(steps, progress).tolist() == [int(step > delta) for step in steps], progress


@pytest.mark.parametrize("normalization", ["micro_batch", "tokens", "state"])
@pytest.mark.parametrize("delta", [0, 100])
def test_one_side_may_be_empty(normalization: str, delta: int, make_adapted: Any, dataset: TrajectoryStates) -> None:
    settings = TADSettings(delta=delta, normalization=normalization)
    (loss, ce, kl), _ = train_step(make_adapted(), dataset, settings, SPLITS["quarters"])
    empty, full = (ce, kl) if delta == 0 else (kl, ce)
    assert empty == 0
    assert full > 0.01
    assert loss == full


def test_the_teacher_sees_the_states_with_distant_entries_only(
    make_adapted: Any, dataset: TrajectoryStates, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_adapted()
    seen: list[dict[str, Tensor]] = []
    run = base_model(model).hidden_rows

    def remember(**given: Tensor) -> Tensor:
        seen.append(given)
        return run(**given)

    monkeypatch.setattr(base_model(model), "hidden_rows", remember)
    objective = TADObjective(model, TADSettings(delta=DELTA))
    objective(*micro_batches(objective, dataset, [INDICES]))
    teacher, student = seen
    asked = [dataset[index] for index in INDICES if (dataset[index].steps_to_reveal > DELTA).any()]
    assert 0 < len(asked) == len(teacher["input_ids"]) < len(student["input_ids"]) == len(INDICES)
    assert len(teacher["positions"]) == sum(int((state.steps_to_reveal > DELTA).sum()) for state in asked)
    assert (teacher["input_ids"].flatten()[teacher["positions"]] == MASK).all()


def test_without_distant_entries_or_kl_no_teacher_is_asked(
    make_adapted: Any, dataset: TrajectoryStates, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_teacher(_: object) -> None:
        raise AssertionError("the teacher was asked")

    monkeypatch.setattr("tad_ext.distillation.objective.teacher", no_teacher)
    model = make_adapted()
    train_step(model, dataset, TADSettings(delta=100), [INDICES])
    _, ce, kl = train_step(model, dataset, TADSettings(delta=DELTA, kl_weight=0.0), [INDICES])[0]
    assert ce > 0.01
    assert kl == 0
    with pytest.raises(AssertionError, match="the teacher was asked"):
        train_step(model, dataset, TADSettings(delta=DELTA), [INDICES])


@pytest.mark.parametrize("normalization", ["micro_batch", "tokens", "state"])
def test_a_batch_without_entries_gives_zero_gradients(
    normalization: str, make_adapted: Any, dataset: TrajectoryStates
) -> None:
    model = make_adapted()
    objective = TADObjective(model, TADSettings(delta=DELTA, normalization=normalization))
    loss, parts = objective(micro_batches(objective, dataset, [[0], [1]])[0].without_entries())
    loss.backward()
    assert [loss, parts["ce"], parts["kl"]] == [0, 0, 0]
    assert all(not gradient.any() for gradient in gradients(model).values())


def test_the_teacher_gets_no_gradient_and_is_the_base(make_adapted: Any, dataset: TrajectoryStates) -> None:
    """With a fresh adapter the student IS the teacher; with the same prompt as well, the KL is exactly zero."""
    model = make_adapted()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.zero_()
    for trajectory in dataset.trajectories:
        object.__setattr__(trajectory, "teacher_prompt_ids", trajectory.prompt_ids)
    (_, _, kl), _ = train_step(model, dataset, TADSettings(delta=0), [[0]])
    assert abs(float(kl)) < 1e-15
    assert all(parameter.grad is None for parameter in model.parameters() if not parameter.requires_grad)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"delta": -1}, "delta must be an integer in .* got -1"),
        ({"delta": 1.5}, "delta must be an integer"),
        ({"ce_weight": -0.1}, "ce_weight must be a finite number in .* got -0.1"),
        ({"kl_weight": float("inf")}, "kl_weight must be"),
        ({"ce_weight": 0.0, "kl_weight": 0.0}, "nothing to learn"),
        ({"temperature": 0.0}, "temperature must be a finite number in .* got 0.0"),
        ({"delta": 2, "delta_start": 3}, "delta_start is 3, expected at most delta, 2"),
        ({"group_size": 0}, "group_size must be an integer in .* got 0"),
        ({"normalization": "batch"}, "normalization must be one of micro_batch, tokens, state, got 'batch'"),
    ],
)
def test_bad_settings_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError if change.get("delta") == 1.5 else ValueError, match=message):
        TADSettings(**change)
