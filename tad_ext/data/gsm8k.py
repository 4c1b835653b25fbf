r"""GSM8K (Cobbe et al., arXiv 2110.14168): school word problems whose answer is a number, from the original files.

A line of ``train.jsonl`` or ``test.jsonl`` holds ``question`` and ``answer``. The answer is a worked solution with a
calculator's annotations, ``48/2 = <<48/2=24>>24``, and ends with the line ``#### 72``.
"""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tad_ext.data.jsonl import read_jsonl
from tad_ext.data.numeric_answers import extract_number, normalize_number
from tad_ext.data.prompts import TEACHER_PROMPTS, student_prompt_ids, teacher_prompt_ids
from tad_ext.data.tasks import Problem, Split, Task, check_split

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ANNOTATION = re.compile(r"<<[^<>]*>>")
_FINAL = "\n#### "


@dataclass(frozen=True)
class Gsm8kTask(Task):
    """GSM8K from one original file, which is every split. The lengths are the published ones."""

    data: str = field(metadata={"help": "one of its original files, with question and answer in each line"})
    gen_length: int = 256
    block_length: int = 32
    teacher_prompt_form: str = "user"  #: where the teacher sees the reference: one of `TEACHER_PROMPTS`
    name = "gsm8k"

    def __post_init__(self) -> None:
        if self.teacher_prompt_form not in TEACHER_PROMPTS:
            expected = ", ".join(TEACHER_PROMPTS)
            raise ValueError(f"teacher_prompt must be one of {expected}, got {self.teacher_prompt_form!r}")

    def problems(self, split: Split, *, limit: int | None = None, seed: int = 0) -> list[Problem]:
        """Problems of the file in an order that the seed decides; a smaller `limit` gives the beginning of the list.

        A problem's id is a hash of its question, so the file may be moved and renamed. Raises ValueError for a line
        that is no problem, naming it; and as `check_split` and `read_jsonl`.
        """
        check_split(split, limit)
        problems: dict[str, Problem] = {}
        for place, record in read_jsonl(self.data, argument="data"):
            problem = _problem(place, record)
            if problem.id in problems:
                raise ValueError(f"{place}: the question stands in an earlier line, too: {problem.question[:80]!r}")
            problems[problem.id] = problem
        chosen = list(problems.values())
        random.Random(seed).shuffle(chosen)
        return chosen[:limit]

    def student_prompt(self, problem: Problem, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """Token ids of the question in the tokenizer's chat template, which it must have."""
        return student_prompt_ids(tokenizer, problem.question)

    def teacher_prompt(self, problem: Problem, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """Token ids of the question and the reference in the tokenizer's chat template, which it must have."""
        return teacher_prompt_ids(tokenizer, problem.question, problem.reference, self.teacher_prompt_form)

    def extract_answer(self, text: str) -> str | None:
        """The final number, in its normal form (see `tad_ext.data.numeric_answers`); None if there is none."""
        return extract_number(text)


def _problem(place: str, record: dict[str, Any]) -> Problem:
    """The problem of a record, without the calculator's annotations, which only repeat what is written out."""
    for key in ("question", "answer"):
        value = record.get(key)
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{place}: {key!r} must be a text that is not empty, got {value!r}")
    question, worked = record["question"].strip(), record["answer"].strip()
    solution, final, number = worked.rpartition(_FINAL)
    answer = normalize_number(number)
    if not (solution and final) or answer is None:
        raise ValueError(f"{place}: 'answer' must end with a line '#### <number>', got {worked[-80:]!r}")
    digest = hashlib.sha256(question.encode()).hexdigest()[:16]
    return Problem(f"gsm8k-{digest}", question, reference=_ANNOTATION.sub("", worked), answer=answer)
