"""One forward of the model: logits of the eligible positions of every sequence, with or without a cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tad_ext.data.ragged import to_device
from tad_ext.models.cache import KeyValueCache
from tad_ext.ops import DecodeState

from .batch import DecodingBatch, StepShape, Windows, multiple


class Forward:
    """Calls the model; keeps the keys and values where `config.cache` names a scheme."""

    def __init__(self, model: Any, batch: DecodingBatch) -> None:
        self.model, self.batch, self.config = model, batch, batch.config
        self.cache = None if self.config.cache is None else KeyValueCache(*batch.input_ids.shape)
        self._starts_at_block = getattr(self.config.cache, "starts_at_block", False)

    def plan(self, ahead: int = 0, most_recorded: int = 0) -> tuple[StepShape, Windows | None]:
        """What the next step computes, or without a cache the one some steps `ahead`; the sequences note it.

        It is recorded where it computes at most `most_recorded` columns, those of all sequences together.
        """
        batch, shape = self.batch, self.batch.shape(ahead)
        rounded = batch.rounded(shape)
        bounds, whole = self._windows()
        if not bounds:
            return rounded if rounded.sequences * rounded.length <= most_recorded else shape, None
        width = max(last - first for first, last, *_ in bounds) + 1
        # Steps with windows and whole sequences are of many shapes, and frequent only where there are many rows.
        if not whole and rounded.sequences * multiple(width, of=32) <= most_recorded:
            shape, width = rounded, multiple(width, of=32)
        bounds += [(0, 0, 0, 0)] * (shape.sequences - len(bounds))  # idle sequences
        rows = to_device(whole, batch.device) if whole else None
        return shape, Windows(width, to_device(bounds, batch.device), rows)

    def _windows(self) -> tuple[list[tuple[int, int, int, int]], list[int]]:
        """By the cache scheme's rule, `Windows.bounds`, and the sequences of which all columns are computed.

        No bounds: all columns of all sequences.
        """
        scheme, batch = self.config.cache, self.batch
        if scheme is None:
            return [], []
        windows = [scheme.window(sequence, batch.visible_blocks(sequence)) for sequence in batch.sequences]
        whole = [index for index, window in enumerate(windows) if window is None]
        for index in whole:
            batch.sequences[index].refreshed = batch.sequences[index].forwards
        if len(whole) == len(windows):
            return [], whole
        bounds = []
        for sequence, window in zip(batch.sequences, windows, strict=True):
            # A sequence that is computed as a whole takes part with one column, whatever becomes of it.
            first, end = window or (0, 0)
            column = sequence.prompt_length + first * self.config.block_length
            before = column if self._starts_at_block else self.model.prediction_columns(column)
            visible = window or (0, batch.visible_blocks(sequence))
            bounds.append((before, max(batch.end_column(sequence, end) - 1, column), *visible))
        return bounds, whole

    def move(self, source: int, target: int) -> None:
        """Sequence `source` of the batch has become sequence `target`."""
        if self.cache is not None:
            self.cache.move(source, target)

    def logits(self, shape: StepShape, state: DecodeState, windows: Windows | None) -> Tensor:
        """(B * W, V): row b * W + w belongs to entry `state.positions[b, w]`."""
        batch = self.batch
        ids, starts = batch.input_ids[: shape.sequences, : shape.length], batch.starts[: shape.sequences]
        first = torch.arange(0, shape.sequences * shape.length, shape.length, device=batch.device) + starts
        positions = torch.where(state.present, first[:, None] + state.positions, -1)
        lengths = self._lengths(shape, state)
        if self.cache is not None:
            return self.model.lm_head(self._hidden(ids, lengths, positions, windows))
        logits = self.model(ids, lengths=lengths, positions=positions.flatten()).logits
        if not self.config.guidance:
            return logits
        # Classifier-free guidance as LLaDA does it (arXiv 2502.09992): away from what it says without the prompt.
        prompt = torch.arange(shape.length, device=batch.device) < starts[:, None]
        hidden_prompt = ids.masked_fill(prompt, batch.tokens.mask)
        without = self.model(hidden_prompt, lengths=lengths, positions=positions.flatten()).logits
        guided = without + (self.config.guidance + 1) * (logits - without)
        impossible = (logits == -torch.inf) | (without == -torch.inf)  # differences would be NaN
        return torch.where(impossible, logits, guided)

    def _lengths(self, shape: StepShape, state: DecodeState) -> Tensor | None:
        """(B,) int64: columns of each sequence that it is to see; None when no sequence is padded."""
        if not shape.padded:
            return None
        starts, ends = self.batch.starts[: shape.sequences], self.batch.ends[: shape.sequences]
        if self.config.hide_future_blocks:
            return torch.minimum(starts + state.blocks * self.config.block_length, ends)
        return ends

    def _hidden(self, ids: Tensor, lengths: Tensor | None, positions: Tensor, windows: Windows | None) -> Tensor:
        """(B * W, D), the hidden rows of `positions`, (B, W).

        Sequences that need it are computed as a whole, the others in their windows: two forwards where there are both.
        The window's is over all sequences of the batch, which saves gathering keys and values; what it makes of the
        sequences that are computed as a whole is overwritten.
        """
        flat, cache = positions.flatten(), self.cache
        if windows is None:
            return self.model.hidden_rows(ids, lengths=lengths, positions=flat, cache=cache)
        columns, whole = windows.columns, windows.whole
        hidden = self.model.hidden_rows(ids, lengths=lengths, positions=flat, cache=cache, columns=columns)
        if whole is not None:
            shift = (torch.arange(len(whole), device=ids.device) - whole) * ids.shape[1]
            chosen = positions[whole]
            fresh = self.model.hidden_rows(
                ids[whole],
                lengths=None if lengths is None else lengths[whole],
                positions=torch.where(chosen < 0, -1, chosen + shift[:, None]).flatten(),
                cache=cache,
                cache_rows=whole,
            )
            hidden.view(*positions.shape, -1).index_copy_(0, whole, fresh.view(*chosen.shape, -1))
        return hidden
