"""States are rebuilt from reveal steps, and a batch's positions, rows and labels point at what they say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tad_ext.data.trajectories import Trajectory, TrajectoryMetadata
from tad_ext.distillation.dataset import TrajectoryStates, check_fits, collate, shuffled

MASK = 99


def trajectory(
    reveal_step: list[int], *, prompt: list[int] | None = None, reference: list[int] | None = None
) -> Trajectory:
    return Trajectory(
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


def test_a_hand_made_batch() -> None:
    states = TrajectoryStates(
        [trajectory([2, 1, 3]), trajectory([1, 1], prompt=[5], reference=[6])], mask_token_id=MASK
    )
    batch = collate([states[1], states[3], states[0]], delta=1, pad_token_id=0)
    assert batch.student_input_ids.tolist() == [[1, 2, MASK, 11, MASK], [5, MASK, MASK, 0, 0], [1, 2, MASK, MASK, MASK]]
    assert batch.student_lengths is not None
    assert batch.student_lengths.tolist() == [5, 3, 5]
    assert batch.student_positions.tolist() == [2, 4, 6, 7, 12, 13, 14]
    # The second state has no distant entry, so its row needs no teacher, and what is left has one length.
    assert batch.teacher_input_ids.tolist() == [[7, 8, 9, 1, 2, MASK, 11, MASK], [7, 8, 9, 1, 2, MASK, MASK, MASK]]
    assert batch.teacher_lengths is None
    assert batch.teacher_positions.tolist() == [7, 13, 15]
    assert batch.teacher_rows.tolist() == [-1, 0, -1, -1, 1, -1, 2]
    assert batch.labels.tolist() == [10, 12, 10, 11, 10, 11, 12]
    assert batch.steps_to_reveal.tolist() == [1, 2, 1, 1, 2, 1, 3]
    assert batch.state_index.tolist() == [0, 0, 1, 1, 2, 2, 2]


@settings(max_examples=60, deadline=None)
@given(st.lists(trajectories(), min_size=1, max_size=4), st.integers(0, 6), st.data())
def test_positions_rows_and_labels_belong_together(made: list[Trajectory], delta: int, data: st.DataObject) -> None:
    dataset = TrajectoryStates(made, mask_token_id=MASK)
    chosen = data.draw(st.lists(st.integers(0, len(dataset) - 1), min_size=1, max_size=5))
    states = [dataset[index] for index in chosen]
    batch = collate(states, delta=delta)
    distant = batch.steps_to_reveal > delta

    for name, lengths, prompts in (
        ("student", batch.student_lengths, [state.prompt_ids for state in states]),
        ("teacher", batch.teacher_lengths, [s.teacher_prompt_ids for s in states if (s.steps_to_reveal > delta).any()]),
    ):
        ids, positions = getattr(batch, f"{name}_input_ids"), getattr(batch, f"{name}_positions")
        assert ids.shape[0] == len(prompts)
        assert (ids.flatten()[positions] == MASK).all()
        assert positions.tolist() == sorted(set(positions.tolist()))
        rows, columns = positions // max(ids.shape[1], 1), positions % max(ids.shape[1], 1)
        real = torch.full((len(prompts),), ids.shape[1]) if lengths is None else lengths
        assert (columns < real[rows]).all()
        starts = torch.tensor([len(prompt) for prompt in prompts], dtype=torch.int64)[rows]
        expected = batch.labels if name == "student" else batch.labels[distant]
        assert torch.equal(columns - starts + 10, expected)  # response_ids are 10, 11, 12, ...
    assert torch.equal(batch.state_index, batch.student_positions // batch.student_input_ids.shape[1])
    assert torch.equal(batch.teacher_rows[distant], torch.arange(int(distant.sum())))
    assert (batch.teacher_rows[~distant] == -1).all()
    # Every masked position is an entry, and the counts that normalise a global batch agree with it.
    assert len(batch.labels) == sum(int((state.canvas == MASK).sum()) for state in states)
    assert dataset.count_entries(chosen, delta=delta) == (int((~distant).sum()), int(distant.sum()))


def test_a_batch_without_entries_keeps_its_ids() -> None:
    states = TrajectoryStates([trajectory([2, 1, 3])], mask_token_id=MASK)
    batch = collate([states[0]], delta=1)
    empty = batch.without_entries()
    assert torch.equal(empty.student_input_ids, batch.student_input_ids)
    assert empty.labels.numel() == empty.student_positions.numel() == empty.teacher_positions.numel() == 0


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    first = shuffled(50, seed=1, epoch=0)
    torch.manual_seed(123)
    assert torch.equal(first, shuffled(50, seed=1, epoch=0))
    assert sorted(first.tolist()) == list(range(50))
    assert not torch.equal(first, shuffled(50, seed=1, epoch=1))
    assert not torch.equal(first, shuffled(50, seed=2, epoch=0))


def test_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one trajectory"):
        TrajectoryStates([], mask_token_id=MASK)
    with pytest.raises(ValueError, match="'p' is unfinished: response_ids holds the mask id 11"):
        TrajectoryStates([trajectory([1, 2])], mask_token_id=11)
    with pytest.raises(ValueError, match="at least one state"):
        collate([], delta=1)


class CharacterTokenizer:
    def __init__(self) -> None:
        self.special_tokens_map: dict[str, str] = {}

    def get_vocab(self) -> dict[str, int]:
        return {"a": 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask_token_id": 98}, "mask_token_id 99, the model's is 98"),
        (
            {"max_position_embeddings": 9},
            "teacher_prompt_ids and response_ids need 10 positions together, the model has 9",
        ),
        ({"vocab_size": 14}, "token id 14 is outside the vocabulary of 14"),
        ({"tokenizer_hash": "other"}, "another tokenizer"),
        ({}, None),
    ],
)
def test_trajectories_that_do_not_fit_the_model_are_refused(change: dict[str, Any], message: str | None) -> None:
    from tad_ext.models.tokenizers import tokenizer_hash

    tokenizer = CharacterTokenizer()
    metadata = TrajectoryMetadata(
        model="m",
        model_revision="r",
        tokenizer_hash=change.pop("tokenizer_hash", tokenizer_hash(tokenizer)),
        task="t",
        split="train",
        mask_token_id=MASK,
        gen_length=5,
        block_length=5,
        policy="topk:1",
        temperature=0.0,
        seed=0,
        stop_at_eos=False,
        dtype="float32",
    )
    config = SimpleNamespace(**{"mask_token_id": MASK, "max_position_embeddings": 10, "vocab_size": 100, **change})
    made = [trajectory(np.arange(1, 6).tolist())]
    if message is None:
        check_fits(metadata, made, config, tokenizer)
    else:
        with pytest.raises(ValueError, match=message):
            check_fits(metadata, made, config, tokenizer)
