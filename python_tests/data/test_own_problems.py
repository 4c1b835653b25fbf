"""A user's own problems: prompts as they stand, five checks, and what is taken where nothing is said."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from problem_files import ROOT
from task_files import write_records

from tad_ext.data.tasks.task import get_task


def task_and_problem(tmp_path: Path, record: dict[str, Any]) -> tuple[Any, Any]:
    task = get_task("jsonl", data=write_records(tmp_path / "own.jsonl", [record]))
    (problem,) = task.problems("train")
    return task, problem


TESTS = "assert f() == 1"
F = "def f():\n    return 1"


@pytest.mark.parametrize(
    ("record", "check", "answer", "right", "wrong"),
    [
        # What is taken where nothing is said.
        ({"response": F, "tests": TESTS}, "code", TESTS, f"So:\n```python\n{F}\n```", "def f():\n    return 2"),
        ({"response": "r", "answer": "1,080"}, "number", "1080", "It is 1080.", "It is 1081."),
        ({"response": "r", "answer": 0.5}, "number", "1/2", "\\boxed{1/2}", "\\boxed{1/3}"),
        ({"response": "r", "answer": "Paris"}, "contains", "Paris", "Paris, of course", "Rome"),
        ({"response": "So \\boxed{48}."}, "number", "48", "That is 48", "That is 49"),
        ({"response": "So \\boxed{x+1}."}, "math", "x+1", "\\boxed{x+1}", "x+1"),
        ({"response": " yes "}, "exact", "yes", "yes\n", "yes."),
        # What is said.
        ({"response": "It is 7 now.", "check": "number"}, "number", "7", "seven: 7", "8"),
        ({"response": "r", "answer": "x", "check": "math"}, "math", "x", "\\boxed{x}", "x"),
        ({"response": "r", "answer": "3", "check": "exact"}, "exact", "3", "3", "3.0"),
        ({"response": "the end", "check": "contains"}, "contains", "the end", "This is the end.", "The end"),
        ({"response": F, "tests": TESTS, "check": "exact"}, "exact", F, f"{F}\n", "x"),
    ],
)
def test_checks(record: dict[str, Any], check: str, answer: str, right: str, wrong: str, tmp_path: Path) -> None:
    task, problem = task_and_problem(tmp_path, {"prompt": "q", **record})
    assert (problem.check, problem.answer, problem.reference) == (check, answer, record["response"].strip())
    assert task.is_correct(problem, right)
    assert not task.is_correct(problem, wrong)
    assert not task.is_correct(problem, "")
    assert task.extract_answer(f" {right}\n") == right.strip()
    assert task.extract_answer(" ") is None


def test_prompts_are_shown_as_they_stand(tmp_path: Path, make_tokenizer: Callable[..., Any]) -> None:
    tokenizer = make_tokenizer("dream")
    turns = [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "6 * 7?"},
    ]  # fmt: skip
    for key, prompt, written in (
        ("prompt", "6 * 7?", "system\nYou are a helpful assistant.|user\n6 * 7?"),
        ("prompt", turns, "system\nBe brief.|user\nHello|assistant\nHi|user\n6 * 7?"),
        ("messages", turns[1:], "system\nYou are a helpful assistant.|user\nHello|assistant\nHi|user\n6 * 7?"),
    ):
        task, problem = task_and_problem(tmp_path, {key: prompt, "response": "42"})
        expected = "".join(f"<|im_start|>{turn}<|im_end|>\n" for turn in written.split("|"))
        assert tokenizer.decode(task.student_prompt(problem, tokenizer)) == f"{expected}<|im_start|>assistant\n"
        assert problem.question == "6 * 7?"


def test_a_conversation_has_no_plain_text(tmp_path: Path, make_tokenizer: Callable[..., Any]) -> None:
    records = [{"messages": [*TALK, USER], "response": "r"}, {"prompt": "q", "response": "r"}]
    data = write_records(tmp_path / "own.jsonl", records)
    for shots, asked in ((0, 2), (1, 1)):  # it is asked, or shown as an example
        task, refused = get_task("jsonl", data=data, prompt_format="text", shots=shots), 0
        problems = task.problems("train")
        for problem in problems:
            if problem.before or shots:
                refused += 1
                with pytest.raises(
                    ValueError, match=r"is 'text', but problem 'jsonl-.*' is a conversation of 3 messages"
                ):
                    task.student_prompt(problem, make_tokenizer("dream"))
        assert (len(problems), refused) == (asked, 1)


def test_ids(tmp_path: Path) -> None:
    record = {"prompt": "q", "response": "r"}
    name = task_and_problem(tmp_path, record)[1].id
    assert name == "jsonl-d2da898773365b5a"  # of the prompt: trajectories outlive versions
    assert task_and_problem(tmp_path, {"messages": [{"role": "user", "content": "q"}], "response": "r"})[1].id == name
    assert task_and_problem(tmp_path, {**record, "prompt": "p"})[1].id != name
    assert task_and_problem(tmp_path, {**record, "id": 7})[1].id == "7"


def test_the_documented_problems(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_text(documented("json"))
    problems = get_task("jsonl", data=str(tmp_path / "own.jsonl")).problems("train")
    assert sorted(problem.check for problem in problems) == ["code", "exact", "number"]


def test_the_documented_task(tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    for module in ("dataclasses", "tad_ext.data.tasks.file_task", "tad_ext.data.tasks.records"):
        exec(f"from {module} import *", names)
    exec(documented("python"), names)
    task = names["CapitalsTask"](write_records(tmp_path / "c.jsonl", [{"country": "France", "city": "Paris"}]))
    (problem,) = task.problems("test")
    assert task.is_correct(problem, "It is \\boxed{Paris}.")
    assert not task.is_correct(problem, "It is \\boxed{Rome}.")
    assert not task.is_correct(problem, "Paris")


def documented(language: str) -> str:
    """The last block in that language of docs/tasks.md."""
    text = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
    return text.rpartition(f"```{language}\n")[2].partition("```")[0]


USER = {"role": "user", "content": "q"}
TALK = [USER, {"role": "assistant", "content": "a"}]
LATE = [USER, {"role": "system", "content": "a"}, USER]
EMPTY = "must be a text that is not empty, got"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"response": "r"}, f"line 1: 'prompt' {EMPTY} None"),
        ({"prompt": 3, "response": "r"}, f"line 1: 'prompt' {EMPTY} 3"),
        ({"prompt": "q"}, f"line 1: 'response' {EMPTY} None"),
        ({"messages": [], "response": "r"}, r"line 1: 'messages' must end with a message of the user, got \[\]"),
        ({"prompt": TALK, "response": "r"}, "line 1: 'prompt' must end with a message of the user, got .*assistant"),
        (
            {"prompt": LATE, "response": "r"},
            r"1: prompt\[1\] must be a message of the role user or assistant, got .*sys",
        ),
        ({"prompt": ["q"], "response": "r"}, r"line 1: prompt\[0\] must be a message of the role user or assistant or"),
        ({"prompt": [{"role": "user"}], "response": "r"}, rf"line 1: prompt\[0\]: 'content' {EMPTY} None"),
        ({"prompt": "q", "response": "r", "check": "judge"}, "line 1: 'check' must be one of number, math, .*'judge'"),
        ({"prompt": "q", "response": "r", "check": "number"}, "is number, but 'response' has no such answer: 'r'"),
        ({"prompt": "q", "response": "1", "answer": "x", "check": "number"}, "but 'answer' has no such answer: 'x'"),
        ({"prompt": "q", "response": "r", "check": "math"}, "is math, but 'response' has no such answer: 'r'"),
        ({"prompt": "q", "response": "r", "check": "code"}, f"line 1: 'tests' {EMPTY} None"),
        ({"prompt": "q", "response": "r", "answer": True}, f"line 1: 'answer' {EMPTY} True"),
    ],
)
def test_bad_lines_are_named(record: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        task_and_problem(tmp_path, record)
