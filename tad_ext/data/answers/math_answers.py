r"""Answers that are mathematics: where a response states one, and when two are the same.

Made for MATH (Hendrycks et al., arXiv 2103.03874), whose answers are numbers, expressions, intervals, tuples, matrices,
equations and words. Most comparisons are settled by the normal form (`math_normal_form`), two numbers by their exact
values, and the rest by the library math-verify, which the extra ``math`` installs.
"""

from collections.abc import Iterator

import regex as re

from tad_ext.data.answers.latex import last_box
from tad_ext.data.answers.math_equivalence import equivalent
from tad_ext.data.answers.math_normal_form import MOST_CHARACTERS, names, normal_form, number, without_names, words

_MARKED = re.compile(r"####(?!#)([^\n]*+)\s*+\Z")
_STATED = re.compile(r"\banswer(?:\b[^.:\n]{0,60}?\bis\b:?|\**:)\s*+", re.IGNORECASE)
_SENTENCE = re.compile(r"(?:[^.\n]|\.(?=\S))*+")
_DELIMITER = re.compile(r"\\.|\$\$?", re.DOTALL)
_CLOSING = {"$": "$", "$$": "$$", r"\(": r"\)", r"\[": r"\]"}
_VARIABLE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]")
_RATIO = re.compile(r"\A([0-9]+):([0-9]+)\Z")  # 1:2 is 1/2, but two of them may be times
_NUMERAL = re.compile(r"[0-9][0-9A-Z]*_")  # in another base, which parsers ignore


def extract_math_answer(response: str) -> str | None:
    r"""What a response states as its final answer, as it is written there; None if it states none.

    The last closed ``\boxed{...}`` or ``\fbox{...}`` that is not empty; else a last line ``#### ...``; else what
    follows the last "answer is" or "answer:" in its sentence, only the formulas where it has any; else the last formula
    between ``$``, ``\(`` or ``\[``.
    """
    return next((answer.strip() for answer in _stated(response) if normal_form(answer)), None)


def same_math_answer(gold: str, given: str) -> bool:
    r"""Whether the right answer and a given one are the same, up to spelling, units, and mathematical equivalence.

    Numbers are compared exactly, other decimals to 15 digits: ``0.33`` is not ``1/3``. The order counts in tuples, and
    not in sets and lists. An equation equals its multiples, and ``x = 5`` equals ``5``. Numerals of other bases, times
    and words have to be spelled alike (words in either case). An answer that is empty, or that takes too long to be
    compared, is the same as none. Raises RuntimeError where math-verify is needed and missing, as `check_math_verify`.
    """
    one, other = normal_form(gold), normal_form(given)
    if not one or not other:
        return False
    if one == other:
        return True
    if max(len(one), len(other)) > MOST_CHARACTERS:
        return False
    if names(one) == names(other) or "=" not in one or "=" not in other:
        one, other = without_names(one), without_names(other)
    if one == other:
        return True
    value, other_value = number(one), number(other)
    if value is not None and other_value is not None:
        return value == other_value
    said = words(one)
    if said is not None or words(other) is not None:
        return said == words(other)
    if ("=" in one) != ("=" in other) and _VARIABLE.search(one + other):  # an equation is none of its sides
        return False
    if (":" in one) != (":" in other):
        one, other = _RATIO.sub(r"\1/\2", one), _RATIO.sub(r"\1/\2", other)
    if ":" in one + other or _NUMERAL.search(one) or _NUMERAL.search(other):
        return False
    return equivalent(one, other)


def _stated(response: str) -> Iterator[str]:
    if (box := last_box(response, "fbox")) is not None:
        yield box
    if marked := _MARKED.search(response):
        yield marked[1]
    for stated in reversed(list(_STATED.finditer(response))):
        sentence = _SENTENCE.findall(response[stated.end() : stated.end() + MOST_CHARACTERS])[0]
        formulas = _formulas(sentence)
        yield sentence[formulas[0][0] : formulas[-1][1]] if formulas else sentence.strip("* ")
    yield from (response[start:end] for start, end in reversed(_formulas(response)))


def _formulas(text: str) -> list[tuple[int, int]]:
    """Where the formulas begin and end, with their delimiters."""
    found: list[tuple[int, int]] = []
    opened: re.Match[str] | None = None
    for delimiter in _DELIMITER.finditer(text):
        if opened is not None and delimiter[0] == _CLOSING[opened[0]]:
            found.append((opened.start(), delimiter.end()))
            opened = None
        elif opened is None and delimiter[0] in _CLOSING:
            opened = delimiter
    return found
