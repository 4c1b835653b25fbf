"""One forward of the model: logits of the eligible positions of every row, with or without a cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tad_ext.models.cache import KeyValueCache

from .batch import DecodingBatch
from .caches import CacheScheme
from .config import DecodeConfig


class Forward:
    """Calls the model; keeps the keys and values where `config.cache` names a scheme."""

    def __init__(self, model: Any, config: DecodeConfig, capacity: int, longest: int) -> None:
        self.model, self.config = model, config
        self.cache = None if config.cache is None else KeyValueCache(capacity, longest + config.gen_length)

    def logits(self, batch: DecodingBatch) -> Tensor:
        """(B * W, V): row b * W + w belongs to entry `batch.state.positions[b, w]`."""
        ids, lengths = batch.input_ids, batch.lengths
        positions = batch.flat_positions(ids.shape[1])
        if self.config.cache is not None:
            return self.model.lm_head(self._cached_hidden(batch, self.config.cache, ids, lengths, positions))
        logits = self.model(ids, lengths=lengths, positions=positions.flatten()).logits
        if not self.config.guidance:
            return logits
        # Classifier-free guidance as LLaDA does it (arXiv 2502.09992): away from what it says without the prompt.
        columns = torch.arange(ids.shape[1], device=ids.device)
        ids = ids.masked_fill(columns < batch.starts[:, None], batch.tokens.mask)
        without = self.model(ids, lengths=lengths, positions=positions.flatten()).logits
        return without + (self.config.guidance + 1) * (logits - without)

    def moved(self, source: int, target: int) -> None:
        """Row `source` of the batch is row `target` now."""
        if self.cache is not None:
            self.cache.move(source, target)

    def _cached_hidden(
        self, batch: DecodingBatch, scheme: CacheScheme, ids: Tensor, lengths: Tensor | None, positions: Tensor
    ) -> Tensor:
        """(B * W, D), the hidden rows of `positions`, (B, W).

        Rows that need it are computed as a whole, the others in their windows: two forwards where there are both. The
        window's is over all rows of the batch, which saves gathering keys and values; what it makes of the rows that
        are computed as a whole is overwritten.
        """
        windows = [scheme.window(row, batch.visible_blocks(row)) for row in batch.rows]
        whole = [index for index, window in enumerate(windows) if window is None]
        for index in whole:
            batch.rows[index].refreshed = batch.rows[index].forwards
        rows = torch.tensor(whole, dtype=torch.int64, device=batch.device)
        if len(whole) == len(batch):
            return self.model.hidden_rows(
                ids, lengths=lengths, positions=positions.flatten(), cache=self.cache, cache_rows=rows
            )
        columns = self._columns(batch, windows)
        hidden = self.model.hidden_rows(
            ids, lengths=lengths, positions=positions.flatten(), cache=self.cache, columns=columns
        )
        if whole:
            local = torch.arange(len(whole), device=batch.device)[:, None]
            moved = positions[rows] + (local - rows[:, None]) * ids.shape[1]
            fresh = self.model.hidden_rows(
                ids[rows],
                lengths=None if lengths is None else lengths[rows],
                positions=torch.where(positions[rows] < 0, -1, moved).flatten(),
                cache=self.cache,
                cache_rows=rows,
            )
            hidden.view(*positions.shape, -1).index_copy_(0, rows, fresh.view(len(whole), positions.shape[1], -1))
        return hidden

    def _columns(self, batch: DecodingBatch, windows: list[tuple[int, int] | None]) -> Tensor:
        """(B, A) int64: the columns of each row's window; a row that needs fewer than A repeats its last."""
        bounds = []
        for row, window in zip(batch.rows, windows, strict=True):
            first, end = (0, 1) if window is None else window
            first = self.model.prediction_columns(row.prompt_length + first * self.config.block_length)
            end = row.prompt_length + end * self.config.block_length
            bounds.append((end - 1 if window is None else first, end))
        first, end = torch.tensor(bounds, device=batch.device).T[:, :, None]
        count = max(end - first for first, end in bounds)
        return torch.minimum(first + torch.arange(count, device=batch.device), end - 1)
