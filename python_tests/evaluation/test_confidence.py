from dataclasses import replace

import numpy as np
import pytest
import torch

from tad_ext.data.trajectories.files import Trajectory
from tad_ext.evaluation import DecaySettings, confidence_by_distance

EVERY_STATE = DecaySettings(states_per_trajectory=9, bootstrap_samples=100)


def trajectory(prompt, tokens, reveal_step, extra=0):
    """`extra` prompt tokens after the first make prompts of different lengths."""
    return Trajectory(
        sample=0,
        id=f"{prompt}-{extra}",
        task="words",
        prompt_ids=[prompt] + [0] * extra,
        teacher_prompt_ids=[prompt, 3],
        response_ids=tokens,
        reveal_step=reveal_step,
        num_steps=max(reveal_step),
        correct=True,
        answer="",
        reference="",
    )


def test_the_mean_over_all_states_by_hand(scripted_model):
    # Revealed in the order of columns 2, 0, 1, with confidence 0.2, 0.5, 0.8 in columns 0, 1, 2.
    model = scripted_model({0: [1, 2, 3]}, {0: [0.2, 0.5, 0.8]})
    decay = confidence_by_distance(model, [trajectory(0, [1, 2, 3], [2, 3, 1])], EVERY_STATE)
    # Distance 1: column 2 at state 0, column 0 at state 1, column 1 at state 2. Distance 3: column 1 at state 0.
    assert decay.distances == [1, 2, 3]
    assert decay.counts == [3, 2, 1]
    assert decay.confidence == pytest.approx([(0.8 + 0.2 + 0.5) / 3, (0.2 + 0.5) / 2, 0.5])


def test_it_asks_for_the_trajectorys_token_not_for_the_best_one(scripted_model):
    model = scripted_model({0: [1, 1, 1]}, {0: [0.9, 0.9, 0.9]})
    decay = confidence_by_distance(model, [trajectory(0, [2, 2, 2], [1, 2, 3])], EVERY_STATE)
    assert decay.confidence == pytest.approx([0.02] * 3, rel=1e-4)


def test_states_show_the_students_prompt_and_what_was_revealed(scripted_model):
    model = scripted_model({0: [1, 2, 3]}, {0: [0.2, 0.5, 0.8]})
    confidence_by_distance(model, [trajectory(0, [1, 2, 3], [2, 3, 1])], EVERY_STATE)
    mask = model.config.mask_token_id
    (inputs,) = model.inputs
    states = sorted(map(tuple, inputs.tolist()))
    assert states == sorted([(0, mask, mask, mask), (0, mask, mask, 3), (0, 1, mask, 3)])


def test_the_batch_size_changes_nothing(scripted_model):
    # A prompt of two tokens reads its column confidences one place off, which is all the same to this test.
    def decay(batch_size):
        model = scripted_model({0: [1, 2, 3], 1: [1, 2, 3, 0]}, {0: [0.2, 0.5, 0.8], 1: [0.3, 0.6, 0.7, 0.4]})
        model_rows = [trajectory(0, [1, 2, 3], [2, 3, 1]), trajectory(1, [2, 3, 0], [1, 2, 3], extra=1)]

        class RowByRow:
            config, device = model.config, model.device

            def __call__(self, input_ids, *, lengths=None, positions=None):
                real = [input_ids.shape[1]] * len(input_ids) if lengths is None else lengths.tolist()
                logits = torch.zeros(*input_ids.shape, model.config.vocab_size)
                for row, length in enumerate(real):
                    own = torch.arange(length)
                    logits[row, :length] = model(input_ids[row : row + 1, :length], positions=own).logits
                return type("Output", (), {"logits": logits.flatten(0, 1)[positions]})

        return confidence_by_distance(RowByRow(), model_rows, replace(EVERY_STATE, batch_size=batch_size))

    one, all_ = decay(1), decay(8)
    assert one.counts == all_.counts == [6, 4, 2]
    assert one.confidence == pytest.approx(all_.confidence)


def test_distances_beyond_the_limit_are_left_out(scripted_model):
    model = scripted_model({0: [1, 2, 3]}, {0: [0.2, 0.5, 0.8]})
    decay = confidence_by_distance(model, [trajectory(0, [1, 2, 3], [2, 3, 1])], replace(EVERY_STATE, max_distance=2))
    assert decay.distances == [1, 2]
    assert decay.counts == [3, 2]


def test_the_draw_of_states_follows_the_seed(scripted_model):
    model = scripted_model({0: [1, 2, 3]}, {0: [0.2, 0.5, 0.8]})
    rows = [trajectory(0, [1, 2, 3], [2, 3, 1], extra=0)] * 5

    def draw(seed):
        return confidence_by_distance(model, rows, DecaySettings(states_per_trajectory=1, seed=seed))

    assert draw(1) == draw(1)
    assert any(draw(1) != draw(seed) for seed in range(2, 6))
    assert sum(draw(1).counts) < sum(confidence_by_distance(model, rows, EVERY_STATE).counts)


def test_intervals_are_over_problems(scripted_model):
    # Both have one position at each distance in every state; the one's tokens are certain, the other's are not.
    model = scripted_model({0: [1, 2, 3], 1: [1, 2, 3]}, {0: [0.9] * 3, 1: [0.1] * 3})
    rows = [replace(trajectory(prompt, [1, 2, 3], [1, 2, 3]), id=str(prompt)) for prompt in (0, 1)]
    decay = confidence_by_distance(model, rows, EVERY_STATE)
    assert decay.problems == 2
    assert decay.counts == [6, 4, 2]
    of_one_problem = confidence_by_distance(model, [replace(row, id="a") for row in rows], EVERY_STATE)
    assert of_one_problem.problems == 1
    assert of_one_problem.intervals == [[one, one] for one in of_one_problem.confidence]
    for confidence, interval in zip(decay.confidence, decay.intervals, strict=True):
        assert confidence == pytest.approx(0.5)
        assert interval == pytest.approx([0.1, 0.9])


def test_a_maximum_that_no_position_is_within_is_named(scripted_model):
    rows = [trajectory(0, [1, 2, 3], [3, 3, 3])]
    seed = next(seed for seed in range(9) if np.random.default_rng(seed).permutation(3)[0] == 0)
    with pytest.raises(ValueError, match="max_distance is 2: no state drawn has a position that near"):
        confidence_by_distance(
            scripted_model({0: [1, 2, 3]}, {0: [0.5] * 3}),
            rows,
            DecaySettings(max_distance=2, states_per_trajectory=1, seed=seed),
        )


def test_no_trajectories(scripted_model):
    with pytest.raises(ValueError, match="trajectories must hold at least one"):
        confidence_by_distance(scripted_model({}, {}), [])
