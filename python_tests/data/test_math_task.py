"""MATH: the three kinds of records, and that answers are compared by math-verify's rules."""

from pathlib import Path
from typing import Any

import pytest
from task_files import write_records

from tad_ext.data.tasks.task import get_task


def problem_of(tmp_path: Path, record: dict[str, Any]) -> Any:
    (problem,) = get_task("math", data=write_records(tmp_path / "math.jsonl", [record])).problems("test")
    return problem


SOLUTION = "First \\boxed{1}, so it is $\\boxed{\\frac{1}{2}}$."


@pytest.mark.parametrize(
    ("record", "reference", "answer"),
    [
        ({"problem": "q", "level": "Level 1", "type": "Algebra", "solution": SOLUTION}, SOLUTION, "\\frac{1}{2}"),
        ({"problem": "q", "solution": SOLUTION, "answer": " 0.5 "}, SOLUTION, "0.5"),
        ({"problem": "q", "level": 1, "answer": "\\dfrac{1}{2}"}, "\\dfrac{1}{2}", "\\dfrac{1}{2}"),
        ({"question": "q", "answer": SOLUTION, "target": "1/2", "solution_0": "long"}, SOLUTION, "1/2"),
        ({"question": "q", "answer": SOLUTION}, SOLUTION, "\\frac{1}{2}"),
        ({"problem": "q", "solution": "It is $\\boxed 2$."}, "It is $\\boxed 2$.", "2"),
    ],
)
def test_the_kinds_of_records(record: dict[str, Any], reference: str, answer: str, tmp_path: Path) -> None:
    problem = problem_of(tmp_path, record)
    assert (problem.question, problem.reference, problem.answer) == ("q", reference, answer)
    assert problem.id == "math-8e35c2cd3bf6641b"  # of the question: trajectories outlive versions
    assert problem_of(tmp_path, {**record, "unique_id": "test/algebra/1.json"}).id == "test/algebra/1.json"


def test_an_example_without_a_solution_shows_its_answer_in_a_box(tmp_path: Path) -> None:
    task = get_task("math", data=write_records(tmp_path / "math.jsonl", [{"problem": "q", "answer": "7"}]))
    (problem,) = task.problems("test")
    assert task.text_response(problem) == task.chat_response(problem) == "The final answer is \\boxed{7}."


def test_a_response_without_a_box_has_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []
    own = "tad_ext.data.tasks.competition_math.same_math_answer"
    monkeypatch.setattr(own, lambda *pair: bool(asked.append(pair)) or True)
    task = get_task("math", data=write_records(tmp_path / "math.jsonl", [{"problem": "q", "answer": "7"}]))
    (problem,) = task.problems("test")
    assert not task.is_correct(problem, "It is 7.")
    assert task.is_correct(problem, "It is \\boxed{14/2}.")
    assert asked == [("7", "14/2")], "the right answer first"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"solution": SOLUTION}, "line 1: 'problem' must be a text that is not empty, got None"),
        ({"problem": "q"}, "line 1: 'answer' must be a text that is not empty, got None"),
        (
            {"problem": "q", "solution": "It is 7."},
            r"line 1: 'solution' must hold the answer within \\boxed{}, got 'It is",
        ),
        ({"question": "q", "answer": "7"}, r"line 1: 'answer' must hold the answer within \\boxed{}, got '7'"),
        ({"problem": "q", "answer": 7}, "line 1: 'answer' must be a text that is not empty, got 7"),
    ],
)
def test_bad_lines_are_named(record: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        problem_of(tmp_path, record)


def test_what_is_missing_is_said_before_the_file_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise ValueError("math-verify is missing")

    monkeypatch.setattr("tad_ext.data.tasks.competition_math.check_math_verify", refuse)
    with pytest.raises(ValueError, match="math-verify is missing"):
        get_task("math", data="nowhere").problems("test")
