r"""From a problem to the token ids of its prompts: chat messages, put into the tokenizer's own chat template.

The student sees the question, and a request that says what the answer is to look like (`Wording`). The teacher sees the
reference, too, in one of the forms that are published for TAD (arXiv 2605.09536); the wording is this project's own:

"user"      the collection's: the user's message holds the question, the reference, and the request to understand the
            reference and to solve the problem in one's own way, in detailed steps
"system"    the training's: the student's messages, and before them the reference in a system message
            ``Reference Answer: ...``, behind the system message that the template puts there itself (Dream's), if any
"none"      the ablation without privileged information (Table 4): the student's prompt

The published code collects with the first form and trains with the second. A trajectory stores the prompt that it was
collected with, "user" by default, and the teacher sees that in training, too, unless `tad distill` is told otherwise.
`with_system_reference` makes the second form from the student's token ids, when the reference is known.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jinja2 import TemplateError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, str]  # {"role": "user", "content": "..."}

UNPRIVILEGED: Final = "none"
TEACHER_PROMPTS = ("user", "system", UNPRIVILEGED)
OWN_FORM = "own"  # of a task whose prompts are no conversations

REFERENCE_LABEL = "Reference Answer: "
_SYSTEM_MARK, _USER_MARK = "SYSTEM-MESSAGE", "USER-MESSAGE"


@dataclass(frozen=True)
class Wording:
    """What the last message asks for, behind the question: the student's, and the teacher's of the form "user"."""

    student: str  #: empty: the question stands alone
    teacher: str


_UNDERSTAND = "Make sure that you understand why this reference is right. Then solve the problem in your own way: "
BOXED = Wording(
    "Show your work, then give the final answer within \\boxed{}.",
    f"{_UNDERSTAND}write every step out in detail, and give the final answer within \\boxed{{}}.",
)
CODE = Wording(
    "Give all of the code in one block that begins with ```python and ends with ```.",
    f"{_UNDERSTAND}give all of the code in one block that begins with ```python and ends with ```.",
)
AS_IT_STANDS = Wording("", f"{_UNDERSTAND}write every step out in detail.")


def student_prompt_ids(
    tokenizer: PreTrainedTokenizerBase, question: str, wording: Wording = BOXED, *, before: Sequence[Message] = ()
) -> list[int]:
    """Token ids of the question, behind the messages `before` it: examples, or a conversation. Errors as `chat_ids`."""
    return chat_ids(tokenizer, [*before, {"role": "user", "content": asked_text(question, wording)}])


def asked_text(question: str, wording: Wording) -> str:
    """What the user's message says: the question, and what the answer is to look like."""
    return f"{question}\n\n{wording.student}" if wording.student else question


def teacher_prompt_ids(
    tokenizer: PreTrainedTokenizerBase,
    question: str,
    reference: str,
    form: str,
    wording: Wording = BOXED,
    *,
    before: Sequence[Message] = (),
) -> list[int]:
    """Token ids of the student's question together with the reference, in one of `TEACHER_PROMPTS`.

    Raises ValueError for another form, and for an empty reference, without which the teacher would be another student;
    and as `chat_ids`.
    """
    if form not in TEACHER_PROMPTS:
        raise ValueError(f"form must be one of {', '.join(TEACHER_PROMPTS)}, got {form!r}")
    asked: Message = {"role": "user", "content": asked_text(question, wording)}
    if form == "none":
        return chat_ids(tokenizer, [*before, asked])
    if not reference.strip():
        raise ValueError(f"reference of the question {question[:80]!r} is empty; expected what the teacher is to see")
    if form == "user":
        told = {"role": "user", "content": f"{question}\n\n{REFERENCE_LABEL}{reference}\n\n{wording.teacher}"}
        return chat_ids(tokenizer, [*before, told])
    return chat_ids(tokenizer, _with_system_message(tokenizer, [*before, asked], reference))


def with_system_reference(tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int], reference: str) -> list[int]:
    """The teacher's prompt of the form "system", made from the student's: the ids that `teacher_prompt_ids` gives.

    What the chat template writes before the first user's message is exchanged for what it writes there after a system
    message with the reference. Both are cut before a special token, where no tokenizer joins characters.

    Raises ValueError for an empty reference, a prompt that does not begin as the template does without a system
    message, a template in which that beginning cannot be told apart; and as `default_system_message`.
    """
    if not reference.strip():
        raise ValueError("reference is empty; expected what the teacher is to see")
    asked: Message = {"role": "user", "content": _USER_MARK}
    told = _with_system_message(tokenizer, [asked], reference)
    plain, shown = (_render(tokenizer, messages).rpartition(_USER_MARK)[0] for messages in ([asked], told))
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(reversed(plain), reversed(shown)))
    shared = "".join(character for character, _ in same)[::-1]
    specials = [token for token in map(str, tokenizer.get_added_vocab()) if token in shared]
    if not specials:
        raise ValueError(
            "the tokenizer's chat template has no special token where a user's message begins, so a system message "
            "cannot be put before a prompt's token ids"
        )
    opening = shared[min(shared.index(token) for token in specials) :]
    start, system = (_head_ids(tokenizer, text, opening) for text in (plain, shown))
    # Blanks at its end may be one token with the message's first characters.
    expected = [*start, *text_ids(tokenizer, opening.rstrip(), add_special_tokens=False)]
    if list(prompt_ids[: len(expected)]) != expected:
        raise ValueError(
            f"prompt_ids begin with {list(prompt_ids[: len(expected)])}; expected {expected}, with which the "
            f"tokenizer's chat template opens a conversation without a system message"
        )
    return [*system, *prompt_ids[len(start) :]]


def _head_ids(tokenizer: PreTrainedTokenizerBase, text: str, opening: str) -> list[int]:
    """Token ids of the text before its end, `opening`. ValueError if the tokenizer does not cut there."""
    ids, end = (text_ids(tokenizer, part, add_special_tokens=False) for part in (text, opening))
    if ids[len(ids) - len(end) :] != end:
        raise ValueError(f"the tokenizer joins what the chat template writes before {opening!r} with it")
    return ids[: len(ids) - len(end)]


def chat_ids(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """Token ids of a conversation in the tokenizer's chat template, up to where the assistant's response begins.

    Raises ValueError if the tokenizer has no chat template or the template refuses the messages; and as `text_ids`.
    """
    # The template writes every special token itself, the first one included.
    return text_ids(tokenizer, _render(tokenizer, messages), add_special_tokens=False)


def response_ids(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], response: str) -> list[int]:
    """Token ids of the assistant's response behind `chat_ids`, with what the template writes behind it.

    Raises ValueError as `chat_ids`, and for a template in which a response does not follow its prompt.
    """
    prompt = _render(tokenizer, messages)
    told = _render(tokenizer, [*messages, {"role": "assistant", "content": response}], complete=True)
    if not told.startswith(prompt):
        raise ValueError(
            "the tokenizer's chat template writes a conversation otherwise once the assistant has answered, so what "
            "is to be learnt behind a prompt cannot be told; expected prompt_format text"
        )
    return text_ids(tokenizer, told.removeprefix(prompt), add_special_tokens=False)


def text_ids(tokenizer: PreTrainedTokenizerBase, text: str, *, add_special_tokens: bool) -> list[int]:
    """Token ids of a text. ValueError if the tokenizer has no tokens for it."""
    try:
        text.encode()  # says what is wrong with half of a surrogate pair, which tokenizers does not
        return list(tokenizer.encode(text, add_special_tokens=add_special_tokens))
    except Exception as error:  # the tokenizers library raises plain Exception for a character it has no token for
        raise ValueError(f"text {text[:80]!r} cannot be written in the model's tokens: {error}") from error


def default_system_message(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """What the chat template puts into a system message when a conversation has none; None if it makes none.

    Found by comparing the conversation with and without one. Raises ValueError as `chat_ids`, and for a template that
    drops system messages.
    """
    user: Message = {"role": "user", "content": _USER_MARK}
    with_one = _render(tokenizer, [{"role": "system", "content": _SYSTEM_MARK}, user])
    before, found, after = with_one.partition(_SYSTEM_MARK)
    if not found:
        raise ValueError(
            "teacher_prompt is 'system', but the tokenizer's chat template drops system messages; expected 'user'"
        )
    without = _render(tokenizer, [user])
    if without.startswith(before) and without.endswith(after) and len(without) > len(before) + len(after):
        return without[len(before) : len(without) - len(after)]
    return None


def _with_system_message(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], reference: str
) -> list[Message]:
    """The messages behind a system message with the reference, which stands behind the one that is there already."""
    own, default = messages[0]["role"] == "system", default_system_message(tokenizer)
    said = messages[0]["content"] if own else default
    content = f"{said}\n\n{REFERENCE_LABEL}{reference}" if said else f"{REFERENCE_LABEL}{reference}"
    return [{"role": "system", "content": content}, *messages[own:]]


def _render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, complete: bool = False) -> str:
    """The conversation up to where the assistant is to respond; or, complete, as it stands."""
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(
            "the model's tokenizer has no chat template, which this task's prompts need; use an instruction-tuned "
            "checkpoint, or put its chat_template.jinja beside tokenizer_config.json"
        )
    try:
        return str(tokenizer.apply_chat_template(list(messages), add_generation_prompt=not complete, tokenize=False))
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in messages)
        raise ValueError(f"the tokenizer's chat template refuses messages of the roles {roles}: {error}") from error
