"""What a task is: problems with privileged references, prompts for student and teacher, and a verifier of answers."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, cast, get_args

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Split = Literal["train", "test"]

# Module and class of each task; a task's module is imported when it is asked for.
_TASKS = {
    "arithmetic": ("tad_ext.data.tasks.arithmetic", "ArithmeticTask"),
    "gsm8k": ("tad_ext.data.tasks.gsm8k", "Gsm8kTask"),
    "math": ("tad_ext.data.tasks.competition_math", "MathTask"),
    "humaneval": ("tad_ext.data.tasks.humaneval", "HumanEvalTask"),
    "mbpp": ("tad_ext.data.tasks.mbpp", "MbppTask"),
    "kodcode": ("tad_ext.data.tasks.kodcode", "KodCodeTask"),
    "jsonl": ("tad_ext.data.tasks.own_problems", "JsonlTask"),
}

if TYPE_CHECKING:
    TaskName = str
else:
    TaskName = Literal[tuple(_TASKS)]
"""The names that `get_task` knows."""


@dataclass(frozen=True)
class Problem:
    """One problem of a task."""

    id: str  #: unique within the task, the same in every run
    question: str  #: what the student sees
    reference: str  #: the privileged information that only the teacher sees
    answer: str  #: the right final answer, or the program that tests code


ProblemT = TypeVar("ProblemT", bound=Problem)


class Task(Protocol):
    """What collection and evaluation need to know about a task, and the base of every task."""

    name: str  #: by which `get_task` finds it
    gen_length: int  #: recommended size of the canvas, in tokens
    block_length: int  #: recommended size of its blocks
    stop_strings: tuple[str, ...] = ()  #: texts that end a response, published for the task's prompts
    slow_to_judge: bool = False  #: `is_correct` may take long: better asked while other responses are decoded

    def problems(self, split: Split, *, limit: int | None = None, seed: int = 0) -> list[Problem]:
        """Different problems, the same for the same arguments. Splits never overlap, unless a file is the split."""

    def student_prompt(self, problem: Problem, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """Token ids of the question alone."""

    def teacher_prompt(self, problem: Problem, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """Token ids of the question together with the reference."""

    def extract_answer(self, text: str) -> str | None:
        """The final answer or the code in a response, None if there is none."""

    def is_correct(self, problem: Problem, text: str) -> bool:
        """Whether a response is right. Several threads may ask at a time."""
        return self.extract_answer(text) == problem.answer


def get_task(name: str, **options: Any) -> Task:
    """The task called `name`, with its options (fields of its class); None stands for an option's default.

    Raises ValueError for an unknown name, an option that the task does not have, or one that it needs and is missing.
    """
    if name not in _TASKS:
        raise ValueError(f"task must be one of {', '.join(_TASKS)}, got {name!r}")
    module, class_name = _TASKS[name]
    task_class = getattr(importlib.import_module(module), class_name)
    known = {field.name: field for field in dataclasses.fields(task_class)}
    given = {option: value for option, value in options.items() if value is not None}
    for option in sorted(given.keys() - known.keys()):
        raise ValueError(
            f"task {name!r} has no option {option!r}, got {given[option]!r}; expected one of {', '.join(known)}"
        )
    for option, field in known.items():
        if option not in given and field.default is dataclasses.MISSING:
            raise ValueError(f"task {name!r} needs {option}: {field.metadata['help']}; got none")
    return cast("Task", task_class(**given))


def check_split(split: str, limit: int | None) -> None:
    """ValueError unless `split` is a known split, and `limit` None or at least 1."""
    if split not in get_args(Split):
        raise ValueError(f"split must be one of {', '.join(get_args(Split))}, got {split!r}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1 or None, got {limit}")


def chosen(problems: Iterable[ProblemT], *, limit: int | None, seed: int) -> list[ProblemT]:
    """Some of the problems in an order that the seed decides: a smaller `limit` gives the beginning of the list.

    The order is that of a hash of seed and id, so another problem in the file moves none of the others past each other.
    """

    def place(problem: Problem) -> bytes:
        return hashlib.sha256(f"{seed} {problem.id}".encode()).digest()

    return sorted(problems, key=place)[:limit]
