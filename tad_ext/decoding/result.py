"""What decoding returns, and the one definition of tokens per forward."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

TOKENS_PER_FORWARD_DEFINITION = (
    "response tokens up to and including the first end-of-sequence token (the whole canvas if there is none) / "
    "forwards during which the sequence was unfinished; over several sequences: sum / sum"
)


@dataclass(frozen=True, kw_only=True)
class DecodedSequence:
    """One finished response."""

    number: int  # which prompt it answers
    prompt: list[int]  # its tokens
    canvas: list[int]  # the generation region; with infill, the prompt from its first mask on. gen_length tokens, but
    # fewer where that is shorter, or where the policy has chosen so
    reveal_step: list[int]  # the 1-based step that revealed each of them; 0 for what was given (infill, the policy)
    forwards: int  # during which the sequence was unfinished
    response_length: int  # up to and including the first end of sequence or stop string; the canvas's if there is none
    eos_token_ids: tuple[int, ...]  # the ids that counted as end of sequence
    seconds: float = field(default=0.0, compare=False)  # from its first forward to its end, beside those in its batch

    def response(self) -> list[int]:
        """The tokens before the first end-of-sequence token."""
        return _before_end(self.canvas, self.response_length, self.eos_token_ids)

    @property
    def revealed(self) -> int:
        """Response tokens that decoding revealed: all but those that were given (infill)."""
        return sum(step > 0 for step in self.reveal_step[: self.response_length])


@dataclass(frozen=True, kw_only=True)
class DecodeResult:
    """Result of `decode` for P prompts, in the order of the prompts; all tensors are int64 on the CPU.

    The canvas is the generation region of a sequence. The state after step s is `where(reveal_step <= s, canvas,
    MASK)`; of the tail that the end-of-sequence rule fills, what stood there before is not kept. Nor is the length that
    the canvas had, where the policy changes it: tokens that have moved keep their step, those cut off are gone. A step
    is a forward; with `drafts` a forward may take several. With `branches` a further token has the step that predicted
    it.

    Attributes:
        sequences: prompt followed by the whole canvas, per prompt.
        prompt_lengths: tokens of each prompt.
        reveal_step: (P, gen_length), as in `DecodedSequence`; 0 also behind the canvas.
        forwards, response_lengths: (P,), as in `DecodedSequence`.
        eos_token_ids: the ids that counted as end of sequence.
        seconds: wall time of the whole call.
    """

    sequences: list[list[int]]
    prompt_lengths: list[int]
    reveal_step: Tensor
    forwards: Tensor
    response_lengths: Tensor
    eos_token_ids: tuple[int, ...]
    seconds: float

    def __len__(self) -> int:
        return len(self.sequences)

    def canvases(self) -> list[list[int]]:
        """The generation region of each sequence."""
        return [tokens[start:] for tokens, start in zip(self.sequences, self.prompt_lengths, strict=True)]

    def responses(self) -> list[list[int]]:
        """The generation of each prompt, cut before its first end-of-sequence token."""
        pairs = zip(self.canvases(), self.response_lengths.tolist(), strict=True)
        return [_before_end(canvas, length, self.eos_token_ids) for canvas, length in pairs]

    @property
    def tokens_per_forward(self) -> Tensor:
        """(P,) float32: `response_lengths / forwards` of each prompt; given tokens (infill) do not count."""
        return self._revealed() / self.forwards

    def mean_tokens_per_forward(self) -> float:
        """Tokens per forward over all prompts, sum over sequences / sum over sequences; 0.0 without prompts."""
        return int(self._revealed().sum()) / max(self.total_forwards(), 1)

    def _revealed(self) -> Tensor:
        response = torch.arange(self.reveal_step.shape[1]) < self.response_lengths[:, None]
        return (response & (self.reveal_step > 0)).sum(dim=1)

    def total_forwards(self) -> int:
        """Forwards summed over the prompts, each counted while its sequence was unfinished (a batch of 8 counts 8)."""
        return int(self.forwards.sum())


def response_length(canvas: Sequence[int], eos_token_ids: tuple[int, ...]) -> int:
    """Tokens of a canvas up to and including the first end-of-sequence token; all of them if there is none."""
    return next((place + 1 for place, token in enumerate(canvas) if token in eos_token_ids), len(canvas))


def _before_end(canvas: list[int], length: int, eos_token_ids: tuple[int, ...]) -> list[int]:
    response = canvas[:length]
    return response[:-1] if response and response[-1] in eos_token_ids else response
