"""A user's own prompts and responses, to be learnt as they stand: the records of `tasks.own_problems`, unchecked.

A response is what the tokenizer's chat template makes of it, or plain text behind its prompt. It ends with its first
end-of-sequence token, which it is given if it has none, and the model's first such token fills the canvas.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tad_ext.data.tasks.own_problems import messages_of
from tad_ext.data.tasks.prompts import chat_ids, response_ids, text_ids
from tad_ext.data.tasks.records import Record, read_records, text_of
from tad_ext.data.trajectories.files import Trajectory

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def read_responses(
    data: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    prompt_format: str,
    eos_token_ids: Sequence[int],
    gen_length: int | None = None,
) -> list[Trajectory]:
    """Every record of a file as a trajectory of a single step; its id is its place in the file ("line 3").

    Args:
        data: as the tasks' (`read_records`).
        prompt_format: "chat": the tokenizer's template; "text": prompt and response as they stand.
        eos_token_ids: of the model, at least one.
        gen_length: length of the canvas; None: that of the longest response.

    Raises:
        ValueError, naming the line: a record that holds no prompt and response, a conversation as plain text, what the
            tokenizer cannot write, a response longer than the canvas. FileNotFoundError.
    """
    if not eos_token_ids:
        raise ValueError("the model has no end-of-sequence tokens, by which a response would end")
    learnt = []
    for place, record in read_records(data, "train", None):
        try:
            prompt, response = _ids(place, record, tokenizer, prompt_format)
        except ValueError as error:
            raise ValueError(str(error) if str(error).startswith(place) else f"{place}: {error}") from error
        end = next((number for number, one in enumerate(response) if one in eos_token_ids), len(response))
        learnt.append((place, prompt, [*response[:end], response[end] if end < len(response) else eos_token_ids[0]]))
    longest = max(len(response) for _, _, response in learnt)
    for place, _, response in learnt:
        if gen_length is not None and len(response) > gen_length:
            raise ValueError(
                f"{place}: the response has {len(response)} tokens with its end, expected at most gen_length, "
                f"{gen_length}; the longest has {longest}"
            )
    return [
        _trajectory(place.removeprefix(f"{data}, "), prompt, response, gen_length or longest, eos_token_ids[0])
        for place, prompt, response in learnt
    ]


def _ids(
    place: str, record: Record, tokenizer: PreTrainedTokenizerBase, prompt_format: str
) -> tuple[list[int], list[int]]:
    messages, response = messages_of(place, record), text_of(place, record, "response")
    if prompt_format == "chat":
        return chat_ids(tokenizer, messages), response_ids(tokenizer, messages, response)
    if len(messages) > 1:
        raise ValueError(f"{place}: a conversation of {len(messages)} messages needs prompt_format chat, got text")
    prompt = text_ids(tokenizer, messages[0]["content"], add_special_tokens=True)
    return prompt, text_ids(tokenizer, response, add_special_tokens=False)


def _trajectory(name: str, prompt: list[int], response: list[int], length: int, fill: int) -> Trajectory:
    return Trajectory(
        id=name,
        sample=0,
        task="sft",
        prompt_ids=np.array(prompt),
        teacher_prompt_ids=np.array(prompt),
        response_ids=np.array(response + [fill] * (length - len(response))),
        reveal_step=np.ones(length, dtype=np.int64),
        num_steps=1,
        correct=True,
        answer=None,
        reference="",
    )
