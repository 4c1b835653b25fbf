"""A canvas that fills, shown in the terminal after every forward."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text
from torch import Tensor

from tad_ext.terminal import printable

MASK, MASK_STYLE, NEWEST_STYLE = "░", "dim", "bold green"
_SECONDS_BETWEEN_FRAMES = 0.05


def terminal() -> Console | None:
    """Where a live view can be shown: standard output, if it is a terminal."""
    return Console(highlight=False) if sys.stdout.isatty() else None


def rates(tokens: int, forwards: int, seconds: float) -> str:
    """ "57 tokens in 12 forwards, 4.75 per forward, 31 tokens/s" """
    per_forward, per_second = tokens / max(forwards, 1), tokens / max(seconds, 1e-9)
    return f"{tokens} tokens in {forwards} forwards, {per_forward:.2f} per forward, {per_second:.0f} tokens/s"


class LiveView:
    """Shows the one prompt that is being answered: revealed text, masks as blocks, the newest tokens highlighted.

    A context manager; `watch` is what `decode_stream` calls. The view vanishes when the block ends.

    Args:
        decode: token ids to text, special tokens left out.
        mask, ends: the ids of the mask and of the ends of sequence.
    """

    def __init__(self, console: Console, decode: Callable[[list[int]], str], mask: int, ends: Sequence[int]) -> None:
        self.decode, self.mask, self.ends = decode, mask, frozenset(ends)
        self.canvas: list[int] = []
        self.reveal_step: list[int] = []
        self.forwards = 0
        self.started = self.drawn = time.perf_counter()
        self._live = Live(self, console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def watch(self, numbers: list[int], canvas: Tensor, reveal_step: Tensor) -> None:
        """Takes the first canvas of a batch, and shows it unless the last one was shown a moment ago."""
        self.canvas, self.reveal_step = canvas[0].tolist(), reveal_step[0].tolist()
        self.forwards += 1
        now = time.perf_counter()
        if now - self.drawn >= _SECONDS_BETWEEN_FRAMES or self.forwards == 1:
            self.drawn = now
            self._live.refresh()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = self.text().wrap(console, options.max_width)
        room = max(console.height - 2, 1)  # of a longer canvas, the part around the first mask
        first_mask = next((place for place, line in enumerate(lines) if MASK in line.plain), len(lines))
        start = max(0, min(first_mask - room // 2, len(lines) - room))
        yield from lines[start : start + room]
        counts = rates(self.tokens(), self.forwards, time.perf_counter() - self.started)
        yield Text(counts, style="dim", no_wrap=True, overflow="ellipsis")

    def tokens(self) -> int:
        """Revealed so far, up to and including the first end-of-sequence token."""
        revealed = [token for token in self.canvas if token != self.mask]
        return next((place + 1 for place, token in enumerate(revealed) if token in self.ends), len(revealed))

    def text(self) -> Text:
        """The canvas as it is now."""
        newest, text = max(self.reveal_step, default=0), Text()
        for masked, group in groupby(range(len(self.canvas)), key=lambda place: self.canvas[place] == self.mask):
            places = list(group)
            if masked:
                text.append(MASK * len(places), style=MASK_STYLE)
                continue
            new = [self.reveal_step[place] == newest for place in places]
            for is_new, piece in _pieces([self.canvas[place] for place in places], new, self.decode):
                text.append(piece, style=NEWEST_STYLE if is_new else "")
        return text


def _pieces(ids: list[int], marks: list[bool], decode: Callable[[list[int]], str]) -> Iterator[tuple[bool, str]]:
    """The text of `ids`, cut where the mark changes.

    Tokens have no text of their own: a space may depend on the neighbour, and a character may take several tokens. So
    a piece is what the text grows by.
    """
    whole, start, end = printable(decode(ids)), 0, 0
    for mark, group in groupby(marks):
        end += len(list(group))
        so_far = printable(decode(ids[:end]))
        stop = len(whole) if end == len(ids) else max(start, _shared(whole, so_far))
        yield mark, whole[start:stop]
        start = stop


def _shared(one: str, other: str) -> int:
    """How many characters two texts begin with together."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def view_of(session: Any, console: Console) -> LiveView:
    """The view of what a `Session` decodes."""
    return LiveView(
        console,
        lambda ids: session.tokenizer.decode(ids, skip_special_tokens=True),
        session.tokens.mask,
        session.tokens.end,
    )
