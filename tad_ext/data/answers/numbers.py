r"""Final answers that are numbers: where a response states one, and the normal form in which two are compared.

A response states its answer in the last ``\boxed{...}``; if there is none, in the last line ``#### ...``; if there is
none either, its last number is taken. A box is the response's own word: what is in it counts, or nothing does.

Numbers are compared exactly. Their normal form is a whole number, or a fraction in lowest terms: ``1,080.00`` is
``1080``, ``0.5`` and ``2/4`` are ``1/2``, ``1.5 \times 10^3`` is ``1500``. Signs of currency and percent are units and
change nothing: GSM8K, for whose answers this is made, asks "what percentage" and expects ``50``.

A response may be any text of any length, so no pattern here tries a second reading of what it has read: repetitions are
possessive (``*+``), or what follows them cannot be part of them. `regex` reads them, as `re` of Python 3.11.0 to 3.11.4
loses matches of possessive groups.
"""

from fractions import Fraction

import regex as re

from tad_ext.data.answers.latex import last_box, plain_text

_MOST_CHARACTERS = 100  # of a number; Python refuses to read integers of thousands of digits

_CURRENCY = "$€£¥₹₩₽₺₫₱¢"
_DECIMAL = r"(?:(?:[0-9]{1,3}(?:,[0-9]{3}(?![0-9]))++|[0-9]++)(?:\.[0-9]++)?+|\.[0-9]++)"
_NUMBER = re.compile(
    rf"""(?<![^\W_]) (?<!\)) (?<![0-9]\.)     # not inside a word or a decimal; a minus there is a subtraction
    (?<!\^) (?<!\^[-+])                      # nor an exponent, of a unit above all
    (?P<sign>[-+]?[{_CURRENCY}]\ ?[-+]?|[-+]?)
    (?:(?P<whole>[0-9]++)\ (?={_DECIMAL}\ ?/\ ?{_DECIMAL}))?+    # 1 1/2
    (?P<numerator>{_DECIMAL}) (?:\ ?/\ ?(?P<denominator>{_DECIMAL}))?+
    (?:\ ?(?:[\u00d7*x]|times)\ ?10\^(?P<power>[-+]?[0-9]{{1,2}})(?![0-9]|\.[0-9]))?+
    """,
    re.VERBOSE,
)
_NAMED = re.compile(r"[A-Za-z]\w*+\s*+=\s*+")  # "x = 72"
_UNIT = re.compile(  # "72 miles/hour.", "$72$", "12 m^2", "$5/day"
    rf"""\s*+[%{_CURRENCY}]?+\s*+
    (?:(?:/\ ?(?=[A-Za-z]{{2}}))?+[A-Za-z°](?:[A-Za-z°.'/·\ -]|(?<![^A-Za-z][xyz])\^[-+]?[0-9](?![0-9]))*+)?+
    [.$]?+\s*+""",
    re.VERBOSE,
)
_MARKED = re.compile(r"^[ \t]*+####(?!#)(.*)$", re.MULTILINE)


def normalize_number(text: str) -> str | None:
    r"""The normal form of a text that is one number and nothing else but a unit ("$1,080.00", "50 %", "x = 3 miles").

    None for anything else, also for two numbers ("3 hours 20 minutes").
    """
    text = plain_text(text).strip().strip("*` ")
    named = _NAMED.match(text)
    text = re.sub(r"^([-+])\s++", r"\1", text[named.end() :] if named else text)
    number = _NUMBER.match(text)
    return _value(number) if number and _UNIT.fullmatch(text, number.end()) else None


def extract_number(response: str) -> str | None:
    r"""The normal form of a response's final answer: its last box, else its last "####" line, else its last number.

    None if there is none, or if the last box that is not empty holds something else than one number.
    """
    if (box := last_box(response)) is not None:
        return normalize_number(box)
    marked = [answer for rest in _MARKED.findall(response) if (answer := normalize_number(rest))]
    if marked:  # "#### Step 2" is a heading
        return marked[-1]
    numbers = list(_NUMBER.finditer(plain_text(response)))
    return _value(numbers[-1]) if numbers else None


def _value(number: re.Match[str]) -> str | None:
    if len(number.group()) > _MOST_CHARACTERS:
        return None
    parts = (("whole", "0"), ("numerator", "0"), ("denominator", "1"))
    whole, numerator, denominator = (Fraction((number[name] or usual).replace(",", "")) for name, usual in parts)
    if denominator == 0:
        return None
    value = (whole + numerator / denominator) * Fraction(10) ** int(number["power"] or 0)
    normal = str(-value if "-" in number["sign"] else value)
    return normal if len(normal) <= _MOST_CHARACTERS else None
