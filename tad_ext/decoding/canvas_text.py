"""A canvas as text for a terminal: revealed text, masks as blocks, the newest tokens highlighted."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from rich.console import Console
from rich.text import Text

from tad_ext.terminal import printable

MASK, MASK_STYLE, NEWEST_STYLE = "░", "dim", "bold green"


def terminal() -> Console | None:
    """Standard output, if it is a terminal."""
    return Console(highlight=False) if sys.stdout.isatty() else None


def canvas_text(canvas: Sequence[int], newest: Sequence[bool], mask: int, decode: Callable[[list[int]], str]) -> Text:
    """The text of a canvas in which `newest` marks the tokens to highlight, masks aside. `decode` gives a text without
    special tokens.
    """
    text = Text()
    places = list(zip(canvas, newest, strict=True))
    for masked, group in groupby(places, key=lambda place: place[0] == mask):
        ids, marks = zip(*group, strict=True)
        if masked:
            text.append(MASK * len(ids), style=MASK_STYLE)
        else:
            for is_new, piece in _pieces(list(ids), list(marks), decode):
                text.append(piece, style=NEWEST_STYLE if is_new else "")
    return text


def screenful(text: Text, console: Console, width: int) -> list[Text]:
    """The lines of a canvas that fit the screen, with one to spare: of a longer one, the part around the first mask."""
    lines = list(text.wrap(console, width))
    room = max(console.height - 2, 1)
    first_mask = next((place for place, line in enumerate(lines) if MASK in line.plain), len(lines))
    start = max(0, min(first_mask - room // 2, len(lines) - room))
    return lines[start : start + room]


def _pieces(ids: list[int], marks: list[bool], decode: Callable[[list[int]], str]) -> Iterator[tuple[bool, str]]:
    """The text of `ids`, cut where the mark changes.

    Tokens have no text of their own: a space may depend on the neighbour, and a character may take several tokens. So
    a piece is what the text grows by.
    """
    whole, start, end = printable(decode(ids)), 0, 0
    for mark, group in groupby(marks):
        end += len(list(group))
        shared = os.path.commonprefix([whole, printable(decode(ids[:end]))])  # noqa: RUF071 - of any two texts
        stop = len(whole) if end == len(ids) else max(start, len(shared))
        yield mark, whole[start:stop]
        start = stop
