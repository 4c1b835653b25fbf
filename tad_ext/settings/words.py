"""Values from the words of a command line.

``--key value`` or ``--key=value``, ``_`` and ``-`` being the same in a key. A list takes the words up to the next
option, and is continued where its key is given again; of any other key the last one counts. An option that is true or
false is written ``--key`` and ``--no-key``, or with a value. A word that reads like an option is one: a value such as
``--end`` needs the form with ``=``, one such as ``-5+3`` does not.
"""

import re
from collections import deque
from collections.abc import Sequence
from typing import Any

from .kinds import shortened
from .options import Option, OptionError, did_you_mean

_OPTION = re.compile(r"(--[A-Za-z][\w-]*)(?:=(.*))?", re.DOTALL)


def from_words(argv: Sequence[str], options: Sequence[Option]) -> dict[str, Any]:
    """The values that are given, by the option's name. Raises OptionError."""
    known = {flag: option for option in options for flag in option.flags}
    found: dict[str, list[str]] = {}
    words, previous = deque(argv), None
    while words:
        word = words.popleft()
        match = _OPTION.fullmatch(word)
        flag = match[1].replace("_", "-") if match else word
        if match is None or flag not in known:
            raise OptionError(f"unknown argument {shortened(word)}{_hint(word, previous, [*known])}")
        option = previous = known[flag]
        given = _values(option, flag, match[2], words)
        found[option.name] = found.get(option.name, []) + given if option.kind.is_list else given
    return {option.name: _value(option, found[option.name]) for option in options if option.name in found}


def _values(option: Option, flag: str, attached: str | None, words: deque[str]) -> list[str]:
    """The words that are the option's values, taken from `words` but for one attached with =."""
    if flag == option.negation:
        if attached is not None:
            raise OptionError(f"{flag} takes no value, got '{shortened(attached)}'; expected {flag} or {option.flag}")
        return ["false"]
    given = [] if attached is None else [attached]
    while words and _OPTION.fullmatch(words[0]) is None and (option.kind.is_list or not given):
        given.append(words.popleft())
    if given or option.negation:
        return given or ["true"]
    hint = f"; a value that begins with -- is written {flag}={shortened(words[0])}" if words else ""
    raise OptionError(f"argument {flag}: expected {'at least one' if option.kind.is_list else 'one'} argument{hint}")


def _hint(word: str, previous: Option | None, known: list[str]) -> str:
    if spelling := did_you_mean(word.replace("_", "-"), known):
        return spelling
    if previous is not None and previous.kind.is_list and word.startswith("--"):
        return f"; as a value of {previous.flag} it is written {previous.flag}={shortened(word)}"
    return ""


def _value(option: Option, words: list[str]) -> Any:
    """Lists may be written `0.1 0.3` or `0.1,0.3`; `none` stands for None."""
    shown = shortened(" ".join(words))
    if option.kind.is_list and not option.commas:
        words = [word for part in words for word in part.split(",") if word]
    if len(words) == 1 and option.kind.is_none(words[0]):
        return None
    try:
        values = [option.kind.from_text(word) for word in words]
    except ValueError:
        raise OptionError(f"{option.flag} is '{shown}'; expected {option.kind.expected}") from None
    return values if option.kind.is_list else values[0]
