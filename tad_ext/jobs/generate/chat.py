"""A chat in the terminal: turns are read line by line, and answered with the conversation so far."""

import time

from tad_ext import interrupts
from tad_ext.data.tasks.prompts import Message, chat_ids
from tad_ext.jobs.generate.live_view import live_view, print_rates, rates
from tad_ext.jobs.generate.session import Session


def chat(session: Session) -> None:
    """Answers what is typed until end of file (Ctrl-D). Ctrl-C stops an answer, and its turn is forgotten.

    Raises ValueError if the tokenizer has no chat template.
    """
    if not getattr(session.tokenizer, "chat_template", None):
        raise ValueError(f"interactive: the tokenizer of '{session.config.model}' has no chat template; use --prompt")
    _ = session.model  # loaded before the first question
    print("a chat with the model; Ctrl-C stops an answer, Ctrl-D ends the chat")
    messages: list[Message] = []
    turn = 0
    while True:
        # 1. A question.
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

        # 2. Its answer, without which it is forgotten.
        messages.append({"role": "user", "content": question})
        try:
            answer = _answer(session, messages, turn)
        except KeyboardInterrupt:
            interrupts.forget()
            print("(stopped; this turn is forgotten)")
        except ValueError as error:  # a turn that the model cannot read is no reason to lose the others
            print(f"(not answered: {error})")
        else:
            messages.append({"role": "assistant", "content": answer})
            turn += 1
            continue
        messages.pop()


def _answer(session: Session, messages: list[Message], turn: int) -> str:
    """Prints and returns the answer to the last message. Messages lose the oldest turns until they fit into the model.

    ValueError if the last question alone does not fit.
    """
    for first in range(0, len(messages), 2):
        prompt = chat_ids(session.tokenizer, messages[first:])
        try:
            session.check([prompt])
            break
        except ValueError:
            if first == len(messages) - 1:
                raise
    if first:
        print("(the conversation is too long for the model: its oldest turns are forgotten)")
        del messages[:first]

    started = time.perf_counter()
    with live_view(session) as watch:
        [sequence] = session.stream({turn: prompt}, watch)
    text = session.text(sequence)
    print(text)
    print_rates(rates(sequence.response_length, sequence.forwards, time.perf_counter() - started))
    return text
