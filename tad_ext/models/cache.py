"""Keys and values of whole sequences, for forwards that compute some of their columns only.

A masked diffusion model attends in both directions, so every key changes whenever any token does: keys that are kept
are those of an earlier canvas. How old they may become is what the schemes of `tad_ext.decoding.caches` decide.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class KeyValueCache:
    """Keys (after rotation) and values of `rows` sequences of up to `length` columns, overwritten in place.

    Memory is taken at the first forward: 2 * layers * rows * heads of keys * length * head size elements of the model's
    dtype, 512 KB a column for LLaDA-8B in bfloat16.
    """

    def __init__(self, rows: int, length: int) -> None:
        self.rows, self.length = rows, length
        self._layers: list[tuple[Tensor, Tensor]] = []

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values."""
        return sum(tensor.numel() * tensor.element_size() for layer in self._layers for tensor in layer)

    def move(self, source: int, target: int) -> None:
        """Row `source` becomes row `target`, whose own keys and values are lost."""
        for keys, values in self._layers:
            keys[target] = keys[source]
            values[target] = values[source]

    def whole(self, layers: int, rows: Tensor, length: int) -> Cache:
        """What a forward over all `length` columns of some rows, (R,) int64, is given: it stores, and reads nothing."""
        return Cache(layers=[_WholeRows(self, layer, rows, length) for layer in range(layers)])

    def window(self, layers: int, columns: Tensor, length: int) -> Cache:
        """What a forward over `columns`, (B, A) int64, of the first B rows is given: it stores those, and attends to
        the first `length` columns.
        """
        return Cache(layers=[_Columns(self, layer, columns, length) for layer in range(layers)])

    def layer(self, index: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """(rows, heads, length, head size) keys and values of a layer; `like` are keys of some rows and columns."""
        if index == len(self._layers):
            shape = (self.rows, like.shape[1], self.length, like.shape[3])
            self._layers.append((like.new_zeros(shape), like.new_zeros(shape)))
        return self._layers[index]


class _Layer(CacheLayerMixin):
    """One layer of one forward, in the form that transformers' attention asks for."""

    is_compileable = False
    is_croppable = False

    def __init__(self, cache: KeyValueCache, index: int, length: int) -> None:
        super().__init__()
        self.cache, self.index, self.length = cache, index, length

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.is_initialized = True

    def get_seq_length(self) -> int:
        return 0

    def get_max_length(self) -> int:
        return self.length

    def get_max_cache_shape(self) -> int:
        return self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length, 0


class _WholeRows(_Layer):
    def __init__(self, cache: KeyValueCache, index: int, rows: Tensor, length: int) -> None:
        super().__init__(cache, index, length)
        self.rows = rows

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        for kept, new in zip(self.cache.layer(self.index, key_states), (key_states, value_states), strict=True):
            kept[:, :, : self.length].index_copy_(0, self.rows, new)
        return key_states, value_states


class _Columns(_Layer):
    def __init__(self, cache: KeyValueCache, index: int, columns: Tensor, length: int) -> None:
        super().__init__(cache, index, length)
        self.columns = columns

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        index = self.columns[:, None, :, None].expand_as(key_states)
        keys, values = (
            kept[: len(self.columns), :, : self.length] for kept in self.cache.layer(self.index, key_states)
        )
        return keys.scatter_(2, index, key_states), values.scatter_(2, index, value_states)
