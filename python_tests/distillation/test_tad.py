"""The objective against a slow formula in float64, and what each normalisation promises about splitting a batch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from torch import Tensor

from tad_ext.data.trajectories.states import State, TrajectoryStates, collate
from tad_ext.distillation import TADObjective, TADSettings
from tad_ext.models.lora import base_model

MASK, DELTA = 23, 3
Grads = dict[str, Tensor]


@pytest.fixture
def dataset(make_trajectories: Callable[..., Any]) -> TrajectoryStates:
    return TrajectoryStates(make_trajectories(), mask_token_id=MASK)


# States of all kinds: fully masked, half way, and (of the last steps) without a distant entry.
INDICES = [0, 3, 7, 8, 14, 15, 20, 26]


def train_step(
    model: PeftModel, dataset: TrajectoryStates, settings: TADSettings, split: list[list[int]]
) -> tuple[Tensor, Grads]:
    """(loss, ce, kl) and gradients of a global batch cut into the micro-batches `split`."""
    model.zero_grad()
    objective = TADObjective(model, settings)
    totals = objective.totals(dataset, split)
    sums = torch.zeros(3, dtype=torch.float64)
    for part in split:
        loss, parts = objective(collate([dataset[index] for index in part]), totals)
        loss.backward()
        sums += torch.stack([loss.detach(), parts["ce"].detach(), parts["kl"].detach()])
    return sums, gradients(model)


def gradients(model: PeftModel) -> Grads:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad and p.grad is not None}
    assert len(found) == sum(parameter.requires_grad for parameter in model.parameters())
    return found


def slow_terms(model: PeftModel, plain: Any, state: State, settings: TADSettings) -> tuple[list[Tensor], list[Tensor]]:
    """CE of each near entry and KL of each distant one of one state, alone and unpadded, from whole logits."""

    def logits(of: Any, prompt: Any) -> Tensor:
        ids = torch.tensor([*prompt.tolist(), *state.canvas.tolist()])[None]
        return base_model(of)(ids).logits[0, len(prompt) :]

    student = logits(model, state.trajectory.prompt_ids)
    with torch.no_grad():
        teacher = logits(plain, state.trajectory.teacher_prompt_ids)
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
    return sum(values) / len(values) if values else torch.zeros((), dtype=torch.float64)  # type: ignore[return-value]


def slow_step(
    model: PeftModel, plain: Any, dataset: TrajectoryStates, settings: TADSettings, split: list[list[int]]
) -> tuple[Tensor, Grads]:
    """The named means written out, one state and one entry at a time."""
    model.zero_grad()
    parts = [[slow_terms(model, plain, dataset[index], settings) for index in part] for part in split]
    if settings.normalization == "micro_batch":
        groups = [([x for near, _ in part for x in near], [x for _, far in part for x in far]) for part in parts]
    elif settings.normalization == "tokens":
        groups = [([x for p in parts for near, _ in p for x in near], [x for p in parts for _, far in p for x in far])]
    else:
        groups = [terms for part in parts for terms in part]
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
@pytest.mark.parametrize("normalization", ["micro_batch", "tokens", "state"])
def test_loss_and_gradient_are_the_slow_formula(
    normalization: str, split: list[list[int]], make_adapted: Any, make_model: Any, dataset: TrajectoryStates
) -> None:
    settings = TADSettings(delta=DELTA, ce_weight=0.7, kl_weight=1.3, temperature=2.0, normalization=normalization)
    model, plain = make_adapted(), make_model().double()
    found = train_step(model, dataset, settings, split)
    assert found[0].min() > 0.01
    assert_same(found, slow_step(model, plain, dataset, settings, split))


@pytest.mark.parametrize("normalization", ["tokens", "state"])
def test_splitting_a_batch_changes_nothing(normalization: str, make_adapted: Any, dataset: TrajectoryStates) -> None:
    settings = TADSettings(delta=DELTA, normalization=normalization)
    model = make_adapted()
    whole = train_step(model, dataset, settings, SPLITS["whole"])
    for name in ("quarters", "ragged"):
        assert_same(train_step(model, dataset, settings, SPLITS[name]), whole)


def test_micro_batch_means_do_depend_on_the_split(make_adapted: Any, dataset: TrajectoryStates) -> None:
    settings, model = TADSettings(delta=DELTA), make_adapted()
    whole, _ = train_step(model, dataset, settings, SPLITS["whole"])
    ragged, _ = train_step(model, dataset, settings, SPLITS["ragged"])
    assert abs(float(whole[0] - ragged[0])) > 1e-3


@pytest.mark.parametrize("normalization", ["micro_batch", "tokens", "state"])
@pytest.mark.parametrize("delta", [0, 100])
def test_one_side_may_be_empty(normalization: str, delta: int, make_adapted: Any, dataset: TrajectoryStates) -> None:
    settings = TADSettings(delta=delta, normalization=normalization)
    (loss, ce, kl), _ = train_step(make_adapted(), dataset, settings, SPLITS["quarters"])
    empty, full = (ce, kl) if delta == 0 else (kl, ce)
    assert empty == 0
    assert full > 0.01
    assert loss == full


def test_totals_are_what_the_entries_say(make_adapted: Any, dataset: TrajectoryStates) -> None:
    totals = TADObjective(make_adapted(), TADSettings(delta=DELTA)).totals(dataset, SPLITS["ragged"])
    steps = np.concatenate([dataset[index].steps_to_reveal for index in INDICES])
    assert totals == {
        "micro_batches": 3,
        "states": 8,
        "near": ((steps > 0) & (steps <= DELTA)).sum(),
        "distant": (steps > DELTA).sum(),
    }


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
    objective(collate([dataset[index] for index in INDICES]), objective.totals(dataset, [INDICES]))
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

    monkeypatch.setattr("tad_ext.distillation.tad.teacher", no_teacher)
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
    loss, parts = objective(collate([dataset[0]]).without_entries(), objective.totals(dataset, [[0], [1]]))
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
        ({"normalization": "batch"}, "normalization must be one of micro_batch, tokens, state, got 'batch'"),
    ],
)
def test_bad_settings_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError if change.get("delta") == 1.5 else ValueError, match=message):
        TADSettings(**change)
