"""What holds of every task that reads a file: order, examples, prompts, and a student that never sees the reference."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from task_files import RECORDS, TASKS, right_response, write_records

from tad_ext.data.tasks.task import Problem, chosen, get_task

SPLITS = {"mbpp": "train"}


@pytest.fixture(params=TASKS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def make(name: str, tmp_path: Path) -> Callable[..., Any]:
    """The task of the sample file, with some options; conversations, which have no plain text, are for chats."""

    def task(**options: Any) -> Any:
        plain = options.get("prompt_format") == "text"
        records = [record for record in RECORDS[name] if not (plain and "messages" in record)]
        return get_task(name, data=write_records(tmp_path / "sample.jsonl", records), **options)

    return task


def test_right_responses_are_accepted_and_others_not(name: str, make: Callable[..., Any]) -> None:
    task = make()
    problems = [one for split in ("train", "test") for one in task.problems(split)]
    responses = [right_response(name, record) for record in RECORDS[name]]
    for problem in problems:
        (right,) = {response for response in responses if task.is_correct(problem, response)}
        assert task.extract_answer(right) is not None
        assert not task.is_correct(problem, "")
        assert not task.is_correct(problem, "I do not know.")
    assert len({problem.id for problem in problems}) >= 5


def test_a_problem_that_is_appended_moves_no_other(name: str, tmp_path: Path) -> None:
    records = RECORDS[name]
    before = get_task(name, data=write_records(tmp_path / "a.jsonl", records[:-1])).problems("train", seed=5)
    after = get_task(name, data=write_records(tmp_path / "b.jsonl", records)).problems("train", seed=5)
    assert [one for one in after if one in before] == before
    assert len(after) == len(before) + 1
    reordered = get_task(name, data=write_records(tmp_path / "c.jsonl", records[::-1])).problems("train", seed=5)
    assert reordered == after


@given(st.lists(st.integers(), unique=True), st.integers(0, 9), st.integers(0, 9), st.integers())
def test_the_order_of_problems(numbers: list[int], limit: int, seed: int, more: int) -> None:
    problems = [Problem(str(number), "q", "r", "a") for number in numbers]
    order = chosen(problems, limit=None, seed=seed)
    assert sorted(one.id for one in order) == sorted(one.id for one in problems)
    assert chosen(problems[::-1], limit=limit, seed=seed) == order[:limit]
    longer = chosen([*problems, Problem(f"{more}x", "q", "r", "a")], limit=None, seed=seed)
    assert [one for one in longer if one in order] == order


def test_seeds_give_other_orders() -> None:
    problems = [Problem(str(number), "q", "r", "a") for number in range(20)]
    assert len({tuple(chosen(problems, limit=None, seed=seed)) for seed in range(5)}) == 5


FORMS = [("chat", "user"), ("chat", "system"), ("chat", "none"), ("text", "user"), ("text", "none")]


@pytest.mark.parametrize(("prompt_format", "form"), FORMS)
@pytest.mark.parametrize("shots", [0, 2])
@pytest.mark.parametrize("shape", ["llada", "dream"])
def test_only_the_teacher_sees_the_reference(
    name: str, shape: str, shots: int, prompt_format: str, form: str, make: Callable[..., Any],
    make_tokenizer: Callable[..., Any],
) -> None:  # fmt: skip
    task, tokenizer = make(shots=shots, prompt_format=prompt_format, teacher_prompt_form=form), make_tokenizer(shape)
    for problem in task.problems(SPLITS.get(name, "test")):
        # A short reference may stand in its question, so one that stands nowhere else takes its place.
        secret = "The secret reference is 918273645."
        marked = dataclasses.replace(problem, reference=secret)
        student, teacher = task.student_prompt(marked, tokenizer), task.teacher_prompt(marked, tokenizer)
        assert student == task.student_prompt(problem, tokenizer), "the reference changes nothing"
        assert secret not in tokenizer.decode(student)
        assert not contains(student, tokenizer.encode(secret, add_special_tokens=False))
        assert problem.question.strip() in tokenizer.decode(student)
        if form == "none":
            assert teacher == student
        else:
            assert contains(teacher, tokenizer.encode(secret, add_special_tokens=False))
            assert problem.question.strip() in tokenizer.decode(teacher)


def contains(ids: list[int], part: list[int]) -> bool:
    return any(ids[start : start + len(part)] == part for start in range(len(ids)))


@pytest.mark.parametrize("prompt_format", ["chat", "text"])
def test_examples_are_the_first_problems_and_are_not_asked(
    name: str, prompt_format: str, make: Callable[..., Any], make_tokenizer: Callable[..., Any]
) -> None:
    split, tokenizer = SPLITS.get(name, "test"), make_tokenizer("llada")
    task = make(shots=2, prompt_format=prompt_format)
    everything, asked = make(prompt_format=prompt_format).problems(split), task.problems(split)
    examples = asked[0].examples
    assert len(examples) == 2
    assert {one.id for one in asked} == {one.id for one in everything} - {one.id for one in examples}
    text = tokenizer.decode(task.student_prompt(asked[0], tokenizer))
    places = [text.index(one.question.strip()) for one in (*examples, asked[0])]
    assert places == sorted(places)
    shown = (task.text_response if prompt_format == "text" else task.chat_response)(examples[1])
    assert places[1] < text.index(shown.strip()) < places[2]
    with pytest.raises(ValueError, match=r"shots is 99, but data '.*' has [0-9] problems"):
        make(shots=99).problems(split)


def test_plain_text_needs_no_chat_template(
    make: Callable[..., Any], name: str, make_tokenizer: Callable[..., Any]
) -> None:
    tokenizer = make_tokenizer("dream", None)
    task = make(prompt_format="text")
    problem = task.problems(SPLITS.get(name, "test"))[0]
    assert task.student_prompt(problem, tokenizer)[0] == tokenizer.bos_token_id
    assert make().stop_strings == ()
    assert (task.stop_strings == ()) == (name in ("kodcode", "jsonl"))


PLAIN = {
    "gsm8k": "Question: {q0}\nAnswer: {r0}\n\nQuestion: {q1}\nAnswer:",
    "math": "Problem:\n{q0}\n\nSolution: {r0}\n\nProblem:\n{q1}\n\nSolution:",
    "humaneval": "{r0}\n\n{q1}",
    "mbpp": "{q0}\n[BEGIN]\n{r0}\n[DONE]\n\n{q1}\n[BEGIN]\n",
    "kodcode": "{q0}\n\n{r0}\n\n{q1}\n\n",
    "jsonl": "{q0}\n\n{r0}\n\n{q1}\n\n",
}


def test_plain_text_is_written_as_published(
    make: Callable[..., Any], name: str, make_tokenizer: Callable[..., Any]
) -> None:
    task, tokenizer = make(prompt_format="text", shots=1), make_tokenizer("dream")
    problem = task.problems(SPLITS.get(name, "test"))[0]
    (example,) = problem.examples
    text = tokenizer.decode(task.student_prompt(problem, tokenizer), skip_special_tokens=True)
    assert text == PLAIN[name].format(q0=example.question, r0=example.reference, q1=problem.question)


def test_repeated_problems_stand_once_and_two_answers_are_named(name: str, tmp_path: Path) -> None:
    records = RECORDS[name]
    data = write_records(tmp_path / "twice.jsonl", [*records, records[-1]])
    assert len(get_task(name, data=data).problems("train")) == len(
        get_task(name, data=write_records(tmp_path / "once.jsonl", records)).problems("train")
    )
    key, other = {
        "gsm8k": ("answer", "x\n#### 77"), "math": ("solution", "\\boxed{77}"), "humaneval": ("test", "assert 0"),
        "mbpp": ("test_list", ["assert 0"]), "kodcode": ("test", "def test_it(): assert 0"), "jsonl": ("answer", "no"),
    }[name]  # fmt: skip
    data = write_records(tmp_path / "both.jsonl", [*records, {**records[-1], key: other}])
    with pytest.raises(ValueError, match=rf"both.jsonl, line {len(records) + 1}: an earlier line has another answer"):
        get_task(name, data=data).problems("train")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt_format": "prose"}, "prompt_format must be one of chat, text, got 'prose'"),
        (
            {"prompt_format": "text", "teacher_prompt_form": "system"},
            "format text has no system message; expected user",
        ),
        ({"teacher_prompt_form": "tutor"}, "teacher_prompt must be one of user, system, none, got 'tutor'"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str, make: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)
