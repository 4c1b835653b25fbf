"""A model whose forwards may compute some columns only, or see blocks only, and the windows of Fast-dLLM's caches."""

from typing import Any, Protocol

import torch
from torch import Tensor

from tad_ext.models.cache import KeyValueCache


class Model(Protocol):
    """Keys and values of a whole row live in a cache; a forward replaces those of the columns that it computes."""

    def cache(self, length: int) -> Any:
        """An empty one for a row of `length` columns."""

    def forward(self, ids: Tensor, columns: list[int] | None, cache: Any) -> Tensor:
        """(L, V) logits FOR each position of the (L,) ids; NaN where a forward over these columns predicts nothing.

        columns: ascending by one; None: all of them, reading nothing from the cache. Without a cache, nothing is kept.
        """


class PackageModel:
    """A model of `tad_ext.models` as a `Model`; called with ids, it is a `predict`."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(self, ids: Tensor) -> Tensor:
        return self.forward(ids, None, None)

    def cache(self, length: int) -> KeyValueCache:
        return KeyValueCache(1, length)

    @torch.no_grad()
    def block_causal(self, ids: Tensor, *, start: int, block_length: int) -> Tensor:
        """As a call, where the prompt, up to `start`, sees itself, and a block itself and what stands before it."""
        blocks = [0 if column < start else 1 + (column - start) // block_length for column in range(len(ids))]
        row = ids[None].to(self.model.device)
        return self.model(row, blocks=row.new_tensor([blocks])).logits[0].cpu()

    @torch.no_grad()
    def forward(self, ids: Tensor, columns: list[int] | None, cache: KeyValueCache | None) -> Tensor:
        model, row = self.model, ids[None].to(self.model.device)
        if columns is None:
            return model.lm_head(model.hidden_rows(row, cache=cache))[0].cpu()
        # Dream's prediction for a position comes from the column before it.
        positions = [i for i in range(len(ids)) if model.prediction_columns(i) in set(columns)]
        computed = model.hidden_rows(
            row, cache=cache, columns=row.new_tensor([columns]), positions=row.new_tensor(positions)
        )
        logits = torch.full((len(ids), model.lm_head.out_features), torch.nan)
        logits[positions] = model.lm_head(computed).cpu().float()
        return logits


class BlockWindows:
    """A `predict` with the windows of Fast-dLLM's and TAD's caches, for decoding block by block.

    The first forward of a block computes, and keeps, the whole row. The block's later ones compute the columns from its
    first to the end of the row ("prefix"), or its own ("dual"), against what is kept of the others.
    """

    def __init__(self, model: Model, kind: str, *, prompt_length: int, block_length: int, mask_id: int) -> None:
        assert kind in ("prefix", "dual")
        self.model, self.kind = model, kind
        self.prompt_length, self.block_length, self.mask_id = prompt_length, block_length, mask_id
        self.windows: list[tuple[int, int]] = []  # [first, end) columns of each forward
        self._block: int | None = None

    def __call__(self, ids: Tensor) -> Tensor:
        first_mask = int((ids == self.mask_id).nonzero()[0]) - self.prompt_length
        block = first_mask // self.block_length
        if block != self._block:
            if self._block is None:
                self._cache = self.model.cache(len(ids))
            self._block = block
            self.windows.append((0, len(ids)))
            return self.model.forward(ids, None, self._cache)
        first = self.prompt_length + block * self.block_length
        end = len(ids) if self.kind == "prefix" else first + self.block_length
        self.windows.append((first, end))
        return self.model.forward(ids, list(range(first, end)), self._cache)
