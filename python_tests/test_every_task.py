"""Every task that reads a file, through the commands; and the original files, record by record.

The model is tiny and random, so its answers are wrong: every trajectory is kept, and no code of its own is run.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from problem_files import original
from task_files import RECORDS, TASKS, write_records
from tiny_checkpoints import write_llada

from tad_ext.cli import main
from tad_ext.data.tasks.task import get_task
from tad_ext.data.trajectories.files import read_trajectories
from tad_ext.models.loading import load_tokenizer

CANVAS = ["--gen-length", "8", "--block-length", "4", "--device", "cpu", "--limit", "2"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llada(tmp_path_factory.mktemp("base"), layers=1, max_positions=4096).folder


@pytest.fixture
def tad(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs a command on the sample problems of a task; writes into tmp_path/out."""

    def run(command: str, task: str, *options: str) -> int:
        data = write_records(tmp_path / f"{task}.jsonl", RECORDS[task])
        words = ["--model", str(checkpoint), "--output", str(tmp_path / "out"), "--task", task, "--data", data]
        return main([command, *words, *CANVAS, *options])

    return run


@pytest.mark.parametrize("task", TASKS)
def test_collection(task: str, tad: Callable[..., int], tmp_path: Path, checkpoint: Path) -> None:
    assert tad("collect", task, "--keep", "all", "--teacher-prompt", "system") == 0
    (metadata,), rows = read_trajectories(tmp_path / "out")
    tokenizer = load_tokenizer(checkpoint)
    problems = get_task(task, data=str(tmp_path / f"{task}.jsonl")).problems("train", limit=2)
    assert metadata.task == task
    assert [row.id for row in rows] == [problem.id for problem in problems]
    for row, problem in zip(rows, problems, strict=True):
        assert row.reference == problem.reference
        assert row.reference in tokenizer.decode(row.teacher_prompt_ids)
        assert problem.question.strip() in tokenizer.decode(row.prompt_ids)


@pytest.mark.parametrize("task", TASKS)
def test_evaluation(task: str, tad: Callable[..., int], tmp_path: Path) -> None:
    split = "train" if task == "mbpp" else "test"
    assert tad("evaluate", task, "--split", split, "--thresholds", "0.5") == 0
    report = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert (report["task"], report["problems"], report["settings"]["stop_strings"]) == (task, 2, [])


def test_a_plain_prompt_brings_the_tasks_stop_strings(tad: Callable[..., int], tmp_path: Path) -> None:
    def evaluated(*options: str) -> tuple[dict[str, Any], list[str]]:
        plain = ["--prompt-format", "text", "--shots", "2", "--thresholds", "0.5"]
        assert tad("evaluate", "gsm8k", *plain, *options) == 0
        rows = [json.loads(line) for line in (tmp_path / "out" / "responses.jsonl").read_text().splitlines()]
        report = json.loads((tmp_path / "out" / "evaluation.json").read_text())
        return report["settings"], [row["response"] for row in rows]

    settings, responses = evaluated()
    assert (settings["stop_strings"], settings["shots"]) == (["Question:"], 2)
    stop = responses[0][2:4]
    settings, cut = evaluated("--stop-strings", stop, "a,b", "--overwrite")
    assert settings["stop_strings"] == [stop, "a,b"]
    assert cut == [response.partition(stop)[0] for response in responses]
    assert cut != responses


def test_an_unprivileged_teacher(tad: Callable[..., int], tmp_path: Path) -> None:
    responses = []
    for options in (
        ["--prompt", "teacher", "--teacher-prompt", "none"],
        ["--prompt", "student"],
        ["--prompt", "teacher"],
    ):
        assert tad("evaluate", "gsm8k", "--thresholds", "0.5", "--overwrite", *options) == 0
        rows = map(json.loads, (tmp_path / "out" / "responses.jsonl").read_text().splitlines())
        timings = ("latency", "seconds")
        responses.append([{name: value for name, value in row.items() if name not in timings} for row in rows])
    assert responses[0] == responses[1] != responses[2]


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("gsm8k", ["--shots", "7"], "shots is 7, but data"),
        ("gsm8k", ["--data", "nowhere.jsonl"], "data is 'nowhere.jsonl', which is not a file"),
        ("gsm8k", ["--teacher-prompt", "system", "--prompt-format", "text"], "has no system message"),
        ("gsm8k", ["--teacher-prompt", "tutor"], "teacher_prompt must be one of user, system, none, got 'tutor'"),
        ("jsonl", ["--data", "hub"], "this task has no usual data set there"),
        ("gsm8k", ["--data", "hub:openai/gsm8k"], "pip install datasets"),
        ("arithmetic", ["--shots", "2"], "task 'arithmetic' has no option"),
    ],
)
def test_bad_settings_are_one_line(
    task: str, options: list[str], message: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, "datasets", None)  # as if it were not installed
    data = ["--data", write_records(tmp_path / "own.jsonl", RECORDS["gsm8k"])] if "--data" not in options else []
    model = ["--model", str(checkpoint), "--output", str(tmp_path / "out")]
    for command in ("collect", "evaluate"):
        assert main([command, *model, "--task", task, *CANVAS, *data, *options]) in (1, 2)
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


ORIGINALS = {
    ("gsm8k", "gsm8k_train.jsonl"): {"train": 7473},
    ("gsm8k", "gsm8k_test.jsonl"): {"test": 1319},
    ("math", "math_problems.jsonl"): {"test": 5000},
    ("humaneval", "HumanEval.jsonl.gz"): {"test": 164},
    ("mbpp", "mbpp.jsonl"): {"test": 500, "train": 464},
}


def originals(task: str, file: str) -> tuple[Any, list[Any]]:
    """The task of an original file and the problems of all its splits."""
    task_object = get_task(task, data=str(original(file)))
    counts = ORIGINALS[task, file]
    problems = {split: task_object.problems(split) for split in counts}  # type: ignore[arg-type]
    assert {split: len(found) for split, found in problems.items()} == counts
    return task_object, [problem for found in problems.values() for problem in found]


@pytest.mark.parametrize(("task", "file"), ORIGINALS)
def test_every_original_problem_is_read_and_asked(task: str, file: str, checkpoint: Path) -> None:
    task_object, problems = originals(task, file)
    assert len({problem.id for problem in problems}) == len(problems)
    tokenizer = load_tokenizer(checkpoint)
    for problem in problems:
        assert problem.question.strip()
        assert problem.reference.strip()
        assert problem.answer.strip()
        student = task_object.student_prompt(problem, tokenizer)
        teacher = task_object.teacher_prompt(problem, tokenizer)
        assert len(student) < len(teacher)


def test_every_answer_of_math_is_right() -> None:
    task, problems = originals("math", "math_problems.jsonl")
    for problem in problems:
        assert task.is_correct(problem, f"Therefore it is $\\boxed{{{problem.answer}}}$."), problem.id
