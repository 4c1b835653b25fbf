"""What ends a response before its canvas is full: stop strings, and end-of-sequence tokens that are waited for."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tad_ext.ops import DecodeState

from .batch import DecodingBatch
from .config import DecodeConfig
from .inputs import SpecialTokens


def check_stop_strings(config: DecodeConfig, tokens: SpecialTokens, tokenizer: Any) -> None:
    """ValueError for texts without a tokenizer, or without an end-of-sequence token to fill the rest with."""
    if config.stop_strings and tokenizer is None:
        raise ValueError(f"tokenizer is None: expected one that reads stop_strings, {config.stop_strings!r}")
    if config.stop_strings and not tokens.end:
        raise ValueError(f"stop_strings is {config.stop_strings!r}, but the model has no end-of-sequence token")


def cut_at(text: str, stop_strings: Sequence[str]) -> str:
    """The text before the first of the stop strings in it."""
    return text[: min((text.find(stop) for stop in stop_strings if stop in text), default=len(text))]


def stop_at_strings(batch: DecodingBatch, tokenizer: Any) -> None:
    """Ends the sequences whose response, as far as it is revealed without a gap and settled, contains one of the texts.

    What stands behind the first of them becomes end-of-sequence tokens, revealed by the last step of the forward that
    completed it. The search is on the host, which waits for the device once more in every step.
    """

    def stops(tokens: list[int]) -> bool:
        text = tokenizer.decode(tokens, skip_special_tokens=True)
        return any(stop in text for stop in batch.config.stop_strings)

    unreadable = {batch.tokens.mask, *batch.tokens.end}
    for index, canvas in enumerate(batch.responses()[0].tolist()):
        readable = next((place for place, token in enumerate(canvas) if token in unreadable), len(canvas))
        response = canvas[: min(readable, batch.settled(index))]
        if stops(response):
            # The fewest tokens whose text contains one.
            length = bisect_left(range(len(response)), True, key=lambda count: stops(response[:count]))
            sequence = batch.sequences[index]
            sequence.length, sequence.masks = length, 0
            behind = slice(sequence.response.start + length, None)
            batch.canvas[index, behind] = batch.tokens.end[0]
            batch.state.reveal_step[index, behind] = batch.state.forwards[index]


def stop_at_ends(
    canvas: Tensor, state: DecodeState, ends: Tensor, mask: int, *, blocks: bool, may_change: Tensor | None = None
) -> None:
    """Finishes the rows whose response has come to an end-of-sequence token, in place on (B, G) canvases and `state`.

    It has when no mask stands before the token; with `blocks`, when none is left in its block and before. From column
    `may_change`, (B,) int64, on tokens count as masks, because they may change. The end then fills all that stands
    behind it, with this step. The host is not waited for.
    """
    columns = torch.arange(canvas.shape[1], device=canvas.device)
    last = canvas.shape[1]
    is_end = torch.isin(canvas, ends) & (state.reveal_step > 0)
    first_end, first_mask = (columns.where(which, last).amin(dim=1) for which in (is_end, canvas == mask))
    if may_change is not None:
        first_mask = torch.minimum(first_mask, may_change)
    if blocks:
        first_mask = torch.where(first_mask < last, first_mask // state.block_length * state.block_length, last)
    ended = (first_end < first_mask) & (first_end < last) & ~state.done
    behind = ended[:, None] & (columns > first_end[:, None])
    token = canvas.gather(1, first_end.clamp(max=last - 1)[:, None])
    canvas.copy_(torch.where(behind, token, canvas))
    state.reveal_step.copy_(torch.where(behind, state.forwards[:, None], state.reveal_step))
    state.done.logical_or_(ended)
