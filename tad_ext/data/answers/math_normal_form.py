r"""One spelling of a mathematical answer: ``$x = \dfrac12 \text{ cm}$.`` becomes ``x=\frac{1}{2}``.

What is left out says nothing about the value, or counts as not said: spacing, fonts, delimiters of mathematics, sizes
of brackets, currency, and units, degrees and per cent among them. Right answers of MATH have units or lack them as it
happens (of 25 per cent 11 lack the sign), and graders usually leave them out. So ``50\%`` is ``50``, and not ``0.5``.
"a.m." and "p.m." are no units.

The form stays LaTeX that a parser understands. Equal forms are equal answers; different ones may be.
"""

from collections.abc import Callable
from fractions import Fraction

import regex as re

from tad_ext.data.answers.numbers import normalize_number

MOST_CHARACTERS = 1000  # of an answer that is looked into

_SIGNS = {
    "\N{MINUS SIGN}": "-",
    "\N{EN DASH}": "-",
    "\N{MULTIPLICATION SIGN}": r"\times ",
    "\N{MIDDLE DOT}": r"\cdot ",
    "\N{SQUARE ROOT}": r"\sqrt ",
    "\N{GREEK SMALL LETTER PI}": r"\pi ",
    "\N{INFINITY}": r"\infty ",
    "\N{DEGREE SIGN}": r"^\circ ",
    "\N{PLUS-MINUS SIGN}": r"\pm ",
    "\N{UNION}": r"\cup ",
    "\N{ELEMENT OF}": r"\in ",
    "\N{LESS-THAN OR EQUAL TO}": r"\le ",
    "\N{GREATER-THAN OR EQUAL TO}": r"\ge ",
    "\N{SUPERSCRIPT TWO}": "^2",
    "\N{SUPERSCRIPT THREE}": "^3",
}
_END = r"(?![A-Za-z])"  # of a command's name
_GROUP = r"\{((?:[^{}]|\{[^{}]*\})*)\}"
_FONT = r"\\(?:text(?:bf|it|rm|normal)?|mbox|hbox|math(?:rm|bf|it)|operatorname)"
_ATOM = rf"([0-9A-Za-z]|\\pi{_END})"  # an argument without braces
_WORDS = r"[A-Za-z]{4,}|mm|cm|dm|km|kg|mg|ml|mL|ft|lb|yd|hr|min|sec|mph|sq"  # shorter ones may be products
_MERIDIEM = r"([ap])\.?\s*m\b\.?"

_REWRITTEN: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
    (re.compile(pattern), written)
    for pattern, written in (
        # Delimiters, sizes, fonts
        (r"\\\$|\$|(?<!\\)\\[()\[\]]|\*\*", ""),
        (rf"\\(?:left|right|[bB]igg?[lrm]?){_END}\s*", ""),
        (rf"\\(?:displaystyle|textstyle|bf|rm){_END}", " "),
        # Spacing, which also parts thousands
        (r"(?<=[0-9])\s*(?:,\s*\\!|\{,\})\s*(?=[0-9]{3})", ""),
        (rf"(?<!\\)\\[!,;: ]|\\q?quad{_END}|~|\\?%", " "),
        # One name of what has several
        (rf"\\[dtc]frac{_END}", r"\\frac"),
        (rf"\\([lg])(?:eq|eqslant){_END}", r"\\\1e"),
        (rf"\\varnothing{_END}", r"\\emptyset"),
        (rf"\\lbrace{_END}", r"\\{"),
        (rf"\\rbrace{_END}", r"\\}"),
        (r"\\(begin|end)\{[bB]matrix\}", r"\\\1{pmatrix}"),
        # Text: a conjunction, half of a day, a unit behind what it measures, or the answer itself
        (rf"{_FONT}\s*\{{([ie])\}}", r"\1"),
        (rf",?\s*{_FONT}\s*\{{\s*,?\s*(?:and|or)\s*\}}|,?\s+(?:and|or)\s+", ","),
        (rf"(?i:{_FONT}\s*\{{\s*{_MERIDIEM}\s*\}})", lambda half: f" {half[1].lower()}m"),
        (rf"(?<=[0-9A-Za-z}})!])\s*{_FONT}\s*{_GROUP}(?:\s*\^\s*\{{?[0-9]\}}?)?", ""),
        (rf"{_FONT}\s*{_GROUP}", r"\1"),
        (rf"(?i:(?<=[0-9])\s*{_MERIDIEM})", lambda half: f" {half[1].lower()}m"),
        (rf"(?<=[0-9}})])\s+(?:(?:{_WORDS})\b\.?\s*)+(?:\^\s*\{{?[0-9]\}}?)?\s*$", ""),
        # Arguments and powers, with braces if and only if they are longer than a character
        (rf"\\sqrt\s*{_ATOM}", r"\\sqrt{\1}"),
        (rf"\\frac\s*{_ATOM}", r"\\frac{\1}"),
        (rf"(\\frac\s*{_GROUP})\s*{_ATOM}", r"\1{\3}"),
        (r"([\^_])\s*\{\s*([0-9A-Za-z])\s*\}", r"\1\2"),
        # Blanks that part no two numbers and no two letters
        (r"(?<=[0-9])\s++(?=[0-9.])|(?<=[A-Za-z])\s++(?=[A-Za-z])", " "),
        (r"(?<![0-9A-Za-z])\s++|\s++(?![0-9A-Za-z.])|(?<=[0-9])\s++(?=[A-Za-z])|(?<=[A-Za-z])\s++(?=[0-9.])", ""),
    )
]
_DEGREES = re.compile(rf"\s*\^\s*\{{?\s*\\circ{_END}\s*\}}?|\\degree{_END}")
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)")
_CHOICE = re.compile(r"\(([A-Z])\)")
_NAME = re.compile(rf"(?<![^,])(?:\\?[A-Za-z]+(?:_[0-9A-Za-z])?(?:\+[A-Za-z]+)*|[a-z]\([a-z]\))(?:=|\\in{_END})")


def normal_form(text: str) -> str:
    """The answer in the spelling in which answers are compared; empty if it says nothing."""
    if len(text) > MOST_CHARACTERS:
        return " ".join(text.split())
    for sign, command in _SIGNS.items():
        text = text.replace(sign, command)
    if not _TRIGONOMETRIC.search(text):
        text = _DEGREES.sub(" ", text)
    text = text.strip().rstrip(".").strip()
    for pattern, written in _REWRITTEN:
        text = pattern.sub(written, text)
    text = text.rstrip(".,;: ").lstrip()
    return text if (choice := _CHOICE.fullmatch(text)) is None else choice[1]


def names(form: str) -> set[str]:
    """What the values of a form are called: ``x=`` of ``x=1,x=2``."""
    return set(_NAME.findall(form))


def without_names(form: str) -> str:
    r"""The form of values whose names are not said: ``x=5`` is ``5``, ``x=1,x=2`` is ``1,2``. Equations stay."""
    return _NAME.sub("", form)


def number(form: str) -> Fraction | None:
    """The exact value of a form that is one number."""
    if re.search(r"[A-Za-z]", re.sub(r"\\(?:frac|times|cdot)(?![A-Za-z])", "", form)):
        return None
    value = normalize_number(form)
    return None if value is None else Fraction(value)


def words(form: str) -> list[str] | None:
    """The words of a form that is no mathematics, or the letters of a multiple choice, in alphabetical order."""
    if not re.fullmatch(r"[A-Za-z .,'-]+", form) or not re.search(r"[A-Za-z]{4}|[A-Z]{2}|^[A-Z](?:,[A-Z])*$", form):
        return None
    return sorted(word.strip() for word in form.casefold().split(","))
