r"""GSM8K (Cobbe et al., arXiv 2110.14168): school word problems whose answer is a number, from the original files.

A record of ``train.jsonl`` or ``test.jsonl`` holds ``question`` and ``answer``. The answer is a worked solution with a
calculator's annotations, ``48/2 = <<48/2=24>>24``, and ends with the line ``#### 72``. Plain text is written, and
ended, as lm-evaluation-harness does it (5 examples there; 8 in its chain-of-thought task).
"""

import re
from dataclasses import dataclass

from tad_ext.data.answers.numbers import extract_number, normalize_number
from tad_ext.data.tasks.file_task import FileProblem, FileTask, hashed_id
from tad_ext.data.tasks.records import HubDataset, Record, text_of

_ANNOTATION = re.compile(r"<<[^<>]*>>")
_FINAL = "\n#### "


@dataclass(frozen=True)
class Gsm8kTask(FileTask):
    """GSM8K. A problem's id is a hash of its question, so the file may be moved and renamed."""

    name = "gsm8k"
    hub = HubDataset("openai/gsm8k", ("main",))
    text_form = "Question: {question}\nAnswer: {response}"
    text_stops = ("Question:",)

    def problem_of(self, place: str, record: Record) -> FileProblem:
        """The problem without the calculator's annotations, which only repeat what is written out."""
        question, worked = text_of(place, record, "question").strip(), text_of(place, record, "answer").strip()
        solution, final, number = worked.rpartition(_FINAL)
        answer = normalize_number(number)
        if not (solution and final) or answer is None:
            raise ValueError(f"{place}: 'answer' must end with a line '#### <number>', got {worked[-80:]!r}")
        return FileProblem(hashed_id(self.name, question), question, _ANNOTATION.sub("", worked), answer)

    def extract_answer(self, text: str) -> str | None:
        """The final number, in its normal form (see `tad_ext.data.answers.numbers`); None if there is none."""
        return extract_number(text)
