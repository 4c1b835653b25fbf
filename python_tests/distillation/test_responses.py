"""Responses masked by chance: what is masked, how often, and that it follows from the seed and the number alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tad_ext.data.trajectories.states import TrajectoryStates
from tad_ext.distillation.settings import objective_class

MASK, EOS = 23, 22
SMALL: dict[str, dict[str, Any]] = {
    "sft": {}, "dparallel": {"block_length": 16}, "d3llm": {"block_lengths": (8, 16)}, "d2f": {}
}  # fmt: skip
OBJECTIVES = tuple(SMALL)


@pytest.fixture
def recorded(make_trajectories: Callable[..., Any]) -> TrajectoryStates:
    return TrajectoryStates(make_trajectories(length=40), mask_token_id=MASK)


def states_of(name: str, recorded: TrajectoryStates, seed: int = 0, **given: Any) -> Any:
    objective = objective_class(name)
    return objective.states(recorded, objective.Settings(**{**SMALL[name], **given}), seed)


def canvases(state: Any) -> list[np.ndarray]:
    return [state.canvas, *([state.complement.canvas] if hasattr(state, "complement") else [])]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_state_follows_from_the_seed_and_its_number(name: str, recorded: TrajectoryStates) -> None:
    first, again, other = (states_of(name, recorded, seed) for seed in (3, 3, 4))
    assert first.counts == [1, 1, 1, 1]
    for number in (0, 5, 2, 4_000):
        one = canvases(first.at(number, 0.5))
        assert first.at(number, 0.5).trajectory.id == recorded.trajectories[number % 4].id
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


def test_half_of_a_block_is_masked_and_everything_behind_it(recorded: TrajectoryStates) -> None:
    """40 positions in blocks of 16: the last one has 8."""
    states, firsts, shares = states_of("dparallel", recorded, block_length=16), [], []
    for number in range(900):
        state = states.at(number, 0.5)
        complement = state.complement
        block = np.flatnonzero(state.is_entry | complement.is_entry)
        first, end = int(block[0]), int(block[-1]) + 1
        assert (first, end) in ((0, 16), (16, 32), (32, 40))
        assert not (state.is_entry & complement.is_entry).any()
        assert len(block) == end - first
        for one in (state, complement):
            assert (one.canvas[:first] != MASK).all()
            assert (one.canvas[end:] == MASK).all()
            np.testing.assert_array_equal(one.canvas[first:end] == MASK, one.is_entry[first:end])
        firsts.append(first)
        shares.append(state.is_entry.sum() / len(block))
    np.testing.assert_allclose(np.bincount(firsts)[[0, 16, 32]] / 900, 1 / 3, atol=0.06)
    assert abs(np.mean(shares) - 0.5) < 0.02
    assert np.std(shares) > 0.05


def test_the_whole_canvas_may_be_the_block(recorded: TrajectoryStates) -> None:
    state = states_of("dparallel", recorded, block_length=256).at(0, 0.0)
    assert (state.is_entry ^ state.complement.is_entry).all()


def test_a_block_is_masked_in_the_teachers_order(recorded: TrajectoryStates) -> None:
    """Eight positions in blocks of 4, of which the teacher reveals 2, 0, 3, 1 and then 5, 4, 7, 6."""
    (trajectory,) = recorded.trajectories[:1]
    order = np.array([2, 0, 3, 1, 5, 4, 7, 6])
    object.__setattr__(trajectory, "reveal_step", np.argsort(order) + 1)
    object.__setattr__(trajectory, "response_ids", trajectory.response_ids[:8])
    one = TrajectoryStates([trajectory], mask_token_id=MASK)
    masked: dict[int, set[tuple[int, ...]]] = {0: set(), 4: set()}
    states = states_of("d3llm", one, block_lengths=(4,), mask_ratio_start=0.0, mask_ratio=0.9)
    for number in range(200):
        state = states.at(number, 0.0)
        first = 0 if state.complement.is_entry[:4].any() or state.is_entry[:4].any() else 4
        masked[first].add(tuple(np.flatnonzero(state.is_entry).tolist()))
    assert masked[0] == {(1,), (1, 3), (0, 1, 3), (0, 1, 2, 3)}
    assert masked[4] == {(6,), (6, 7), (4, 6, 7), (4, 5, 6, 7)}


def test_tokens_that_were_revealed_together_are_in_the_order_of_their_positions(recorded: TrajectoryStates) -> None:
    (trajectory,) = recorded.trajectories[:1]
    object.__setattr__(trajectory, "reveal_step", np.repeat([1, 2], 20))
    one = TrajectoryStates([trajectory], mask_token_id=MASK)
    state = states_of("d3llm", one, block_lengths=(40,), mask_ratio_start=0.25, mask_ratio=0.25).at(0, 0.0)
    assert np.flatnonzero(state.is_entry).tolist() == list(range(30, 40))


def test_shares_and_lengths_grow_during_the_training(recorded: TrajectoryStates) -> None:
    settings = objective_class("d3llm").Settings()
    # As published: at the beginnings of the epochs 1 to 6, and half way in between.
    lengths = [settings.block_length_at((number + 0.5 * half) / 6) for number in range(6) for half in (0, 1)]
    assert lengths == [16, 16, 16, 20, 24, 24, 24, 28, 32, 32, 32, 32]
    assert [settings.mask_ratio_at(progress) for progress in (0.0, 0.5)] == [0.0, 0.4]
    states = states_of("d3llm", recorded, block_lengths=(20, 20))
    for progress, least in ((0.0, 0.0), (0.5, 0.4), (0.99, 0.79)):
        for number in range(300):
            canvas = states.at(number, progress)
            random = np.random.default_rng((0, number, 1))
            first = 20 * int(random.integers(2))
            revealed = first + int((1 - (least + (0.8 - least) * random.random())) * 20)
            rank = canvas.trajectory.reveal_step - 1
            np.testing.assert_array_equal(canvas.is_entry[first : first + 20], rank[first : first + 20] >= revealed)


def test_probabilities_do_not_fall_from_block_to_block(recorded: TrajectoryStates) -> None:
    """40 positions in blocks of 16: three probabilities, of which each may rise by half of what is left."""
    states = states_of("d2f", recorded)
    drawn = [states.at(number, 0.0) for number in range(4_000)]
    probability = np.array([state.probability for state in drawn])
    blocks = probability[:, [0, 16, 32]]
    np.testing.assert_array_equal(probability, blocks.repeat([16, 16, 8], axis=1))
    quantiles = [0, 0.25, 0.5, 0.75, 1]
    np.testing.assert_allclose(np.quantile(blocks[:, 0], quantiles), [0.2, 0.325, 0.45, 0.575, 0.7], atol=0.02)
    rises = np.diff(blocks) / (0.7 - blocks[:, :1])
    for rise in rises.T:
        np.testing.assert_allclose(np.quantile(rise, quantiles), np.array(quantiles) / 2, atol=0.02)
    masked = np.array([state.canvas == MASK for state in drawn])
    surprise = (masked - probability) / np.sqrt(probability * (1 - probability))
    assert np.abs(surprise.mean(0)).max() < 4 / np.sqrt(len(drawn))
    for number, trajectory in enumerate(recorded.trajectories):
        seen = drawn[number].trajectory
        np.testing.assert_array_equal(seen.teacher_prompt_ids, trajectory.prompt_ids)
        assert len(trajectory.teacher_prompt_ids) > len(trajectory.prompt_ids)


def test_one_block_is_masked_with_one_probability(recorded: TrajectoryStates) -> None:
    state = states_of("d2f", recorded, causal_block_length=64).at(0, 0.0)
    assert len(set(state.probability)) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"causal_block_length": 0}, "causal_block_length must be"),
        ({"min_block_ratio": 0.0}, "min_block_ratio must be"),
        ({"max_block_ratio": 1.5}, "max_block_ratio must be"),
        ({"min_block_ratio": 0.8}, "min_block_ratio is 0.8, expected at most max_block_ratio, 0.7"),
    ],
)
def test_bad_settings_of_d2f_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        objective_class("d2f").Settings(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block_lengths": ()}, "block_lengths must hold at least one length, got an empty list"),
        ({"block_lengths": (16, 0)}, r"block_lengths\[1\] must be an integer in .* got 0"),
        ({"mask_ratio": 1.5}, "mask_ratio must be a finite number in .* got 1.5"),
        ({"mask_ratio_start": 0.9}, "mask_ratio_start is 0.9, expected at most mask_ratio, 0.8"),
        ({"entropy_weight": -1.0}, "entropy_weight must be"),
        ({"entropy_temperature": 0.0}, "entropy_temperature must be"),
    ],
)
def test_bad_settings_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        objective_class("d3llm").Settings(**change)
