"""GSM8K: problems from the original files (and from a sample where those are not at hand), prompts and verifier."""

import json
import re
import shutil
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from problem_files import GSM8K_SAMPLE, original

from tad_ext.data.tasks.gsm8k import Gsm8kTask
from tad_ext.data.tasks.task import get_task

SAMPLE = Gsm8kTask(str(GSM8K_SAMPLE))


def rows_of(path: Path) -> dict[str, str]:
    """Question -> answer as it stands in the file."""
    return {
        row["question"]: row["answer"] for row in map(json.loads, path.read_text(encoding="utf-8").split("\n")[:-1])
    }


def check_every_problem(path: Path, count: int) -> set[str]:
    """All that must hold of every problem of a file; gives its ids."""
    task, rows = Gsm8kTask(str(path)), rows_of(path)
    problems = task.problems("train")
    assert len(problems) == len({problem.id for problem in problems}) == count
    assert {problem.question for problem in problems} == set(rows)
    for problem in problems:
        final = rows[problem.question].split("#### ")[1]
        value = Fraction(final) if "/" in final else Fraction(Decimal(final.replace(",", "")))  # an independent reading
        assert problem.answer == str(value), final
        for response in (
            rows[problem.question],
            problem.reference,
            f"Therefore it is \\boxed{{{final}}}.",
            f"That makes \\boxed{{\\${final} \\text{{ dollars}}}} for 1000003 days.",
            f"After 1000003 steps, the answer is {final}.",
        ):
            assert task.is_correct(problem, response), response
        wrong = str(value + 1)
        assert not task.is_correct(problem, f"\\boxed{{{wrong}}}")
        assert not task.is_correct(problem, problem.reference.replace(f"#### {final}", f"#### {wrong}"))
        assert "<<" not in problem.reference
        assert ">>" not in problem.reference
        assert problem.reference.endswith(f"\n#### {final}")
        # Nothing but the annotations is left out.
        parts = re.split(r"<<.*?>>", rows[problem.question])
        assert "".join(parts) == problem.reference
    return {problem.id for problem in problems}


def test_every_problem_of_the_sample() -> None:
    check_every_problem(GSM8K_SAMPLE, 8)


def test_every_original_problem() -> None:
    train = check_every_problem(original("gsm8k_train.jsonl"), 7473)
    test = check_every_problem(original("gsm8k_test.jsonl"), 1319)
    assert train.isdisjoint(test)


def test_a_worked_example(tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    row = {"question": " How much is 6 * 180?\n", "answer": "It is 6*180 = $<<6*180=1080>>1080.\n#### 1,080 "}
    path.write_text(json.dumps(row))
    (problem,) = Gsm8kTask(str(path)).problems("test")
    assert problem.question == "How much is 6 * 180?"
    assert problem.reference == "It is 6*180 = $1080.\n#### 1,080"
    assert problem.answer == "1080"
    assert problem.id == "gsm8k-3f82b43a20e5c473"  # trajectories outlive versions: it must never change


def test_problems_are_repeatable_and_begin_alike() -> None:
    everything = SAMPLE.problems("train", seed=1)
    assert SAMPLE.problems("train", seed=1, limit=3) == everything[:3]
    assert SAMPLE.problems("train", seed=1, limit=100) == everything
    assert SAMPLE.problems("train", seed=2) != everything
    assert sorted(problem.id for problem in SAMPLE.problems("train", seed=2)) == sorted(item.id for item in everything)


def test_the_file_is_the_split_and_may_move(tmp_path: Path) -> None:
    moved = Gsm8kTask(shutil.copy(GSM8K_SAMPLE, tmp_path / "renamed.jsonl"))
    assert moved.problems("test", seed=3) == SAMPLE.problems("train", seed=3)


@pytest.mark.parametrize("form", ["user", "system"])
@pytest.mark.parametrize("shape", ["llada", "dream"])
def test_prompts(shape: str, form: str, make_tokenizer: Callable[..., Any]) -> None:
    task, tokenizer = Gsm8kTask(str(GSM8K_SAMPLE), teacher_prompt_form=form), make_tokenizer(shape)
    for problem in task.problems("train"):
        student = tokenizer.decode(task.student_prompt(problem, tokenizer))
        teacher = tokenizer.decode(task.teacher_prompt(problem, tokenizer))
        for prompt in (student, teacher):
            assert problem.question in prompt
            assert "\\boxed{}" in prompt
            assert prompt.rstrip().endswith(("assistant", "assistant<|end_header_id|>"))
        assert problem.reference in teacher
        assert teacher.index(problem.reference) > teacher.index(problem.question) or form == "system"
        assert "####" not in student
        assert not any(line in student for line in problem.reference.split("\n"))


def test_get_task() -> None:
    task = get_task("gsm8k", data="file", gen_length=128, teacher_prompt_form=None)
    assert task == Gsm8kTask("file", gen_length=128)
    assert (task.name, task.block_length, Gsm8kTask("file").gen_length) == ("gsm8k", 32, 256)
    with pytest.raises(ValueError, match=r"task 'gsm8k' needs data: its file .*; got none"):
        get_task("gsm8k", data=None)
    with pytest.raises(ValueError, match="task 'arithmetic' has no option 'data', got 'file'; expected one of gen_len"):
        get_task("arithmetic", data="file")
    with pytest.raises(ValueError, match="teacher_prompt must be one of user, system, none, got 'tutor'"):
        get_task("gsm8k", data="file", teacher_prompt_form="tutor")


GOOD = '{"question": "q", "answer": "a\\n#### 1"}\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "data is '.*', which is empty"),
        (GOOD + "{", "line 2: not JSON"),
        (GOOD + '\n{"question": "r"}', "line 3: 'answer' must be a text that is not empty, got None"),
        ('{"answer": "a\\n#### 1"}', "line 1: 'question' must be a text that is not empty, got None"),
        ('{"question": " ", "answer": "a\\n#### 1"}', "line 1: 'question' must be"),
        ('{"question": 3, "answer": "a\\n#### 1"}', "line 1: 'question' must be .*, got 3"),
        ('{"question": "q", "answer": "a = 1"}', "line 1: 'answer' must end with a line '#### <number>', got 'a = 1'"),
        ('{"question": "q", "answer": "a\\n#### one"}', "line 1: 'answer' must end with"),
        ('{"question": "q", "answer": "#### 1"}', "line 1: 'answer' must end with"),  # no worked solution
        (GOOD + GOOD.replace("1", "2"), "line 2: an earlier line has another answer to this problem, 'gsm8k-.*': 'q'"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        Gsm8kTask(str(path)).problems("train")
    assert str(path) in str(caught.value)


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"data is '.*nowhere', which is not a file"):
        Gsm8kTask(str(tmp_path / "nowhere")).problems("train")
    with pytest.raises(ValueError, match="split must be one of train, test, got 'dev'"):
        SAMPLE.problems("dev")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="limit must be at least 1 or None, got 0"):
        SAMPLE.problems("train", limit=0)
