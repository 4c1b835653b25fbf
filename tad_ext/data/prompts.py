r"""From a problem to the token ids of its prompts: chat messages, put into the tokenizer's own chat template.

The student sees the question and is asked for a final answer within ``\boxed{}``. The teacher sees the reference, too,
in one of the two forms that are published for TAD (arXiv 2605.09536); the wording is this project's own:

"user"      the collection's: the user's message holds the question, the reference, and the request to understand the
            reference and to solve the problem in one's own way, in detailed steps
"system"    the training's: the student's messages, and before them the reference in a system message
            ``Reference Answer: ...``, behind the system message that the template puts there itself (Dream's), if any

The published code collects with the first form and trains with the second. Here the teacher sees one prompt in both
jobs, the one that a trajectory stores: "user" by default, "system" after `tad collect --teacher-prompt system`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jinja2 import TemplateError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, str]  # {"role": "user", "content": "..."}

TEACHER_PROMPTS = ("user", "system")

ANSWER_REQUEST = "Show your work, then give the final answer within \\boxed{}."
REFERENCE_LABEL = "Reference Answer: "
OWN_WAY_REQUEST = (
    "Make sure that you understand why this reference is right. Then solve the problem in your own way: write every "
    "step out in detail, and give the final answer within \\boxed{}."
)


def student_prompt_ids(tokenizer: PreTrainedTokenizerBase, question: str) -> list[int]:
    """Token ids of the question, and where the answer is expected. Errors as `chat_ids`."""
    return chat_ids(tokenizer, [_asked(question)])


def teacher_prompt_ids(tokenizer: PreTrainedTokenizerBase, question: str, reference: str, form: str) -> list[int]:
    """Token ids of the student's question together with the reference, in one of `TEACHER_PROMPTS`.

    Raises ValueError for another form, and for an empty reference, without which the teacher would be another student;
    and as `chat_ids`.
    """
    if not reference.strip():
        raise ValueError(f"reference of the question {question[:80]!r} is empty; expected what the teacher is to see")
    if form not in TEACHER_PROMPTS:
        raise ValueError(f"form must be one of {', '.join(TEACHER_PROMPTS)}, got {form!r}")
    shown = f"{REFERENCE_LABEL}{reference}"
    if form == "user":
        return chat_ids(tokenizer, [{"role": "user", "content": f"{question}\n\n{shown}\n\n{OWN_WAY_REQUEST}"}])
    default = default_system_message(tokenizer)
    before = f"{default}\n\n" if default else ""
    return chat_ids(tokenizer, [{"role": "system", "content": f"{before}{shown}"}, _asked(question)])


def chat_ids(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """Token ids of a conversation in the tokenizer's chat template, up to where the assistant's response begins.

    Raises ValueError if the tokenizer has no chat template or the template refuses the messages; and as `text_ids`.
    """
    # The template writes every special token itself, the first one included.
    return text_ids(tokenizer, _render(tokenizer, messages), add_special_tokens=False)


def text_ids(tokenizer: PreTrainedTokenizerBase, text: str, *, add_special_tokens: bool) -> list[int]:
    """Token ids of a text. ValueError if the tokenizer has no tokens for it."""
    try:
        text.encode()  # says what is wrong with half of a surrogate pair, which tokenizers does not
        return list(tokenizer.encode(text, add_special_tokens=add_special_tokens))
    except Exception as error:  # the tokenizers library raises plain Exception for a character it has no token for
        raise ValueError(f"prompt {text[:80]!r} cannot be written in the model's tokens: {error}") from error


def default_system_message(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """What the chat template puts into a system message when a conversation has none; None if it makes none.

    Found by comparing the conversation with and without one. Raises ValueError as `chat_ids`, and for a template that
    drops system messages.
    """
    marker, user = "SYSTEM-MESSAGE", {"role": "user", "content": "USER-MESSAGE"}
    before, found, after = _render(tokenizer, [{"role": "system", "content": marker}, user]).partition(marker)
    if not found:
        raise ValueError(
            "teacher_prompt is 'system', but the tokenizer's chat template drops system messages; expected 'user'"
        )
    without = _render(tokenizer, [user])
    if without.startswith(before) and without.endswith(after) and len(without) > len(before) + len(after):
        return without[len(before) : len(without) - len(after)]
    return None


def _render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(
            "the model's tokenizer has no chat template, which this task's prompts need; use an instruction-tuned "
            "checkpoint, or put its chat_template.jinja beside tokenizer_config.json"
        )
    try:
        return str(tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False))
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in messages)
        raise ValueError(f"the tokenizer's chat template refuses messages of the roles {roles}: {error}") from error


def _asked(question: str) -> Message:
    return {"role": "user", "content": f"{question}\n\n{ANSWER_REQUEST}"}
