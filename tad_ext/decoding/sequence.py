"""What the host knows of a sequence before its next forward, and what it reads after one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Report(NamedTuple):
    """What a step says of a sequence: numbers on the host, (B,) tensors on the device. Blocks are counted from 0."""

    broken: Any  # the model's logits held NaN or +inf
    done: Any  # no mask is left
    created: Any  # blocks
    unfinished: Any  # the first block with masks
    eligible: Any  # masks in created blocks
    masks: Any  # all of the canvas


@dataclass
class SequenceProgress:
    """A sequence, as its last report has left it.

    Attributes:
        number: which prompt.
        prompt_length: its tokens.
        canvas_length: columns of its canvas.
        masks, eligible, created, unfinished, done: as in `Report`.
        forwards: so far.
        history: `unfinished` before each forward so far.
        notes: what a cache scheme remembers of the sequence.
        refreshed: the last forward, counted from 0, that computed the whole sequence; None: none with a cache yet.
        length: response tokens, where a stop string has ended it.
    """

    number: int
    prompt_length: int
    canvas_length: int
    masks: int
    eligible: int
    created: int = 1
    unfinished: int = 0
    done: bool = False
    forwards: int = 0
    history: list[int] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)
    refreshed: int | None = None
    length: int | None = None

    def advance(self, report: Report) -> None:
        """A forward is over.

        Raises:
            RuntimeError: broken logits, naming the prompt and the forward.
        """
        self.history.append(self.unfinished)
        self.forwards += 1
        if report.broken:
            raise RuntimeError(
                f"the logits for prompt number {self.number} hold NaN or +inf in forward {self.forwards}: expected "
                f"finite numbers (or -inf). Is the checkpoint intact, and its dtype wide enough? If the policy has a "
                f"`prepare`, does that make them?"
            )
        self.done, self.created, self.unfinished = bool(report.done), report.created, report.unfinished
        self.eligible, self.masks = report.eligible, report.masks
