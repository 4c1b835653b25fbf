"""A chat in the terminal: turns are read line by line, and answered with the conversation so far."""

from __future__ import annotations

import time

from tad_ext import interrupts
from tad_ext.data.prompts import Message, chat_ids
from tad_ext.jobs.generate.live_view import rates, terminal, view_of
from tad_ext.jobs.generate.session import Session


def chat(session: Session) -> None:
    """Answers what is typed until end of file (Ctrl-D). Ctrl-C stops an answer, which is then no part of the
    conversation, nor is its question.

    Raises:
        ValueError: the tokenizer has no chat template.
    """
    if not getattr(session.tokenizer, "chat_template", None):
        raise ValueError(f"interactive: the tokenizer of '{session.config.model}' has no chat template; use --prompt")
    session.load()
    print("a chat with the model; Ctrl-C stops an answer, Ctrl-D ends the chat")
    messages: list[Message] = []
    turn = 0
    while True:
        try:
            question = input("> ")
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            interrupts.forget()
            print("\n(Ctrl-D ends the chat)")
            continue
        if not question.strip():
            continue
        messages.append({"role": "user", "content": question})
        try:
            answer = _answer(session, messages, turn)
        except KeyboardInterrupt:
            interrupts.forget()
            print("(stopped; this turn is forgotten)")
            messages.pop()
        except ValueError as error:  # a turn that the model cannot read is no reason to lose the others
            print(f"(not answered: {error})")
            messages.pop()
        else:
            messages.append({"role": "assistant", "content": answer})
            turn += 1


def _answer(session: Session, messages: list[Message], turn: int) -> str:
    prompt = _fitting(session, messages)
    started, console = time.perf_counter(), terminal()
    if console is None:
        [row] = session.stream({turn: prompt})
    else:
        with view_of(session, console) as view:
            [row] = session.stream({turn: prompt}, view.watch)
    text = session.text(row)
    print(text)
    if console is not None:
        console.print(rates(row.response_length, row.forwards, time.perf_counter() - started), style="dim")
    return text


def _fitting(session: Session, messages: list[Message]) -> list[int]:
    """Token ids of the conversation; its oldest turns are forgotten until it fits into the model. ValueError if the
    last question alone does not.
    """
    kept = list(messages)
    while True:
        prompt = chat_ids(session.tokenizer, kept)
        try:
            session.check([prompt])
            break
        except ValueError:
            if len(kept) == 1:
                raise
            del kept[:2]
    if len(kept) < len(messages):
        print("(the conversation is too long for the model: its oldest turns are forgotten)")
        messages[:] = kept
    return prompt
