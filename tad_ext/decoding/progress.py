"""What the host knows of a row before its next forward."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class RowProgress:
    """Read from the device after every forward; blocks are those of the canvas, from 0.

    Attributes:
        number: which prompt.
        prompt_length: its tokens.
        masks: on the canvas.
        eligible: of these, in created blocks.
        forwards: so far.
        created: blocks.
        unfinished: the first block with masks.
        done: no mask is left.
        history: `unfinished` before each forward so far.
        refreshed: the last forward, counted from 0, that computed the whole row; None: none with a cache yet.
        length: response tokens, where a stop string has ended it.
    """

    number: int
    prompt_length: int
    masks: int
    eligible: int
    forwards: int = 0
    created: int = 1
    unfinished: int = 0
    done: bool = False
    history: list[int] = field(default_factory=list)
    refreshed: int | None = None
    length: int | None = None

    def advance(self, *, done: bool, created: int, unfinished: int, eligible: int, masks: int) -> None:
        """A forward is over, and this is what it has made of the row."""
        self.history.append(self.unfinished)
        self.forwards += 1
        self.done, self.created, self.unfinished = done, created, unfinished
        self.eligible, self.masks = eligible, masks
