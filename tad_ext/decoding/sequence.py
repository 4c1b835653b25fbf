"""What the host knows of a sequence."""

from dataclasses import dataclass, field


@dataclass
class SequenceProgress:
    """A sequence, as it was given and as its last forward has left it."""

    number: int  # which prompt
    tokens: list[int]  # prompt and canvas, as they were given
    prompt_length: int
    start: int  # the column where its canvas begins: the prompt's end, or the block that it ends in
    response_limit: int  # tokens of the response at most
    masks: int  # all of the canvas
    eligible: int  # masks in created blocks
    first_mask: int  # the first masked column of its canvas; -1: there is none
    created: int = 1  # blocks
    unfinished: int = 0  # the first block that is not finished, from 0
    open: bool = False  # whether the policy goes on with a block that has no mask left
    further: int = 0  # drafts or branches that its next forward computes besides its canvas
    further_blocks: int = 0  # that one of these has created and the canvas has not, at most
    forwards: int = 0  # so far
    history: list[int] = field(default_factory=list)  # `unfinished` before each forward so far
    notes: dict[str, int] = field(default_factory=dict)  # what a cache scheme remembers of the sequence
    refreshed: int | None = None  # the last forward, from 0, that computed the whole sequence; None: none with a cache
    length: int | None = None  # response tokens, where a stop string has ended it
    resized: int | None = None  # columns of its canvas, where the policy has a say in them
    entered: float | None = None  # seconds of decoding before its first forward

    @property
    def canvas_length(self) -> int:
        """Columns of its canvas."""
        return len(self.tokens) - self.start if self.resized is None else self.resized

    @property
    def response(self) -> slice:
        """Where the response stands on the canvas, behind what belongs to the prompt, if anything does."""
        head = self.prompt_length - self.start
        return slice(head, head + (self.response_limit if self.resized is None else self.resized))

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self.masks == 0 and not self.open

    def advance(
        self,
        broken: int,
        created: int,
        unfinished: int,
        eligible: int,
        masks: int,
        first_mask: int,
        open: int = 0,
        further: int = 0,
        further_blocks: int = 0,
        resized: int | None = None,
    ) -> None:
        """Takes in what a forward has said. RuntimeError for broken logits, naming prompt and forward."""
        self.history.append(self.unfinished)
        self.forwards += 1
        if broken:
            raise RuntimeError(
                f"the logits for prompt number {self.number} hold NaN or +inf in forward {self.forwards}: expected "
                f"finite numbers (or -inf). Is the checkpoint intact, and its dtype wide enough? If the policy has a "
                f"`prepare`, does that make them?"
            )
        self.created, self.unfinished, self.eligible, self.masks = created, unfinished, eligible, masks
        self.first_mask, self.open = first_mask, bool(open)
        self.further, self.further_blocks, self.resized = further, further_blocks, resized
