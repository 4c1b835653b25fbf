"""Cache schemes: which columns of a row are computed by a forward, while the keys and values of the others are kept.

Attention is in both directions, so keys and values depend on every token, and those that are kept are those of an
earlier canvas: a cache changes results. It changes none where every forward computes the whole row
(`refresh_every=1`), and the less the fewer tokens were revealed since. A scheme sees one row at a time, so results do
not depend on the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

from .checks import check_integer
from .progress import RowProgress


class CacheScheme(Protocol):
    """What the decoding loop asks before every forward."""

    def window(self, row: RowProgress, blocks: int) -> tuple[int, int] | None:
        """The blocks of the canvas [first, end) to compute, 0 <= first < end <= `blocks`, those that the row sees.

        All blocks with eligible masks must be among them. None: the whole row, prompt included.
        """
        ...


@dataclass(frozen=True)
class _Refreshed:
    """A whole row every `refresh_every` forwards; None: only when the scheme itself asks for it."""

    refresh_every: int | None = None
    name: ClassVar[str]

    def __post_init__(self) -> None:
        if self.refresh_every is not None:
            check_integer(f"{type(self).__name__}.refresh_every", self.refresh_every, at_least=1)

    def _is_due(self, row: RowProgress) -> bool:
        if row.refreshed is None:
            return True
        return self.refresh_every is not None and row.forwards - row.refreshed >= self.refresh_every

    def _entered_block(self, row: RowProgress) -> bool:
        return row.refreshed is not None and row.history[row.refreshed] != row.unfinished

    def __str__(self) -> str:
        return self.name if self.refresh_every is None else f"{self.name}:{self.refresh_every}"


@dataclass(frozen=True)
class PrefixCache(_Refreshed):
    """Keeps the prompt and the finished blocks before the first unfinished one; everything from there on is computed.

    The whole row is computed when the first unfinished block is another one than at the last time. Fast-dLLM, arXiv
    2505.22618.
    """

    name = "prefix"

    def window(self, row: RowProgress, blocks: int) -> tuple[int, int] | None:
        """From the first unfinished block to the end."""
        return None if self._is_due(row) or self._entered_block(row) else (row.unfinished, blocks)


@dataclass(frozen=True)
class DualCache(_Refreshed):
    """Keeps everything but the active blocks: from the first unfinished one to the newest created one.

    The whole row is computed when the first unfinished block is another one than at the last time. Fast-dLLM, arXiv
    2505.22618.
    """

    name = "dual"

    def window(self, row: RowProgress, blocks: int) -> tuple[int, int] | None:
        """From the first unfinished block to the newest."""
        return None if self._is_due(row) or self._entered_block(row) else (row.unfinished, row.created)


@dataclass(frozen=True)
class DelayedCache(_Refreshed):
    """Keeps the prompt and each block from `delay` forwards after it, and all before it, have finished.

    Until then a finished block is computed along, and its keys and values take in what is revealed around it. Nothing
    but `refresh_every` makes a forward compute the whole row. d3LLM, whose delay is 2 for LLaDA and 1 for Dream; that
    32 forwards pass between refreshes is our choice.
    """

    refresh_every: int | None = 32
    delay: int = 2
    name = "delayed"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("DelayedCache.delay", self.delay, at_least=0)

    def window(self, row: RowProgress, blocks: int) -> tuple[int, int] | None:
        """From the first block that is not kept yet to the end."""
        if self._is_due(row):
            return None
        return ([0] * self.delay + row.history + [row.unfinished])[-1 - self.delay], blocks

    def __str__(self) -> str:
        return f"{self.name}:{self.refresh_every or 'never'},{self.delay}"


SCHEMES: dict[str, Callable[..., PrefixCache | DualCache | DelayedCache]] = {
    scheme.name: scheme for scheme in (PrefixCache, DualCache, DelayedCache)
}


def parse_cache(text: str) -> PrefixCache | DualCache | DelayedCache | None:
    """The cache scheme that a command line or a YAML file names.

    "none", "prefix", "dual" or "delayed"; behind a colon the forwards between refreshes ("never" for none), and for
    "delayed" behind a comma its delay: "dual:8", "delayed:32,2". The inverse of `str`.

    Raises:
        TypeError: `text` is not a string. ValueError: an unknown name or a value out of range.
    """
    if not isinstance(text, str):
        raise TypeError(f'cache must be a string such as "dual", got {text!r}')
    if text.strip() == "none":
        return None
    expected = 'expected "none", "prefix[:REFRESH]", "dual[:REFRESH]" or "delayed[:REFRESH[,DELAY]]"'
    name, _, rest = (part.strip() for part in text.partition(":"))
    if name not in SCHEMES:
        raise ValueError(f"cache {text!r}: unknown name {name!r}; {expected}")
    try:
        values = [None if part.strip() == "never" else int(part) for part in rest.split(",")] if rest else []
        return SCHEMES[name](*values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"cache {text!r}: {error}; {expected}") from None
