"""Prompts and responses of a user's file: the tokens that are learnt of them, by hand, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from word_checkpoints import WORDS, write_words_model

from tad_ext.data.own_responses import read_responses
from tad_ext.models.loading import load_tokenizer

MASK, EOS, UNKNOWN, ONE, TWO, THREE = range(len(WORDS))
# The turns of the user begin with "one", those of the assistant with "two" and end with an end of sequence and "three".
TEMPLATE = (
    "{% for message in messages %}{% if message.role == 'assistant' %}two {{ message.content }} <eos> three "
    "{% else %}one {{ message.content }} {% endif %}{% endfor %}{% if add_generation_prompt %}two {% endif %}"
)


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    return load_tokenizer(write_words_model(tmp_path / "model", chat_template=TEMPLATE))


def written(folder: Path, *records: Any) -> str:
    path = folder / "responses.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def test_plain_text_ends_and_fills_the_canvas(tmp_path: Path, tokenizer: Any) -> None:
    data = written(
        tmp_path,
        {"prompt": "one two", "response": "three"},
        {"prompt": "two", "response": "one one three"},
        {"prompt": "two", "response": "three <eos> one"},
    )
    options: dict[str, Any] = {"prompt_format": "text", "eos_token_ids": (EOS, TWO)}
    found = read_responses(data, tokenizer, **options)
    assert [one.prompt_ids.tolist() for one in found] == [[ONE, TWO], [TWO], [TWO]]
    assert [one.response_ids.tolist() for one in found] == [
        [THREE, EOS, EOS, EOS],
        [ONE, ONE, THREE, EOS],
        [THREE, EOS, EOS, EOS],  # what stands behind its end is not learnt
    ]
    assert [one.id for one in found] == ["line 1", "line 2", "line 3"]
    assert {one.num_steps for one in found} == {1}
    longer = read_responses(data, tokenizer, gen_length=6, **options)
    assert longer[1].response_ids.tolist() == [ONE, ONE, THREE, EOS, EOS, EOS]
    with pytest.raises(ValueError, match=r"line 2: the response has 4 tokens with its end, expected at most"):
        read_responses(data, tokenizer, gen_length=3, **options)


def test_a_chat_is_what_the_template_makes_of_it(tmp_path: Path, tokenizer: Any) -> None:
    said = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    data = written(
        tmp_path,
        {"prompt": "three", "response": "one"},
        {"messages": [*said, {"role": "user", "content": "three"}], "response": "one one"},
    )
    found = read_responses(data, tokenizer, prompt_format="chat", eos_token_ids=(TWO, EOS))
    assert found[0].prompt_ids.tolist() == [ONE, THREE, TWO]
    assert found[0].response_ids.tolist() == [ONE, EOS, TWO]  # the template's own end, then the model's first
    assert found[1].prompt_ids.tolist() == [ONE, ONE, TWO, TWO, EOS, THREE, ONE, THREE, TWO]
    assert found[1].response_ids.tolist() == [ONE, ONE, EOS]


@pytest.mark.parametrize(
    ("record", "form", "message"),
    [
        ({"prompt": "one"}, "text", "'response' must be a text that is not empty, got None"),
        ({"response": "one"}, "text", "'prompt' must be a text that is not empty, got None"),
        ({"prompt": [], "response": "one"}, "chat", "'prompt' must end with a message of the user"),
        (
            {"prompt": [{"role": "system", "content": "two"}, {"role": "user", "content": "one"}], "response": "one"},
            "text",
            "a conversation of 2 messages needs prompt_format chat, got text",
        ),
    ],
)
def test_a_record_that_cannot_be_learnt_is_named(
    record: dict[str, Any], form: str, message: str, tmp_path: Path, tokenizer: Any
) -> None:
    data = written(tmp_path, {"prompt": "one", "response": "two"}, record)
    with pytest.raises(ValueError, match=rf"^{data}, line 2: {message}"):
        read_responses(data, tokenizer, prompt_format=form, eos_token_ids=(EOS,))


def test_templates_and_models_that_say_no_end_are_refused(tmp_path: Path, tokenizer: Any) -> None:
    data = written(tmp_path, {"prompt": "one", "response": "two"})
    with pytest.raises(ValueError, match="the model has no end-of-sequence tokens"):
        read_responses(data, tokenizer, prompt_format="chat", eos_token_ids=())
    tokenizer.chat_template = "{{ messages | length }}"
    with pytest.raises(ValueError, match="line 1: the tokenizer's chat template writes a conversation otherwise"):
        read_responses(data, tokenizer, prompt_format="chat", eos_token_ids=(EOS,))
