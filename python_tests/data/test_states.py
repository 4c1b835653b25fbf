"""States are rebuilt from reveal steps, and a batch's positions, rows and labels point at what they say."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tad_ext.data.ragged import Ragged
from tad_ext.data.trajectories.files import Trajectory
from tad_ext.data.trajectories.states import TrajectoryStates, collate, teacher_side

MASK = 99


def trajectory(
    reveal_step: list[int], *, prompt: list[int] | None = None, reference: list[int] | None = None
) -> Trajectory:
    return Trajectory(
        sample=0,
        id="p",
        task="t",
        prompt_ids=[1, 2] if prompt is None else prompt,
        teacher_prompt_ids=(reference or [7, 8, 9]) + ([1, 2] if prompt is None else prompt),
        response_ids=[10 + index for index in range(len(reveal_step))],
        reveal_step=reveal_step,
        num_steps=max(reveal_step),
        correct=True,
        answer=None,
        reference="",
    )


@st.composite
def trajectories(draw: st.DrawFn) -> Trajectory:
    length = draw(st.integers(1, 7))
    steps = draw(st.lists(st.integers(1, 5), min_size=length, max_size=length))
    tokens = st.lists(st.integers(0, 9), max_size=4)
    return trajectory(steps, prompt=draw(tokens), reference=draw(st.lists(st.integers(0, 9), min_size=1, max_size=4)))


def test_every_state_of_every_trajectory_in_order() -> None:
    states = TrajectoryStates([trajectory([2, 1, 3]), trajectory([1, 1])], mask_token_id=MASK)
    assert len(states) == 4
    canvases = [states[index].canvas.tolist() for index in range(4)]
    assert canvases == [[MASK, MASK, MASK], [MASK, 11, MASK], [10, 11, MASK], [MASK, MASK]]
    assert [states[index].steps_to_reveal.tolist() for index in range(4)] == [[2, 1, 3], [1, 0, 2], [0, -1, 1], [1, 1]]
    for index in (-1, 4):
        with pytest.raises(IndexError, match=r"must lie in 0\.\.3"):
            states[index]


@pytest.mark.parametrize(
    ("tail", "entries"),
    [
        ("all", [[0, 1, 2, 3], [0, 1, 2], [0, 1], [0]]),
        ("one", [[0, 1, 2], [0, 1, 2], [0, 1], [0]]),
        ("none", [[0, 1], [0, 1], [0, 1], [0]]),
    ],
)
def test_the_tail_behind_the_end_may_be_left_out(tail: Any, entries: list[list[int]]) -> None:
    item = trajectory([4, 3, 2, 1])  # 10 11 12 13, of which 11 and 13 end a response
    states = TrajectoryStates([item, item], mask_token_id=MASK, eos_token_ids=[11, 13], tail=tail)
    found = [np.flatnonzero(states[index].steps_to_reveal > 0).tolist() for index in range(len(states))]
    assert found == entries * 2
    assert [state.canvas.tolist() for state in states][:4] == [item.canvas_at(step, MASK).tolist() for step in range(4)]
    assert collate([states[1]]).labels.tolist() == [10 + place for place in entries[1]]


def test_states_without_anything_to_learn_are_no_states() -> None:
    early, late = trajectory([1, 2, 3, 4]), trajectory([3, 4, 1, 2])
    for tail, counts in (("all", [4, 4]), ("one", [3, 4]), ("none", [2, 4])):
        for item, count in zip((early, late), counts, strict=True):
            assert len(TrajectoryStates([item], mask_token_id=MASK, eos_token_ids=[11], tail=tail)) == count
    assert len(TrajectoryStates([early], mask_token_id=MASK, eos_token_ids=[77], tail="none")) == 4


@given(trajectories(), st.sampled_from(["one", "none"]), st.sets(st.integers(10, 16)))
def test_every_state_has_entries_and_no_entry_is_lost(item: Trajectory, tail: Any, ends: set[int]) -> None:
    states = TrajectoryStates([item], mask_token_id=MASK, eos_token_ids=ends, tail=tail)
    steps = [states[index].steps_to_reveal for index in range(len(states))]
    assert all((remaining > 0).any() for remaining in steps)
    length = next((place + 1 + (tail == "one") for place, token in enumerate(item.response_ids) if token in ends), 99)
    every = [item.steps_to_reveal(step)[:length] for step in range(item.num_steps)]
    assert [one[one > 0].tolist() for one in steps] == [one[one > 0].tolist() for one in every if (one > 0).any()]


def test_a_hand_made_batch() -> None:
    states = TrajectoryStates(
        [trajectory([2, 1, 3]), trajectory([1, 1], prompt=[5], reference=[6])], mask_token_id=MASK
    )
    batch = collate([states[1], states[3], states[0]])
    assert batch.student.input_ids.tolist() == [[1, 2, MASK, 11, MASK], [5, MASK, MASK, 0, 0], [1, 2, MASK, MASK, MASK]]
    assert batch.student.lengths is not None
    assert batch.student.lengths.tolist() == [5, 3, 5]
    assert batch.student.positions.tolist() == [2, 4, 6, 7, 12, 13, 14]
    assert batch.labels.tolist() == [10, 12, 10, 11, 10, 11, 12]
    assert batch.steps_to_reveal.tolist() == [1, 2, 1, 1, 2, 1, 3]
    assert batch.state_index.tolist() == [0, 0, 1, 1, 2, 2, 2]
    # Of the second state nothing is asked, so its row needs no teacher, and what is left has one length.
    teacher = teacher_side(batch.states, [state.steps_to_reveal > 1 for state in batch.states])
    assert teacher.input_ids.tolist() == [[7, 8, 9, 1, 2, MASK, 11, MASK], [7, 8, 9, 1, 2, MASK, MASK, MASK]]
    assert teacher.lengths is None
    assert teacher.positions.tolist() == [7, 13, 15]


@settings(max_examples=60, deadline=None)
@given(st.lists(trajectories(), min_size=1, max_size=4), st.integers(0, 6), st.data())
def test_positions_rows_and_labels_belong_together(made: list[Trajectory], delta: int, data: st.DataObject) -> None:
    dataset = TrajectoryStates(made, mask_token_id=MASK)
    chosen = data.draw(st.lists(st.integers(0, len(dataset) - 1), min_size=1, max_size=5))
    states = [dataset[index] for index in chosen]
    batch = collate(states)
    distant = batch.steps_to_reveal > delta
    asked = [state.steps_to_reveal > delta for state in states]
    teacher = teacher_side(states, asked)

    def check(side: Ragged, prompts: list[np.ndarray], labels: torch.Tensor) -> None:
        ids, lengths, positions = side
        assert ids.shape[0] == len(prompts)
        assert (ids.flatten()[positions] == MASK).all()
        assert positions.tolist() == sorted(set(positions.tolist()))
        rows, columns = positions // max(ids.shape[1], 1), positions % max(ids.shape[1], 1)
        real = torch.full((len(prompts),), ids.shape[1]) if lengths is None else lengths
        assert (columns < real[rows]).all()
        starts = torch.tensor([len(prompt) for prompt in prompts], dtype=torch.int64)[rows]
        assert torch.equal(columns - starts + 10, labels)  # response_ids are 10, 11, 12, ...

    check(batch.student, [state.trajectory.prompt_ids for state in states], batch.labels)
    with_teacher = [
        state.trajectory.teacher_prompt_ids for state, wanted in zip(states, asked, strict=True) if wanted.any()
    ]
    check(teacher, with_teacher, batch.labels[distant])
    counts = [int((state.canvas == MASK).sum()) for state in states]
    assert batch.state_index.tolist() == [row for row, count in enumerate(counts) for _ in range(count)]
    # Every masked position is an entry.
    assert len(batch.labels) == sum(counts)
    assert sum(dataset.counts) == len(dataset)
    assert dataset.at(len(dataset) + chosen[0], 0.5).steps_to_reveal.tolist() == states[0].steps_to_reveal.tolist()


def test_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one trajectory"):
        TrajectoryStates([], mask_token_id=MASK)
    with pytest.raises(ValueError, match="'p' is unfinished: response_ids holds the mask id 11"):
        TrajectoryStates([trajectory([1, 2])], mask_token_id=11)
    with pytest.raises(ValueError, match="at least one state"):
        collate([])
