"""What each entry counts, and micro-batches: the teacher is asked about the right entries, and nothing is lost."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tad_ext.data.trajectories.states import TrajectoryStates
from tad_ext.distillation.samples import MicroBatch, Sample, mean_weights

MASK = 23


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), max_size=5), min_size=1, max_size=7), st.sampled_from([None, 1, 2, 3, 9]))
def test_weights_are_means_of_means(sides: list[list[int]], size: int | None) -> None:
    weights = mean_weights([np.array(one, dtype=np.int64) for one in sides], 3, size)
    values = [np.random.default_rng(number).normal(size=len(one)) for number, one in enumerate(sides)]
    step = size or len(sides)
    starts = range(0, len(sides), step)
    for side in range(3):
        means = []
        for start in starts:
            chosen = [
                value
                for one, own in zip(sides[start : start + step], values[start : start + step], strict=True)
                for where, value in zip(one, own, strict=True)
                if where == side
            ]
            means.append(sum(chosen) / len(chosen) if chosen else 0.0)
        found = sum(
            weight * value
            for one, own, kept in zip(sides, values, weights, strict=True)
            for where, value, weight in zip(one, own, kept, strict=True)
            if where == side
        )
        assert found == pytest.approx(sum(means) / len(means), abs=1e-12)


@pytest.mark.parametrize("asked", [(), (0,), (1,), (0, 1)])
def test_a_micro_batch(make_trajectories: Callable[..., Any], asked: tuple[int, ...]) -> None:
    dataset = TrajectoryStates(make_trajectories(), mask_token_id=MASK)
    random = np.random.default_rng(0)
    samples = []
    for index in (0, 7, 9, 30):
        count = int((dataset[index].steps_to_reveal > 0).sum())
        samples.append(Sample(dataset[index], random.integers(0, 2, count), random.random(count)))
    samples[1] = Sample(samples[1].state, np.zeros(1, dtype=np.int64), samples[1].weight)
    batch = MicroBatch.of(samples, asked)
    side = np.concatenate([sample.side for sample in samples])
    assert batch.side.tolist() == side.tolist()
    assert batch.weight.tolist() == np.concatenate([sample.weight for sample in samples]).tolist()
    wanted = np.isin(side, asked)
    if batch.teacher is None:
        assert not wanted.any()
        assert (batch.teacher_rows == -1).all()
        return
    assert batch.teacher_rows[wanted].tolist() == list(range(wanted.sum()))
    assert (batch.teacher_rows[~wanted] == -1).all()
    # The same token of the same trajectory is asked of both.
    student, teacher = batch.student, batch.teacher
    with_teacher = [sample for sample in samples if np.isin(sample.side, asked).any()]
    assert len(teacher.input_ids) == len(with_teacher)

    def places(ragged: Any, prompts: list[np.ndarray]) -> list[tuple[int, int]]:
        width = ragged.input_ids.shape[1]
        return [(place // width, place % width - len(prompts[place // width])) for place in ragged.positions.tolist()]

    asked_of_student = [
        place
        for place, chosen in zip(
            places(student, [sample.state.trajectory.prompt_ids for sample in samples]), wanted, strict=True
        )
        if chosen
    ]
    rows = [samples.index(sample) for sample in with_teacher]
    asked_of_teacher = places(teacher, [sample.state.trajectory.teacher_prompt_ids for sample in with_teacher])
    assert [(rows[row], column) for row, column in asked_of_teacher] == asked_of_student

    empty = batch.without_entries()
    assert torch.equal(empty.student.input_ids, batch.student.input_ids)
    assert empty.teacher is None
    assert empty.student.positions.numel() == empty.labels.numel() == empty.side.numel() == empty.weight.numel() == 0
