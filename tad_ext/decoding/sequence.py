"""What the host knows of a sequence before its next forward."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class SequenceProgress:
    """A sequence, as its last forward has left it. Blocks are counted from 0.

    Attributes:
        number: which prompt.
        prompt_length: its tokens.
        canvas_length: columns of its canvas.
        masks: all of the canvas.
        eligible: masks in created blocks.
        created: blocks.
        unfinished: the first block with masks.
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
    forwards: int = 0
    history: list[int] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)
    refreshed: int | None = None
    length: int | None = None

    @property
    def done(self) -> bool:
        """Whether no mask is left."""
        return self.masks == 0

    def advance(self, broken: int, created: int, unfinished: int, eligible: int, masks: int) -> None:
        """A forward is over, and this is what it says, `broken` of its logits.

        Raises:
            RuntimeError: broken logits, naming the prompt and the forward.
        """
        self.history.append(self.unfinished)
        self.forwards += 1
        if broken:
            raise RuntimeError(
                f"the logits for prompt number {self.number} hold NaN or +inf in forward {self.forwards}: expected "
                f"finite numbers (or -inf). Is the checkpoint intact, and its dtype wide enough? If the policy has a "
                f"`prepare`, does that make them?"
            )
        self.created, self.unfinished, self.eligible, self.masks = created, unfinished, eligible, masks
