"""Stop strings: texts that end a response where they stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .batch import DecodingBatch
from .config import DecodeConfig
from .inputs import SpecialTokens


class StopStrings:
    """Looks for the first of some texts in each sequence's response, as far as it is revealed without a gap.

    What stands behind it becomes end-of-sequence tokens, with the reveal step of the forward that completed it, and the
    sequence is finished. Texts are looked for on the host, which waits for the device once more in every step.
    """

    def __init__(self, texts: Sequence[str], tokenizer: Any, mask: int, ends: tuple[int, ...]) -> None:
        self.texts, self.tokenizer, self.mask, self.ends = texts, tokenizer, mask, ends

    @classmethod
    def of(cls, config: DecodeConfig, tokens: SpecialTokens, tokenizer: Any) -> StopStrings | None:
        """None where the settings name no texts.

        Raises:
            ValueError: texts without a tokenizer, or without an end-of-sequence token to fill the rest with.
        """
        if not config.stop_strings:
            return None
        if tokenizer is None:
            raise ValueError(f"tokenizer is None: expected one that reads stop_strings, {config.stop_strings!r}")
        if not tokens.end:
            raise ValueError(f"stop_strings is {config.stop_strings!r}, but the model has no end-of-sequence token")
        return cls(config.stop_strings, tokenizer, tokens.mask, tokens.end)

    def apply(self, batch: DecodingBatch) -> None:
        """Ends the sequences whose response contains one of the texts."""
        for index, (sequence, canvas) in enumerate(
            zip(batch.sequences, batch.canvas[: len(batch)].tolist(), strict=True)
        ):
            length = self._length(self._readable(canvas))
            if length is None:
                continue
            sequence.length, sequence.masks, sequence.done = length, 0, True
            batch.canvas[index, length:] = self.ends[0]
            batch.state.reveal_step[index, length:] = sequence.forwards

    def _readable(self, canvas: list[int]) -> list[int]:
        """The tokens before the first mask or end of sequence."""
        return next((canvas[:place] for place, token in enumerate(canvas) if token in {self.mask, *self.ends}), canvas)

    def _length(self, tokens: list[int]) -> int | None:
        """The fewest tokens whose text contains one of the stop strings."""
        if not self._stops(tokens):
            return None
        low, high = 0, len(tokens)  # the text of `low` tokens does not stop, that of `high` does
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._stops(tokens[:middle]) else (middle, high)
        return high

    def _stops(self, tokens: list[int]) -> bool:
        text = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return any(stop in text for stop in self.texts)
