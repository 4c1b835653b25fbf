"""Keys and values of whole sequences, for forwards that compute some of their columns only.

How old those of the others may become is decided by the schemes of `tad_ext.decoding.caches`.
"""

import itertools
from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache


class KeyValueCache:
    """Keys (after rotation) and values of `rows` sequences of up to `length` columns, overwritten in place.

    Memory is taken at the first forward: 512 KB a column for LLaDA-8B in bfloat16.
    """

    def __init__(self, rows: int, length: int) -> None:
        self.rows, self.length = rows, length
        self._layers: list[tuple[Tensor, Tensor]] = []

    def move(self, source: int, target: int) -> None:
        """Row `source` becomes row `target`, whose own keys and values are lost."""
        for tensor in itertools.chain(*self._layers):
            tensor[target] = tensor[source]

    def layer(self, index: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """(rows, heads, length, head size) keys and values of a layer; `like` are keys of some rows and columns."""
        if index == len(self._layers):
            shape = (self.rows, like.shape[1], self.length, like.shape[3])
            self._layers.append((like.new_zeros(shape), like.new_zeros(shape)))
        return self._layers[index]


class CacheView(Cache):
    """What transformers' attention is given in place of its own cache, for one forward.

    Args:
        cache: where keys and values are stored.
        length: columns that the forward attends to: the first ones.
        rows: (B,) int64, rows of the cache, of which all `length` columns are computed, and none is read.
        columns: (B, A) int64, instead: the columns that are computed, of the first B rows; the others are read.
    """

    def __init__(self, cache: KeyValueCache, length: int, rows: Tensor, columns: Tensor | None) -> None:
        super().__init__(layers=[])
        self.kept, self.length, self.rows, self.columns = cache, length, rows, columns

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Stores the (B, heads, A, head size) keys and values of a layer, and gives those that it attends to."""
        keys, values = (kept[:, :, : self.length] for kept in self.kept.layer(layer_idx, key_states))
        if self.columns is None:
            keys.index_copy_(0, self.rows, key_states)
            values.index_copy_(0, self.rows, value_states)
            return key_states, value_states
        batch, index = len(self.columns), self.columns[:, None, :, None].expand_as(key_states)
        return keys[:batch].scatter_(2, index, key_states), values[:batch].scatter_(2, index, value_states)

    # Where nothing is padded, transformers asks for these to choose a mask.

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns before the computed ones: they are counted from the row's first."""
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """How many columns are attended to, and the first of them."""
        return self.length, 0
