"""A canvas that fills, shown in the terminal after every forward."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text
from torch import Tensor

from tad_ext.decoding.canvas_text import canvas_text, screenful, terminal
from tad_ext.decoding.loop import Watch
from tad_ext.decoding.result import response_length
from tad_ext.jobs.generate.session import Session

_SECONDS_BETWEEN_FRAMES = 0.05


@contextmanager
def live_view(session: Session) -> Iterator[Watch | None]:
    """What `Session.stream` takes to show the one prompt that it answers; None where there is no terminal."""
    console = terminal()
    if console is None:
        yield None
        return
    tokenizer, tokens = session.tokenizer, session.tokens
    view = LiveView(console, lambda ids: tokenizer.decode(ids, skip_special_tokens=True), tokens.mask, tokens.end)
    with view.live:
        yield view.watch


def print_rates(text: str) -> None:
    """Prints what `rates` gives, for a person who looks at the terminal."""
    if (console := terminal()) is not None:
        console.print(text, style="dim")


def rates(tokens: int, forwards: int, seconds: float) -> str:
    """ "57 tokens in 12 forwards, 4.75 per forward, 31 tokens/s" """
    per_forward, per_second = tokens / max(forwards, 1), tokens / max(seconds, 1e-9)
    return f"{tokens} tokens in {forwards} forwards, {per_forward:.2f} per forward, {per_second:.0f} tokens/s"


class LiveView:
    """Shows the one prompt that is being answered: revealed text, masks as blocks, the newest tokens highlighted.

    It is shown within the block of `live`; `decode_stream` calls `watch`. `decode` gives a text without special tokens.
    """

    def __init__(self, console: Console, decode: Callable[[list[int]], str], mask: int, ends: Sequence[int]) -> None:
        self.decode, self.mask, self.ends = decode, mask, tuple(ends)
        self.canvas: list[int] = []
        self.reveal_step: list[int] = []
        self.forwards = 0
        self.started = self.drawn = time.perf_counter()
        self.live = Live(self, console=console, auto_refresh=False, transient=True)

    def watch(self, numbers: list[int], canvas: Tensor, reveal_step: Tensor) -> None:
        """Takes the first canvas of a batch, and shows it unless the last one was shown a moment ago."""
        self.canvas, self.reveal_step = canvas[0].tolist(), reveal_step[0].tolist()
        self.forwards += 1
        now = time.perf_counter()
        if now - self.drawn >= _SECONDS_BETWEEN_FRAMES or self.forwards == 1:
            self.drawn = now
            self.live.refresh()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from screenful(self.text(), console, options.max_width)
        counts = rates(self.tokens(), self.forwards, time.perf_counter() - self.started)
        yield Text(counts, style="dim", no_wrap=True, overflow="ellipsis")

    def tokens(self) -> int:
        """Revealed so far, up to and including the first end-of-sequence token."""
        return response_length([token for token in self.canvas if token != self.mask], self.ends)

    def text(self) -> Text:
        """The canvas as it is now."""
        newest = max(self.reveal_step, default=0)
        return canvas_text(self.canvas, [step == newest for step in self.reveal_step], self.mask, self.decode)
