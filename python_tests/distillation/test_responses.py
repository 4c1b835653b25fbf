"""Responses masked by chance: what is masked, how often, and that it follows from the seed and the number alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tad_ext.data.trajectories.states import TrajectoryStates
from tad_ext.distillation.settings import objective_class

MASK, EOS = 23, 22
OBJECTIVES = ("sft",)


@pytest.fixture
def recorded(make_trajectories: Callable[..., Any]) -> TrajectoryStates:
    return TrajectoryStates(make_trajectories(length=40), mask_token_id=MASK)


def states_of(name: str, recorded: TrajectoryStates, seed: int = 0, **given: Any) -> Any:
    objective = objective_class(name)
    return objective.states(recorded, objective.Settings(**given), seed)


def canvases(state: Any) -> list[np.ndarray]:
    return [state.canvas, *([state.complement.canvas] if hasattr(state, "complement") else [])]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_state_follows_from_the_seed_and_its_number(name: str, recorded: TrajectoryStates) -> None:
    first, again, other = (states_of(name, recorded, seed) for seed in (3, 3, 4))
    assert first.counts == [1, 1, 1, 1]
    for number in (0, 5, 2, 4_000):
        one = canvases(first.at(number, 0.5))
        assert first.at(number, 0.5).trajectory is recorded.trajectories[number % 4]
        np.testing.assert_equal(canvases(again.at(number, 0.5)), one)
        assert not np.array_equal(canvases(other.at(number, 0.5)), one)
        assert not np.array_equal(canvases(first.at(number + 4, 0.5)), one)  # in the next epoch


@pytest.mark.parametrize("tail", ["all", "one", "none"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_entries_are_masked_learned_positions_and_nothing_else_is_changed(
    name: str, tail: Any, make_trajectories: Callable[..., Any]
) -> None:
    trajectories = make_trajectories(length=40)
    for trajectory in trajectories:
        trajectory.response_ids[13:] = EOS
    recorded = TrajectoryStates(trajectories, mask_token_id=MASK, eos_token_ids=(EOS,), tail=tail)
    learned = {"all": 40, "one": 15, "none": 14}[tail]
    states, seen = states_of(name, recorded), 0
    for number in range(200):
        state = states.at(number, number / 200)
        for one in (state, *([state.complement] if hasattr(state, "complement") else [])):
            assert (one.canvas.dtype, one.steps_to_reveal.dtype) == (np.int64, np.int64)
            shown = one.canvas != MASK
            np.testing.assert_array_equal(one.canvas[shown], one.trajectory.response_ids[shown])
            assert not (one.is_entry & shown).any()
            assert not one.is_entry[learned:].any()
            seen = max(seen, int(one.is_entry.nonzero()[0].max(initial=0)))
    assert seen == learned - 1


def test_the_probability_of_a_mask_is_drawn_evenly(recorded: TrajectoryStates) -> None:
    states = states_of("sft", recorded, min_mask_ratio=0.2)
    drawn = [states.at(number, 0.0) for number in range(4_000)]
    ratios = np.array([state.probability[0] for state in drawn])
    assert all((state.probability == ratio).all() for state, ratio in zip(drawn, ratios, strict=True))
    np.testing.assert_allclose(np.quantile(ratios, [0, 0.25, 0.5, 0.75, 1]), [0.2, 0.4, 0.6, 0.8, 1], atol=0.03)
    masked = np.array([(state.canvas == MASK).mean() for state in drawn])
    assert abs(np.mean((masked - ratios) / np.sqrt(ratios * (1 - ratios) / 40 + 1e-9))) < 0.1
