"""What every masked diffusion model of the package can do: logits for the token AT each position, and for chosen ones.

The models are transformers' own autoregressive classes (Llama, Qwen2, ...) made bidirectional by ``is_causal = False``
in their configuration, which transformers honours in both the attention mask and the attention kernel. This mixin adds
the interface that decoding and distillation are written against; it never runs the output head on rows nobody asked
for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils import ModelOutput

from tad_ext.models.cache import KeyValueCache


@dataclass
class MaskedDiffusionOutput(ModelOutput):
    """Logits of a forward pass.

    Attributes:
        logits: (B, L, V), or (N, V) when positions were chosen; entry for position i is the prediction FOR position i.
    """

    logits: Tensor | None = None


class MaskedDiffusionMixin:
    """Interface of masked diffusion models, mixed into a transformers ``*ForCausalLM`` class.

    That class provides ``model`` (the trunk), ``lm_head`` and ``config``. The configuration has ``is_causal = False``
    and names ``mask_token_id`` (int), ``eos_token_ids`` (list of int), ``suppress_token_ids`` (list of int: ids that
    must never be chosen; the mask id need not be among them) and ``max_position_embeddings``.
    """

    config: Any
    model: nn.Module
    lm_head: nn.Linear
    tokenizer_class: ClassVar[type[PreTrainedTokenizerBase]] = PreTrainedTokenizerFast

    # The trainers of transformers scale a loss by themselves when a forward takes **kwargs; ours is final.
    accepts_loss_kwargs = False

    def hidden_rows(
        self,
        input_ids: Tensor,
        *,
        lengths: Tensor | None = None,
        positions: Tensor | None = None,
        cache: KeyValueCache | None = None,
        cache_rows: Tensor | None = None,
        columns: Tensor | None = None,
    ) -> Tensor:
        """Final hidden states that predict the token at each position (multiply by ``lm_head`` to get logits).

        Rows are padded on the RIGHT: row b holds its ``lengths[b]`` real tokens at positions 0 .. lengths[b] - 1,
        exactly as it would alone, and whatever ids follow are hidden from attention.

        Args:
            input_ids: (B, L) int64 token ids.
            lengths: (B,) int64, real tokens of each row, 1 .. L. None: nothing is padded (no mask is built: faster).
            positions: (N,) int64, flattened ``b * L + i`` of the wanted entries; negative entries are padding of the
                list and give a row that is finite and otherwise meaningless. None: every position.
            cache: where keys and values are stored, those of the computed columns.
            cache_rows: (B,) int64, the rows of the cache that the rows of ``input_ids`` are; None: the first B.
            columns: (B, A) int64, with a cache: compute these columns only, and take the keys and values of the others
                from it. Ascending by one from each row's first; a row that needs fewer than A repeats its last. The
                wanted positions' own columns must be among them (`prediction_columns`). Not with ``cache_rows``.

        Returns:
            (B, L, D), or (N, D) when ``positions`` is given, in the model's dtype.

        Raises:
            ValueError: wrong shapes, or more positions than the model was made for.
            TypeError: wrong dtypes.
        """
        _check_inputs(input_ids, lengths, positions, self.config.max_position_embeddings)
        batch, length = input_ids.shape
        if cache is None:
            hidden = self._trunk(input_ids, None, _key_mask(lengths, batch, length, length), None)
        elif columns is None:
            rows = torch.arange(batch, device=input_ids.device) if cache_rows is None else cache_rows
            stored = cache.whole(self.config.num_hidden_layers, rows, length)
            hidden = self._trunk(input_ids, None, _key_mask(lengths, batch, length, length), stored)
        else:
            if positions is None or cache_rows is not None:
                raise ValueError("columns needs positions, and no cache_rows")
            read = cache.window(self.config.num_hidden_layers, columns, length)
            mask = _key_mask(lengths, batch, columns.shape[1], length)
            hidden = self._trunk(input_ids.gather(1, columns), columns, mask, read)
            return hidden.flatten(0, 1).index_select(0, self._rows_of_columns(positions, columns, length))
        if positions is None:
            return self._align(hidden)
        rows = self._align_positions(positions.clamp(min=0), length)
        return hidden.flatten(0, 1).index_select(0, rows)

    def _trunk(self, input_ids: Tensor, position_ids: Tensor | None, mask: Tensor | None, cache: Any) -> Tensor:
        if mask is not None and self.config._attn_implementation == "eager":  # it adds the mask to the scores
            dtype = self.lm_head.weight.dtype
            mask = torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)
        # By position: transformers 5.24 has another name for the cache than the versions before it.
        return self.model(input_ids, mask, position_ids, cache, use_cache=False).last_hidden_state

    def _rows_of_columns(self, positions: Tensor, columns: Tensor, length: int) -> Tensor:
        """(N,) rows of the (B * A, D) hidden states of `columns` that predict flattened `positions`."""
        wanted = self._align_positions(positions.clamp(min=0), length)
        row = wanted // length
        place = (wanted % length - columns[:, 0][row]).clamp(0, columns.shape[1] - 1)  # padding: any place
        return row * columns.shape[1] + place

    def forward(
        self, input_ids: Tensor, *, lengths: Tensor | None = None, positions: Tensor | None = None
    ) -> MaskedDiffusionOutput:
        """Logits for every position, (B, L, V), or for ``positions`` only, (N, V). Arguments as in `hidden_rows`."""
        return MaskedDiffusionOutput(
            logits=self.lm_head(self.hidden_rows(input_ids, lengths=lengths, positions=positions))
        )

    @classmethod
    def original_name(cls, name: str) -> str:
        """The name under which a weight stands in a checkpoint: its own, unless a model's authors call it otherwise."""
        return name

    @classmethod
    def own_name(cls, name: str) -> str:
        """The reverse of `original_name`."""
        return name

    def _align(self, hidden: Tensor) -> Tensor:
        """(B, L, D) hidden states -> those that predict each position: themselves, unless a model predicts shifted."""
        return hidden

    def prediction_columns(self, first: int) -> int:
        """The first column to compute for predictions of the columns from `first` on: the same, unless shifted."""
        return first

    def _align_positions(self, positions: Tensor, length: int) -> Tensor:
        """The same for flattened positions >= 0: the rows of ``hidden.flatten(0, 1)`` that predict them."""
        return positions


@contextmanager
def evaluation_mode(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Dropout off; afterwards every module is in the mode it was in."""
    training = [module for module in modules if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _key_mask(lengths: Tensor | None, batch: int, queries: int, length: int) -> Tensor | None:
    """(B, 1, queries, L) mask of what each query may attend to: True where the key is a real token.

    Ready-made in four dimensions, because transformers looks at the values of a two-dimensional one on the host, a
    device sync per forward. Every query sees at least key 0, so that no softmax is empty and nothing becomes NaN.
    """
    if lengths is None:
        return None
    keys = torch.arange(length, device=lengths.device) < lengths.clamp(min=1)[:, None]
    return keys[:, None, None, :].expand(batch, 1, queries, length)


def _check_inputs(input_ids: Tensor, lengths: Tensor | None, positions: Tensor | None, max_positions: int) -> None:
    """Checks of shape and dtype only: looking at values would cost a device sync in every forward."""
    named: dict[str, tuple[Tensor | None, int]] = {
        "input_ids": (input_ids, 2), "lengths": (lengths, 1), "positions": (positions, 1)
    }  # fmt: skip
    for name, (tensor, dims) in named.items():
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor) or tensor.dtype != torch.int64:
            raise TypeError(f"{name} must be an int64 tensor, got {getattr(tensor, 'dtype', type(tensor).__name__)}")
        if tensor.dim() != dims:
            raise ValueError(f"{name} must have {dims} dimension(s), got shape {tuple(tensor.shape)}")
    if lengths is not None and lengths.shape[0] != input_ids.shape[0]:
        raise ValueError(
            f"lengths must have one entry per row of input_ids, {input_ids.shape[0]}, got {lengths.shape[0]}"
        )
    if input_ids.shape[1] > max_positions:
        raise ValueError(f"input_ids has {input_ids.shape[1]} positions, more than the model's {max_positions}")
