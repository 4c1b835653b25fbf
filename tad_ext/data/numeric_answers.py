r"""Final answers that are numbers: where a response states one, and the normal form in which two are compared.

A response states its answer in the last ``\boxed{...}``; if there is none, in the last line ``#### ...``; if there is
none either, its last number is taken. A box is the response's own word: what is in it counts, or nothing does.

Numbers are compared exactly. Their normal form is a whole number, or a fraction in lowest terms: ``1,080.00`` is
``1080``, ``0.5`` and ``2/4`` are ``1/2``. Signs of currency and percent are units and change nothing: GSM8K, for whose
answers this is made, asks "what percentage" and expects ``50``.
"""

from __future__ import annotations

import re
from fractions import Fraction

_MOST_CHARACTERS = 100  # of a number; Python refuses to read integers of thousands of digits

_DECIMAL = r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
_FRACTION = rf"(?:(?P<whole>[0-9]+)\ +)?(?P<numerator>{_DECIMAL})\ ?/\ ?(?P<denominator>{_DECIMAL})"  # also 1 1/2
_NUMBER = re.compile(
    rf"""(?<![^\W_]) (?<!\)) (?<![0-9]\.)     # not inside a word or a decimal; a minus there is a subtraction
    (?P<sign>-?[$€£]\ ?-?|-?)
    (?:{_FRACTION}|(?P<decimal>{_DECIMAL}))
    """,
    re.VERBOSE,
)
_NAMED = re.compile(r"[A-Za-z]\w*\s*=\s*")  # "x = 72"
_UNIT = re.compile(r"\s*%?\s*(?:[A-Za-z°][A-Za-z°.'/ -]*)?[.$]?\s*")  # "72 miles/hour.", "$72$"
_MARKED = re.compile(r"^[ \t]*####(?!#)(.*)$", re.MULTILINE)

_BOX = re.compile(r"\\boxed\s*\{")
_LATEX = [
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r" \1/\2"),
    (re.compile(r"\\[dt]?frac\s*([0-9])\s*([0-9])"), r" \1/\2"),
    (re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"(?:,?\\[,!]|\{,\})(?=[0-9]{3})"), ","),  # all of them separate thousands: 1\,080
    (re.compile(r"\\([$%])"), r"\1"),
    (re.compile(r"\\[,!;: ]|~"), " "),
]


def normalize_number(text: str) -> str | None:
    r"""The normal form of a text that is one number and nothing else but a unit ("$1,080.00", "50 %", "x = 3 miles").

    None for anything else, also for two numbers ("3 hours 20 minutes").
    """
    text = _plain(text).strip().strip("*` ")
    named = _NAMED.match(text)
    number = _NUMBER.match(text, named.end() if named else 0)
    return _value(number) if number and _UNIT.fullmatch(text, number.end()) else None


def extract_number(response: str) -> str | None:
    r"""The normal form of a response's final answer: its last box, else its last "####" line, else its last number.

    None if there is none, or if the last box that is not empty holds something else than one number.
    """
    boxed = [content for content in _boxes(response) if content.strip()]
    if boxed:
        return normalize_number(boxed[-1])
    marked = [normalize_number(rest) for rest in _MARKED.findall(response)]
    answers = [answer for answer in marked if answer is not None]  # "#### Step 2" is a heading
    if answers:
        return answers[-1]
    numbers = list(_NUMBER.finditer(_plain(response)))
    return _value(numbers[-1]) if numbers else None


def _boxes(text: str) -> list[str]:
    r"""What stands in each closed ``\boxed{...}``, inner braces included."""
    contents = []
    for opening in _BOX.finditer(text):
        depth = 1
        for place in range(opening.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[place], 0)
            if depth == 0:
                contents.append(text[opening.end() : place])
                break
    return contents


def _plain(text: str) -> str:
    """The text with LaTeX's ways to write a number replaced by plain ones."""
    text = text.replace("\N{MINUS SIGN}", "-")
    for pattern, plain in _LATEX:
        text = pattern.sub(plain, text)
    return text


def _value(number: re.Match[str]) -> str | None:
    if len(number.group()) > _MOST_CHARACTERS:
        return None
    parts = {
        name: Fraction((text or "0").replace(",", "")) for name, text in number.groupdict().items() if name != "sign"
    }
    value = parts["decimal"]
    if number["denominator"] is not None:
        if parts["denominator"] == 0:
            return None
        value = parts["whole"] + parts["numerator"] / parts["denominator"]
    return str(-value if "-" in number["sign"] else value)
