"""Stop strings: texts that end a response where they stand."""

from __future__ import annotations

from bisect import bisect_left
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

    def __init__(self, texts: Sequence[str], tokenizer: Any, tokens: SpecialTokens) -> None:
        self.texts, self.tokenizer, self.tokens = texts, tokenizer, tokens

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
        return cls(config.stop_strings, tokenizer, tokens)

    def apply(self, batch: DecodingBatch) -> None:
        """Ends the sequences whose response contains one of the texts."""
        for index, canvas in enumerate(batch.canvas[: len(batch)].tolist()):
            sequence, length = batch.sequences[index], self._length(canvas)
            if length is not None:
                sequence.length, sequence.masks = length, 0
                batch.canvas[index, length:] = self.tokens.end[0]
                batch.state.reveal_step[index, length:] = sequence.forwards

    def _length(self, canvas: list[int]) -> int | None:
        """The fewest tokens, before the first mask or end of sequence, whose text contains one of the stop strings."""
        stops = {self.tokens.mask, *self.tokens.end}
        readable = next((place for place, token in enumerate(canvas) if token in stops), len(canvas))
        if not self._stop(canvas[:readable]):
            return None
        return bisect_left(range(readable), True, key=lambda count: self._stop(canvas[:count]))

    def _stop(self, tokens: list[int]) -> bool:
        text = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return any(stop in text for stop in self.texts)
