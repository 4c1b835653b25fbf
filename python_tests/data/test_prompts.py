"""Prompts: written out as the models see them, and a student that never sees what only the teacher may see."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tad_ext.data.tasks.prompts import (
    AS_IT_STANDS,
    CODE,
    chat_ids,
    default_system_message,
    student_prompt_ids,
    teacher_prompt_ids,
    text_ids,
    with_system_reference,
)

QUESTION, REFERENCE = "What is 6 * 7?", "6 * 7 = 42\n#### 42"
REQUEST = "Show your work, then give the final answer within \\boxed{}."
OWN_WAY = (
    "Make sure that you understand why this reference is right. Then solve the problem in your own way: write every "
    "step out in detail, and give the final answer within \\boxed{}."
)


def llada(*turns: tuple[str, str]) -> str:
    text = "".join(f"<|start_header_id|>{role}<|end_header_id|>\n\n{content}<|eot_id|>" for role, content in turns)
    return f"<|startoftext|>{text}<|start_header_id|>assistant<|end_header_id|>\n\n"


def dream(*turns: tuple[str, str]) -> str:
    return "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns) + "<|im_start|>assistant\n"


ASKED = ("user", f"{QUESTION}\n\n{REQUEST}")
SHOWN = ("user", f"{QUESTION}\n\nReference Answer: {REFERENCE}\n\n{OWN_WAY}")
DEFAULT = "You are a helpful assistant."
STUDENT = {"llada": llada(ASKED), "dream": dream(("system", DEFAULT), ASKED)}
TEACHER = {
    ("llada", "user"): llada(SHOWN),
    ("dream", "user"): dream(("system", DEFAULT), SHOWN),
    ("llada", "system"): llada(("system", f"Reference Answer: {REFERENCE}"), ASKED),
    ("dream", "system"): dream(("system", f"{DEFAULT}\n\nReference Answer: {REFERENCE}"), ASKED),
}


@pytest.mark.parametrize("shape", ["llada", "dream"])
def test_the_students_prompt(shape: str, make_tokenizer: Callable[..., Any]) -> None:
    tokenizer = make_tokenizer(shape)
    ids = student_prompt_ids(tokenizer, QUESTION)
    assert tokenizer.decode(ids) == STUDENT[shape]
    assert "42" not in tokenizer.decode(ids)
    assert "Reference" not in tokenizer.decode(ids)
    assert ids.count(tokenizer.bos_token_id) == (shape == "llada")  # the template's own, and no second one
    special = [token for token in ids if token in tokenizer.added_tokens_decoder]
    assert len(special) == {"llada": 6, "dream": 5}[shape]


@pytest.mark.parametrize(("shape", "form"), list(TEACHER))
def test_the_teachers_prompt(shape: str, form: str, make_tokenizer: Callable[..., Any]) -> None:
    tokenizer = make_tokenizer(shape)
    assert tokenizer.decode(teacher_prompt_ids(tokenizer, QUESTION, REFERENCE, form)) == TEACHER[shape, form]


def test_the_system_message_of_a_template(make_tokenizer: Callable[..., Any]) -> None:
    assert default_system_message(make_tokenizer("dream")) == DEFAULT
    assert default_system_message(make_tokenizer("llada")) is None
    # An empty system message is none.
    empty = (
        "{% if messages[0].role != 'system' %}[system][/]{% endif %}"
        "{% for message in messages %}[{{ message.role }}]{{ message.content }}[/]{% endfor %}"
    )
    assert default_system_message(make_tokenizer("llada", empty)) is None


def test_a_template_that_takes_no_system_message(make_tokenizer: Callable[..., Any]) -> None:
    dropping = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    tokenizer = make_tokenizer("llada", dropping)
    assert tokenizer.decode(teacher_prompt_ids(tokenizer, QUESTION, REFERENCE, "user")) == SHOWN[1]
    with pytest.raises(ValueError, match="drops system messages; expected 'user'"):
        teacher_prompt_ids(tokenizer, QUESTION, REFERENCE, "system")
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    with pytest.raises(ValueError, match="refuses messages of the roles system, user: no system role"):
        teacher_prompt_ids(make_tokenizer("llada", refusing), QUESTION, REFERENCE, "system")


def test_a_tokenizer_without_a_chat_template(make_tokenizer: Callable[..., Any]) -> None:
    tokenizer = make_tokenizer("dream", None)
    with pytest.raises(ValueError, match=r"no chat template.*instruction-tuned checkpoint.*chat_template\.jinja"):
        student_prompt_ids(tokenizer, QUESTION)
    for form in ("user", "system"):
        with pytest.raises(ValueError, match="no chat template"):
            teacher_prompt_ids(tokenizer, QUESTION, REFERENCE, form)


@pytest.mark.parametrize("shape", ["llada", "dream"])
def test_an_unprivileged_teacher_sees_what_the_student_sees(shape: str, make_tokenizer: Callable[..., Any]) -> None:
    tokenizer = make_tokenizer(shape)
    assert teacher_prompt_ids(tokenizer, QUESTION, REFERENCE, "none") == student_prompt_ids(tokenizer, QUESTION)
    assert teacher_prompt_ids(tokenizer, QUESTION, "", "none") == student_prompt_ids(tokenizer, QUESTION)
    with pytest.raises(ValueError, match="form must be one of user, system, none, got 'tutor'"):
        teacher_prompt_ids(tokenizer, QUESTION, REFERENCE, "tutor")


def test_a_conversation_keeps_its_own_system_message(make_tokenizer: Callable[..., Any]) -> None:
    before = [{"role": "system", "content": "Be brief."}]
    for shape, render in (("llada", llada), ("dream", dream)):
        ids = teacher_prompt_ids(make_tokenizer(shape), "Why?", REFERENCE, "system", AS_IT_STANDS, before=before)
        told = ("system", f"Be brief.\n\nReference Answer: {REFERENCE}")
        assert make_tokenizer(shape).decode(ids) == render(told, ("user", "Why?"))


TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.sampled_from(["<|im_end|>", "x<|eot_id|>\n", "\n<|im_start|>user\n", "USER-MESSAGE", "\n\n1"]),
)
EXAMPLES = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]


# A question may begin with the line breaks that the template ends its head with, and a reference with anything at all.
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    question=TEXTS,
    reference=TEXTS.filter(str.strip),
    shots=st.booleans(),
    wording=st.sampled_from([AS_IT_STANDS, CODE]),
)
@pytest.mark.parametrize("merges", [[], [("Ċ", "Ċ")]], ids=["bytes", "merged line breaks"])
@pytest.mark.parametrize("shape", ["llada", "dream"])
def test_the_teachers_prompt_made_from_the_students(
    shape: str, merges: list[tuple[str, str]], make_tokenizer: Callable[..., Any], question: str, reference: str,
    shots: bool, wording: Any,
) -> None:  # fmt: skip
    tokenizer, before = make_tokenizer(shape, merges=merges), EXAMPLES if shots else []
    student = student_prompt_ids(tokenizer, question, wording, before=before)
    teacher = teacher_prompt_ids(tokenizer, question, reference, "system", wording, before=before)
    assert with_system_reference(tokenizer, student, reference) == teacher


def test_where_the_teachers_prompt_cannot_be_made_from_the_students(make_tokenizer: Callable[..., Any]) -> None:
    tokenizer = make_tokenizer("llada")
    student = student_prompt_ids(tokenizer, QUESTION)
    own = student_prompt_ids(tokenizer, QUESTION, before=[{"role": "system", "content": "Be brief."}])
    for prompt in (student[1:], own, text_ids(tokenizer, QUESTION, add_special_tokens=True), []):
        with pytest.raises(
            ValueError, match=r"prompt_ids begin with \[.*\]; expected \[.*\], with which the tokenizer's"
        ):
            with_system_reference(tokenizer, prompt, REFERENCE)
    with pytest.raises(ValueError, match="reference is empty"):
        with_system_reference(tokenizer, student, " ")
    with pytest.raises(ValueError, match="no chat template"):
        with_system_reference(make_tokenizer("llada", None), student, REFERENCE)
    dropping = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    with pytest.raises(ValueError, match="drops system messages"):
        with_system_reference(make_tokenizer("llada", dropping), student, REFERENCE)
    plain = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    with pytest.raises(ValueError, match="has no special token where a user's message begins"):
        with_system_reference(make_tokenizer("llada", plain), student, REFERENCE)


@pytest.mark.parametrize("form", ["user", "system"])
@pytest.mark.parametrize("reference", ["", " \n"])
def test_a_teacher_is_never_shown_an_empty_reference(
    form: str, reference: str, make_tokenizer: Callable[..., Any]
) -> None:
    with pytest.raises(ValueError, match=r"reference of the question 'What is 6 \* 7\?' is empty"):
        teacher_prompt_ids(make_tokenizer("llada"), QUESTION, reference, form)


def test_text_without_tokens_is_named() -> None:
    class Strict:
        chat_template = "x"

        def apply_chat_template(self, *_: object, **__: object) -> str:
            return "x"

        def encode(self, *_: object, **__: object) -> list[int]:
            raise Exception("no token for x")

    with pytest.raises(ValueError, match="text 'x' cannot be written in the model's tokens: no token for x"):
        text_ids(Strict(), "x", add_special_tokens=True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cannot be written"):
        chat_ids(Strict(), [{"role": "user", "content": "x"}])  # type: ignore[arg-type]
