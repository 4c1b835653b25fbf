"""What every masked diffusion model can do: logits for the token AT each position, and for chosen ones only.

The models are transformers' autoregressive classes, made bidirectional by ``is_causal = False`` in their configuration.
"""

import pkgutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils import ModelOutput

from tad_ext.models.cache import CacheView, KeyValueCache
from tad_ext.models.last_layer import AttentionOfSome, LastLayer, LlamaAttentionOfSome, LlamaLastLayer
from tad_ext.models.masks import added_to_scores, attention_mask, mask_of_shadow, mask_of_twins


@dataclass
class MaskedDiffusionOutput(ModelOutput):
    """Logits, (B, L, V), or of chosen positions (N, V) or (B, W, V): an entry is the prediction FOR its position."""

    logits: Tensor | None = None


class MaskedDiffusionMixin:
    """Interface of masked diffusion models, mixed into a transformers ``*ForCausalLM`` class.

    That class provides ``model`` (the trunk), ``lm_head`` and ``config``, which is a `DiffusionConfig`.
    """

    config: Any
    model: Any
    _no_split_modules: Any
    lm_head: nn.Linear
    tokenizer_class: ClassVar[type[PreTrainedTokenizerBase]] = PreTrainedTokenizerFast
    #: of its layers' attention and of its last layer, subclasses of transformers'
    layer_classes: ClassVar[tuple[type[AttentionOfSome], type[LastLayer]]] = (LlamaAttentionOfSome, LlamaLastLayer)
    #: names of the linear ones in every layer, which adapters are put on
    linear_names: ClassVar[tuple[str, ...]] = (
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    )  # fmt: skip
    #: part of a weight's name here -> in an original checkpoint, where its authors call it otherwise
    weight_names: ClassVar[dict[str, str]] = {}
    also_called: ClassVar[tuple[str, ...]] = ()  #: further names of its architecture in config.json

    # The trainers of transformers scale a loss by themselves when a forward takes **kwargs; ours is final.
    accepts_loss_kwargs = False

    def __init__(self, config: Any) -> None:
        super().__init__(config)  # type: ignore[call-arg]
        attention, last_layer = self.layer_classes
        for layer in self.model.layers:
            layer.self_attn.__class__ = attention  # with the weights that it has
        self.model.layers[-1].__class__ = last_layer
        self._no_split_modules = {*self._no_split_modules, last_layer.__name__}

    def hidden_rows(
        self,
        input_ids: Tensor,
        *,
        lengths: Tensor | None = None,
        positions: Tensor | None = None,
        cache: KeyValueCache | None = None,
        cache_rows: Tensor | None = None,
        columns: Tensor | None = None,
        blocks: Tensor | None = None,
        shares: Tensor | None = None,
        clean: Tensor | None = None,
        shadow: Tensor | None = None,
    ) -> Tensor:
        """Final hidden states that predict the token at each position, (B, L, D), or at chosen ones.

        These are (N, D) or (B, W, D), as `positions` are; in the model's dtype. ``lm_head`` makes logits of them.

        Args:
            input_ids: (B, L) int64 token ids, padded on the RIGHT: every token has the position that it has alone.
            lengths: (B,) int64, 1 .. L, real tokens of each row, whatever ids follow. None: nothing is padded (faster).
            positions: (N,) int64, flattened ``b * L + i`` of the wanted entries; negative ones are padding of the list,
                with a row that is finite and otherwise meaningless. None: every position. Or (B, W), of each row b its
                own ones: then the last layer computes no others, if they are few. On a CPU, which can count them, this
                is true of (N,) as well.
            cache: where keys and values of the computed columns are stored.
            cache_rows: (B,) int64, the rows of the cache that the rows of ``input_ids`` are; None: the first B.
            columns: (B, A) int64, with a cache: compute these columns only, and take the keys and values of the others
                from it. Ascending by one from each row's first; a row that needs fewer than A repeats its last. The
                wanted positions' own columns must be among them (`prediction_columns`). Not with ``cache_rows``.
            blocks: (B, L) int64, never falling along a row: the block that each token is in. It attends to its own
                block and to those before. None: as the model was made, to all tokens or to blocks of
                ``config.causal_block_length``, from the row's first token on.
            shares: (B, L) float32 from 0 to 1: what each token's embedding has in common with the token; the rest is
                the mask's, see `mixed_with`. None: 1 everywhere.
            clean: (B, L) int64, where attention is block-causal: what a token sees of the blocks before its own, while
                ``input_ids`` are its own block only. So all blocks of a finished text are learnt at once, each as it
                stands while it is decoded: the trunk sees [input_ids ; clean], whose attention is block diffusion's
                (arXiv 2503.09573). None: they are ``input_ids``, too. Not with a cache or shares.
            shadow: (B, S) int64 columns, -1 for padding, where attention goes in both directions and nothing is
                shifted: each has a mask behind the row, in its position, which sees all of the row but that column, and
                the other masks; the row sees none of them. So what stands there is predicted from all else (WINO, arXiv
                2507.18578), though what is seen of the others has seen it. Rows are L + S long then, also for
                `positions`, and mask s is entry L + s. Not with a cache, blocks, shares or clean.

        Raises:
            ValueError: wrong shapes, or more positions than the model was made for. TypeError: wrong dtypes.
        """
        _check_inputs(input_ids, lengths, positions, blocks, clean, shadow, self.config.max_position_embeddings)
        if columns is not None and (positions is None or cache is None or cache_rows is not None):
            raise ValueError("columns needs positions and a cache, and no cache_rows")
        batch, length = input_ids.shape
        if blocks is None and self.config.causal_block_length is not None:
            of_one = torch.arange(length, device=input_ids.device) // self.config.causal_block_length
            blocks = of_one.expand(batch, length)
        if clean is not None:
            if blocks is None or cache is not None or shares is not None or shadow is not None:
                raise ValueError("clean needs blocks, or a model of blocks, and no cache, no shares and no shadow")
            return self._rows_of_twins(input_ids, clean, lengths, positions, blocks)
        if shadow is not None:
            if blocks is not None or self.config.shift or cache is not None or shares is not None:
                raise ValueError("shadow needs attention in both directions, and no shift, no cache and no shares")
            return self._rows_with_shadow(input_ids, shadow, lengths, positions)
        # What the trunk sees: tokens, or mixtures of their embeddings with the mask's.
        ids = input_ids if columns is None else input_ids.gather(1, columns)
        seen = {"ids": ids}
        if shares is not None:
            seen = {"embeddings": self._mixed(ids, shares if columns is None else shares.gather(1, columns))}
        of_queries = blocks if blocks is None or columns is None else blocks.gather(1, columns)
        mask = attention_mask(lengths, blocks, of_queries, ids.shape[1], length)
        stored = None
        if cache is not None:
            rows = torch.arange(batch, device=input_ids.device) if cache_rows is None else cache_rows
            stored = CacheView(cache, length, rows, columns)
        if positions is not None:
            return self._states(mask, columns, stored, self._places(positions, length, columns), **seen)
        hidden = self._states(mask, columns, stored, **seen)
        return torch.cat((hidden[:, :1], hidden[:, :-1]), dim=1) if self.config.shift else hidden

    def _states(
        self,
        mask: Tensor | None,
        columns: Tensor | None,
        stored: CacheView | None,
        wanted: Tensor | None = None,
        *,
        ids: Tensor | None = None,
        embeddings: Tensor | None = None,
    ) -> Tensor:
        """The trunk's final states at `wanted`, flattened places, (N,) or (B, W), or at all, (B, A, D).

        The last layer computes those alone where that saves it half of its positions.
        """
        seen: Any = ids if embeddings is None else embeddings
        batch, computed = seen.shape[:2]
        of_last_layer, entries = {}, None
        if wanted is not None:
            if wanted.dim() == 2 and 2 * wanted.shape[1] <= computed:
                of_last_layer = {"wanted": wanted % computed}
            elif wanted.dim() == 1 and stored is None and _host_may_look_at(wanted):
                places, entries = _by_sequence(wanted, batch, computed)
                of_last_layer = {"wanted": places} if 0 < 4 * places.shape[1] <= 3 * computed else {}
        if mask is not None and self.config._attn_implementation == "eager":
            mask = added_to_scores(mask, self.lm_head.weight.dtype)
        # By position: transformers 5.24 has another name for the cache than earlier versions.
        trunk = self.model(ids, mask, columns, stored, embeddings, use_cache=False, **of_last_layer)
        hidden: Tensor = trunk.last_hidden_state
        if wanted is None:
            return hidden
        if of_last_layer:
            return hidden if entries is None else hidden.flatten(0, 1)[entries]
        return hidden.flatten(0, 1)[wanted]

    def _places(self, positions: Tensor, length: int, columns: Tensor | None) -> Tensor:
        """Where the states stand that predict `positions`, among those of all computed columns of all rows."""
        wanted = positions.clamp(min=0)
        if self.config.shift:
            wanted = wanted - (wanted % length != 0).long()  # the first position of a row has none before it
        if columns is None:
            return wanted
        row = wanted // length
        place = wanted % length - columns[:, 0][row]
        return row * columns.shape[1] + place.clamp(0, columns.shape[1] - 1)  # padding: any place

    def _rows_of_twins(
        self, input_ids: Tensor, clean: Tensor, lengths: Tensor | None, positions: Tensor | None, blocks: Tensor
    ) -> Tensor:
        """See `hidden_rows` with `clean`: one sequence of both, of which each half has the positions of a whole."""
        length = input_ids.shape[1]
        if positions is None:
            positions = torch.arange(input_ids.numel(), device=input_ids.device).view_as(input_ids)
        # What a first token's predecessor says, of the block before, it says when that is finished.
        before = self._places(positions, length, None)
        finished = blocks.flatten()[before] != blocks.flatten()[positions.clamp(min=0)]
        wanted = before + (before // length + finished) * length
        columns = torch.arange(length, device=input_ids.device).repeat(2)[None]
        twins = torch.cat((input_ids, clean), dim=1)
        return self._states(mask_of_twins(lengths, blocks), columns, None, wanted, ids=twins)

    def _rows_with_shadow(
        self, input_ids: Tensor, shadow: Tensor, lengths: Tensor | None, positions: Tensor | None
    ) -> Tensor:
        """See `hidden_rows` with `shadow`: one sequence of both, the masks in the positions that they stand for."""
        batch, length = input_ids.shape
        columns = torch.arange(length, device=input_ids.device).expand(batch, length)
        columns = torch.cat((columns, shadow.clamp(min=0)), dim=1)
        ids = torch.cat((input_ids, torch.full_like(shadow, self.config.mask_token_id)), dim=1)
        wanted = None if positions is None else positions.clamp(min=0)
        return self._states(mask_of_shadow(lengths, shadow, length), columns, None, wanted, ids=ids)

    def _mixed(self, ids: Tensor, shares: Tensor) -> Tensor:
        """(B, L, D): the tokens' embeddings, mixed with the mask token's."""
        embed = self.model.embed_tokens
        tokens, mask = embed(ids), embed(torch.full_like(ids[0, :1], self.config.mask_token_id))[0]
        return torch.where(shares[..., None] == 1, tokens, mixed_with(mask, tokens, shares))

    def prediction_columns(self, first: int) -> int:
        """The first column to compute for predictions of the columns from `first` on."""
        return max(first - self.config.shift, 0)

    def forward(
        self,
        input_ids: Tensor,
        *,
        lengths: Tensor | None = None,
        positions: Tensor | None = None,
        blocks: Tensor | None = None,
        shares: Tensor | None = None,
        clean: Tensor | None = None,
        shadow: Tensor | None = None,
    ) -> MaskedDiffusionOutput:
        """Logits for every position, (B, L, V), or for ``positions`` only, (N, V) or (B, W, V); as `hidden_rows`."""
        hidden = self.hidden_rows(
            input_ids,
            lengths=lengths,
            positions=positions,
            blocks=blocks,
            shares=shares,
            clean=clean,
            shadow=shadow,
        )
        return MaskedDiffusionOutput(logits=self.lm_head(hidden))

    def generate(self, *arguments: Any, **options: Any) -> Any:
        """Responses to prompts, asked for as transformers' users do: `tad_ext.decoding.generation.generate`.

        Decoding stands on models, and is their user. Yet transformers has its entrance here, and the one that it would
        inherit decodes autoregressively. So this looks for the function by name, when it is called.
        """
        return pkgutil.resolve_name("tad_ext.decoding.generation:generate")(self, *arguments, **options)

    @classmethod
    def own_name(cls, name: str) -> str:
        """The name here of a weight, or of an adapter's, by its original name; other names are unchanged."""
        for ours, original in cls.weight_names.items():
            name = name.replace(original, ours)
        return name

    @classmethod
    def original_name(cls, name: str) -> str:
        """The original name of a weight, or of an adapter's; names that are original are unchanged."""
        for ours, original in cls.weight_names.items():
            name = name.replace(ours, original)
        return name


def mixed_with(mask: Tensor, tokens: Tensor, shares: Tensor) -> Tensor:
    """(..., D) embeddings between that of the mask, (D,), and those of tokens, (..., D), by shares (...) of the latter.

    With share p, token e and mask m it is v = p e + (1 - p) m, brought to the length p |e| + (1 - p) |m|, which a mean
    of directions would lose. DMax, its code.
    """
    share, token, masked = shares[..., None].float(), tokens.float(), mask.float()
    mixed = share * token + (1 - share) * masked
    length = share * token.norm(dim=-1, keepdim=True) + (1 - share) * masked.norm()
    return (mixed * length / (mixed.norm(dim=-1, keepdim=True) + 1e-6)).to(tokens.dtype)


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


def _host_may_look_at(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def _by_sequence(places: Tensor, batch: int, length: int) -> tuple[Tensor, Tensor]:
    """Places (N,) in B sequences of L positions as each one's own, (B, W), padded, and where the N are in these."""
    row = places // length
    counts = torch.bincount(row, minlength=batch)
    order = row.argsort(stable=True)
    number = torch.empty_like(row)
    number[order] = torch.arange(len(row)) - (counts.cumsum(0) - counts)[row[order]]
    width = int(counts.max()) if batch else 0
    own = places.new_zeros(batch, width)
    own[row, number] = places % length
    return own, row * width + number


def _check_inputs(
    input_ids: Tensor,
    lengths: Tensor | None,
    positions: Tensor | None,
    blocks: Tensor | None,
    clean: Tensor | None,
    shadow: Tensor | None,
    max_positions: int,
) -> None:
    """Checks dtypes and shapes; values would cost a device sync in every forward."""
    of_dims = (
        ("input_ids", input_ids, (2,)), ("lengths", lengths, (1,)), ("positions", positions, (1, 2)),
        ("blocks", blocks, (2,)), ("clean", clean, (2,)), ("shadow", shadow, (2,)),
    )  # fmt: skip
    for name, tensor, dims in of_dims:
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor) or tensor.dtype != torch.int64:
            raise TypeError(f"{name} must be an int64 tensor, got {getattr(tensor, 'dtype', type(tensor).__name__)}")
        if tensor.dim() not in dims:
            expected = " or ".join(map(str, dims))
            raise ValueError(f"{name} must have {expected} dimension(s), got shape {tuple(tensor.shape)}")
        if tensor.dim() == 2 and len(tensor) != len(input_ids):
            raise ValueError(f"{name} must have one row per row of input_ids, {len(input_ids)}, got {len(tensor)}")
    if lengths is not None and len(lengths) != len(input_ids):
        raise ValueError(f"lengths must have one entry per row of input_ids, {len(input_ids)}, got {len(lengths)}")
    for name, tensor in (("blocks", blocks), ("clean", clean)):
        if tensor is not None and tensor.shape != input_ids.shape:
            raise ValueError(f"{name} must have input_ids' shape, {tuple(input_ids.shape)}, got {tuple(tensor.shape)}")
    if input_ids.shape[1] > max_positions:
        raise ValueError(f"input_ids has {input_ids.shape[1]} positions, more than the model's {max_positions}")
