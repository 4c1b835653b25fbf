r"""LaTeX in answers: what is in a box, and plain text in the place of its numbers (``-1/2`` for ``-\frac{1}{2}``)."""

from collections.abc import Callable

import regex as re

_SUPERSCRIPTS = str.maketrans("⁺⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "+-0123456789")
_END = r"(?![A-Za-z])"  # of a command's name
_BEFORE: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
    (re.compile("\N{MINUS SIGN}"), "-"),
    (re.compile(r"(?:,?\\[,!]|\{,\}|(?<=[0-9])['\u2019\u00a0\u2009\u202f])(?=[0-9]{3}(?![0-9]))"), ","),  # of thousands
    (re.compile(r"\\([$%€£¥])"), r"\1"),
    (re.compile(rf"\\(?:text)?(?:dollar|euro|pounds|sterling|yen){_END}"), "$"),
    (re.compile(rf"(?:\\times{_END}|⋅|(?:\\cdot{_END}|·)(?=\s*+10\s*+\^))"), "\N{MULTIPLICATION SIGN}"),
    (re.compile(rf"\\cdot{_END}"), "·"),
    (re.compile(r"[⁺⁻]?+[⁰¹²³⁴⁵⁶⁷⁸⁹]++"), lambda found: "^" + found[0].translate(_SUPERSCRIPTS)),
    (re.compile(rf"\\(?:text[a-z]*+|math[a-z]*+|mbox|emph|bm|boldsymbol|displaystyle|bf|rm){_END}"), " "),
    (re.compile(rf"\\[,!;: ]|\\q?quad{_END}|~"), " "),
]
_AFTER = [
    (re.compile(r"[^\S\n]++"), " "),
    (re.compile(r" ?\^ ?"), "^"),
    (re.compile(rf" ?(?:\^\\circ{_END}|\\degree{_END}|º)"), "°"),
]
_PIECE = re.compile(rf"\\[cdt]?frac{_END}|[{{}}0-9\\]|\s++|[^\\{{}}0-9\s]++")


def last_box(text: str, *commands: str) -> str | None:
    r"""What stands in the last closed ``\boxed{...}`` that is not empty, inner braces included. None if there is none.

    Further commands that count as boxes are named without their backslash: "fbox".
    """
    brace_or_box = re.compile(rf"\\(?:{'|'.join(('boxed', *commands))})\s*+\{{|[{{}}]")
    boxes: list[tuple[int, int]] = []
    open_braces: list[int | None] = []  # where what is boxed begins; None for another brace
    for brace in brace_or_box.finditer(text):
        if brace[0] != "}":
            open_braces.append(None if brace[0] == "{" else brace.end())
        elif open_braces and (start := open_braces.pop()) is not None:
            boxes.append((start, brace.start()))
    contents = (text[start:end] for start, end in sorted(boxes, reverse=True))
    return next((content for content in contents if content.strip()), None)


def plain_text(text: str) -> str:
    r"""The text with fractions as ``1/2``, powers as ``10^3`` behind ``×``, thousands with commas, currency and degrees
    as one sign each, without font commands and braces, and with single blanks. Linear in the text's length.
    """
    for pattern, plain in _BEFORE:
        text = pattern.sub(plain, text)
    if re.search(r"[\\{}]", text):
        text = _without_braces(text)
    for pattern, plain in _AFTER:
        text = pattern.sub(plain, text)
    return text


def _without_braces(text: str) -> str:
    r"""Blanks in the place of braces, and ``a/b`` in the place of ``\frac{a}{b}``, ``\frac ab``."""
    written: list[str] = []
    opened: list[int] = []  # of each open brace: how many arguments a fraction awaited there
    awaited = 0  # arguments of a fraction that have to come now
    for piece in _PIECE.findall(text):
        if piece.endswith("frac"):
            if written and written[-1][-1].isalnum():
                written.append(" ")  # 1\frac{1}{2} is a mixed number
            awaited = 2
        elif piece == "{":
            opened.append(awaited)
            written += [] if awaited else [" "]
            awaited = 0
        elif piece == "}":
            ended = opened.pop() if opened else 0
            written.append("/" if ended == 2 else " ")
            awaited = max(ended - 1, 0)
        elif awaited and piece.isdecimal():
            written.append(piece + ("/" if awaited == 2 else " "))
            awaited -= 1
        elif not (awaited and piece.isspace()):
            written.append(piece)
            awaited = 0
    return "".join(written)
