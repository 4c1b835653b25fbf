"""What the tasks have in common whose problems are records of a file: order, examples, prompts."""

from __future__ import annotations

import dataclasses
import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, cast

from tad_ext.data.tasks import prompts
from tad_ext.data.tasks.prompts import BOXED, REFERENCE_LABEL, TEACHER_PROMPTS, Message, Wording, text_ids
from tad_ext.data.tasks.records import HubDataset, Record, read_records
from tad_ext.data.tasks.task import Problem, Split, Task, check_split, chosen

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROMPT_FORMATS = ("chat", "text")


@dataclass(frozen=True)
class FileProblem(Problem):
    """A problem of a file, and what its prompts show before it."""

    examples: tuple[FileProblem, ...] = field(default=(), kw_only=True, repr=False)  #: few-shot examples
    before: tuple[Message, ...] = field(default=(), kw_only=True, repr=False)  #: messages of a conversation


@dataclass(frozen=True)
class FileTask(Task):
    """A task from one file, which is every split, or from the hub. The lengths are those published for TAD.

    A task is a subclass with a `name` and `problem_of`; what else it may say stands below these fields.
    """

    data: str = field(metadata={"help": "its file (docs/tasks.md says what it holds), hub or hub:NAME"})
    gen_length: int = 256
    block_length: int = 32
    teacher_prompt_form: str = "user"  #: where the teacher sees the reference: one of `TEACHER_PROMPTS`
    prompt_format: str = "chat"  #: "chat": the tokenizer's template; "text": plain, for models without one
    shots: int = 0  #: examples before the question: the source's first problems, which are not asked then

    hub: ClassVar[HubDataset | None] = None  #: where the data are on the hub
    wording: ClassVar[Wording] = BOXED
    #: A problem as plain text; its prompt ends before the response.
    text_form: ClassVar[str] = "{question}\n\n{response}"
    #: Texts that begin what a model writes behind its response to a plain text.
    text_stops: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if self.teacher_prompt_form not in TEACHER_PROMPTS:
            expected = ", ".join(TEACHER_PROMPTS)
            raise ValueError(f"teacher_prompt must be one of {expected}, got {self.teacher_prompt_form!r}")
        if self.prompt_format not in PROMPT_FORMATS:
            expected = ", ".join(PROMPT_FORMATS)
            raise ValueError(f"prompt_format must be one of {expected}, got {self.prompt_format!r}")
        if self.prompt_format == "text" and self.teacher_prompt_form == "system":
            raise ValueError(
                "teacher_prompt is 'system', but a prompt of the format text has no system message; expected user or "
                "none"
            )

    @abstractmethod
    def problem_of(self, place: str, record: Record) -> FileProblem:
        """The problem of one record. ValueError, which names the place, for a record that is none."""

    def asked(self, problems: Sequence[FileProblem], split: Split) -> Sequence[FileProblem]:
        """Those of the file's problems that belong to a split: all of them, unless their ids say otherwise."""
        return problems

    def chat_question(self, problem: Problem) -> str:
        """The question as it stands in a message."""
        return problem.question

    def text_response(self, example: Problem) -> str:
        """The response of an example in plain text."""
        return example.reference

    def chat_response(self, example: Problem) -> str:
        """The assistant's message in an example."""
        return example.reference

    @property
    def stop_strings(self) -> tuple[str, ...]:  # type: ignore[override]
        """Those published for plain text; in a chat the model ends its own turn."""
        return self.text_stops if self.prompt_format == "text" else ()

    def problems(self, split: Split, *, limit: int | None = None, seed: int = 0) -> list[Problem]:
        """Problems in the order of `tasks.chosen`; the first `shots` of the file are examples, and not among them.

        Raises ValueError for a line that is no problem, naming it, for an id with two answers, for too few problems;
        and as `check_split` and `read_records`.
        """
        check_split(split, limit)
        problems = self._read(split)
        examples = tuple(problems[: self.shots])
        if len(examples) < self.shots:
            raise ValueError(f"shots is {self.shots}, but data '{self.data}' has {len(examples)} problems")
        left = self.asked(problems[self.shots :], split)
        return [dataclasses.replace(one, examples=examples) for one in chosen(left, limit=limit, seed=seed)]

    def student_prompt(self, problem: Problem, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """Token ids of examples and question, in the tokenizer's chat template or as plain text."""
        if self.prompt_format == "text":
            return self._text_prompt(problem, tokenizer, problem.question)
        return prompts.student_prompt_ids(
            tokenizer, self.chat_question(problem), self.wording, before=self._messages_before(problem)
        )

    def teacher_prompt(self, problem: Problem, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """Token ids of the student's prompt together with the reference, where `teacher_prompt_form` has it."""
        if self.prompt_format == "text":
            shown = f"{REFERENCE_LABEL}{problem.reference}\n\n" if self.teacher_prompt_form == "user" else ""
            return self._text_prompt(problem, tokenizer, f"{shown}{problem.question}")
        return prompts.teacher_prompt_ids(
            tokenizer,
            self.chat_question(problem),
            problem.reference,
            self.teacher_prompt_form,
            self.wording,
            before=self._messages_before(problem),
        )

    def _read(self, split: Split) -> list[FileProblem]:
        """Every problem of the source in its order; one that is repeated stands once."""
        problems: dict[str, FileProblem] = {}
        for place, record in read_records(self.data, split, self.hub):
            problem = self.problem_of(place, record)
            if problems.setdefault(problem.id, problem).answer != problem.answer:
                raise ValueError(
                    f"{place}: an earlier line has another answer to this problem, {problem.id!r}: "
                    f"{problem.question[:80]!r}"
                )
        return list(problems.values())

    def _messages_before(self, problem: Problem) -> list[Message]:
        """The examples as turns, behind the problem's own system message and before its conversation."""
        own = cast("FileProblem", problem)
        turns: list[Message] = []
        for example in own.examples:
            turns += [
                *(message for message in example.before if message["role"] != "system"),
                {"role": "user", "content": prompts.asked_text(self.chat_question(example), self.wording)},
                {"role": "assistant", "content": self.chat_response(example)},
            ]
        system = sum(message["role"] == "system" for message in own.before)  # 0, or 1: the first message
        return [*own.before[:system], *turns, *own.before[system:]]

    def _text_prompt(self, problem: Problem, tokenizer: PreTrainedTokenizerBase, question: str) -> list[int]:
        """The examples and the question in the task's text form, up to where the response begins.

        Raises ValueError for a conversation, which has no plain form.
        """
        examples = cast("FileProblem", problem).examples
        for one in (*examples, cast("FileProblem", problem)):
            if one.before:
                raise ValueError(
                    f"prompt_format is 'text', but problem {one.id!r} is a conversation of {len(one.before) + 1} "
                    f"messages; expected chat"
                )
        shown = [self.text_form.format(question=one.question, response=self.text_response(one)) for one in examples]
        asked = self.text_form.partition("{response}")[0].format(question=question).rstrip(" ")
        return text_ids(tokenizer, "\n\n".join([*shown, asked]), add_special_tokens=True)


def hashed_id(task: str, question: str) -> str:
    """An id for a problem whose record has none: the same wherever its file lies, and in every version."""
    return f"{task}-{hashlib.sha256(question.encode()).hexdigest()[:16]}"
