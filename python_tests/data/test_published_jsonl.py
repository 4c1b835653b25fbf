"""The published JSON lines: states become reveal steps, and what is written is read back as it was."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_trajectories import MASK, made_metadata, made_trajectory

from tad_ext.data.trajectories.published_jsonl import RecordReader, is_summary, reveal_steps, to_record

RUN = made_metadata()
MATH_QUESTION = "Question: {}\nReference Answer: {}\nAfter understanding the reference answer, please try {}"


class Spelling:
    """A tokenizer whose ids are code points and whose chat template puts brackets around messages."""

    chat_template = "yes"

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        return [ord(char) for char in text]

    def decode(self, ids: Any, **_: Any) -> str:
        return "".join(chr(one % 1000) for one in ids)

    def apply_chat_template(self, messages: list[dict[str, str]], **_: Any) -> str:
        return "".join(f"[{message['content']}]" for message in messages)


TOKENIZER = Spelling()


def reader(run: Any = RUN, **changes: Any) -> RecordReader:
    return RecordReader(TOKENIZER, MASK, RUN.tokenizer_hash, run, **changes)


def ids(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False)


def states(*rows: list[int]) -> dict[str, list[int]]:
    return {f"step{number}": row for number, row in enumerate(rows)}


LLADA = states([MASK] * 3, [MASK, 7, MASK], [5, 7, MASK], [5, 7, 6])
DREAM = states([MASK, 7, MASK], [5, 7, MASK], [5, 7, 6])  # from the first forward on


def math(**changes: Any) -> dict[str, Any]:
    question = MATH_QUESTION.format("How many?\nReally?", "Two\n#### 2", "it:")
    record = {
        "dataset_name": "gsm8k", "index": 12, "sample_id": 1, "prompt": f"[{question}]", "question": question,
        "answer_gt": 2.0, "pred": "2", "prompt_len": len(question) + 2, "trajectory": LLADA, "output_text": "2",
        "answer": "Two\n#### 2",
    }  # fmt: skip
    return record | changes


def code(**changes: Any) -> dict[str, Any]:
    record = {
        "row_id": 3, "sample_id": 0, "question": "Add.", "solution_ref": "a + b", "teacher_text": "Add. Like a + b",
        "trajectory": LLADA, "output_text": "```a + b```", "solution_code": "a + b",
    }  # fmt: skip
    return record | changes


@given(st.data(), st.integers(1, 12), st.integers(1, 9))
def test_what_is_written_is_read_back(data: st.DataObject, length: int, steps: int) -> None:
    tokens = st.integers(0, 2**31 - 1).filter(lambda one: one != MASK)
    reveal_step = data.draw(st.lists(st.integers(1, steps), min_size=length, max_size=length))
    run = made_metadata(
        gen_length=length, temperature=data.draw(st.floats(0, 2)), top_k=data.draw(st.none() | st.just(3))
    )
    item = made_trajectory(
        data.draw(st.text(min_size=1)),
        sample=data.draw(st.integers(0, 99)),
        prompt_ids=data.draw(st.lists(tokens, max_size=5)),
        teacher_prompt_ids=data.draw(st.lists(tokens, max_size=5)),
        response_ids=data.draw(st.lists(tokens, min_size=length, max_size=length)),
        reveal_step=reveal_step,
        num_steps=steps,
        correct=data.draw(st.booleans()),
        answer=data.draw(st.none() | st.text()),
        reference=data.draw(st.text()),
    )
    line = json.dumps(to_record(item, run, TOKENIZER))
    own_run, own = reader(None)(json.loads(line))
    assert (own_run, own_run.model, own) == (run, run.model, item)


def test_the_published_training_finds_its_keys() -> None:
    item = made_trajectory(response_ids=[5, 6, 7, 8])
    record = to_record(item, RUN, TOKENIZER)
    assert (record["prompt"], record["groundtruth"]) == (TOKENIZER.decode([1, 2]), "5 6 7")
    assert list(record["trajectory"]) == ["step0", "step1", "step2", "step3", "step4"]
    for step in range(4):
        assert record["trajectory"][f"step{step}"] == item.canvas_at(step, MASK).tolist()
    assert record["trajectory"]["step4"] == [5, 6, 7, 8]


@pytest.mark.parametrize(("trajectory", "shape"), [(LLADA, "llada"), (DREAM, "dream")])
def test_states_begin_with_masks_or_after_the_first_forward(trajectory: dict[str, list[int]], shape: str) -> None:
    _, item = reader()(math(trajectory=trajectory))
    assert item.response_ids.tolist() == [5, 7, 6], shape
    assert item.reveal_step.tolist() == [2, 1, 3]
    assert item.num_steps == 3


def test_a_line_of_the_published_math() -> None:
    run, item = reader()(math())
    assert (run.task, run.split, run.gen_length, run.temperature) == ("gsm8k", "train", 3, RUN.temperature)
    assert item.key == ("gsm8k-12", 1)
    assert (item.correct, item.answer, item.reference) == (True, "2", "Two\n#### 2")
    assert item.teacher_prompt_ids.tolist() == ids(math()["prompt"])
    assert TOKENIZER.decode(item.prompt_ids).startswith("[How many?\nReally?\n\nShow your work")
    assert reader(task="other", split="test")(math())[0].task == "other"
    assert reader()(math(dataset_split="test"))[0].split == "test"


def test_a_line_of_the_published_code() -> None:
    run, item = reader(task="kodcode")(code())
    assert run.task == "kodcode"
    assert item.key == ("kodcode-3", 0)
    assert (item.answer, item.reference) == ("a + b", "a + b")
    assert item.prompt_ids.tolist() == ids("[Add.]")
    assert item.teacher_prompt_ids.tolist() == ids("[Add. Like a + b]")


def without(record: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != key}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (without(math(), "trajectory"), "has no key 'trajectory'; its keys are answer, answer_gt, "),
        (math(trajectory={}), "has 0 states, but no 'step0'"),
        (math(trajectory={"step0": [1], "step2": [1]}), "has 2 states, but no 'step1'"),
        (math(trajectory=states([MASK] * 2, [5])), "'step1' must be a list of as many token ids as step0 has"),
        (math(trajectory=states([MASK], ["x"])), "the states must be lists of integers"),
        (math(trajectory=states([MASK] * 2, [5, MASK], [6, 7])), "state 2 changes position 0 from 5 to 6; expected"),
        (math(trajectory=states([MASK] * 2, [5, MASK], [MASK, 7])), f"state 2 changes position 0 from 5 to {MASK}"),
        (math(trajectory=states([MASK] * 2, [5, MASK])), f"the last state holds the mask id {MASK} at position 1"),
        (math(prompt_len=3), "tokens and prompt_len is 3: it was made with another tokenizer"),
        (math(question="How many?"), "'question' must be of the published form"),
        (math(sample_id="1"), "'sample_id' must be int, got '1'"),
        (code(), "does not say which task it is of; expected the setting task"),
    ],
)
def test_a_line_that_cannot_be_read(record: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reader()(record)


def test_a_line_that_does_not_say_how_it_was_decoded() -> None:
    with pytest.raises(ValueError, match="at which temperature it was decoded; expected the setting temperature"):
        reader(None)(math())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run": {}}, "expected the metadata fields"),
        ({"correct": "no"}, "'correct' must be bool, got 'no'"),
        ({"answer": 7}, "'answer' must be str or NoneType, got '7'"),
        ({"run": vars(made_metadata(tokenizer_hash="other"))}, "was made with tokenizer_hash 'other', the model's is"),
    ],
)
def test_an_own_line_that_was_changed(changes: dict[str, Any], message: str) -> None:
    record = to_record(made_trajectory(), RUN, TOKENIZER)
    record["tad_ext"] = record["tad_ext"] | changes
    with pytest.raises(ValueError, match=message):
        reader()(record)


def test_an_unfinished_response_is_not_written() -> None:
    with pytest.raises(ValueError, match=f"'a' is unfinished: response_ids holds the mask id {MASK}"):
        to_record(made_trajectory(response_ids=[5, MASK, 6, 7]), RUN, TOKENIZER)


def test_a_summary_is_no_trajectory() -> None:
    assert is_summary({"summary": "any_success", "solved": 1})
    assert not is_summary(math(summary="odd"))


def test_reveal_steps_where_a_forward_reveals_nothing() -> None:
    rows = np.array([[MASK, MASK], [MASK, MASK], [MASK, 8], [MASK, 8], [9, 8], [9, 8]])
    response_ids, reveal_step, num_steps = reveal_steps(rows, MASK)
    assert (response_ids.tolist(), reveal_step.tolist(), num_steps) == ([9, 8], [4, 2], 5)
