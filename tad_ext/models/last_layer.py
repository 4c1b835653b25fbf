"""The last layer, for the positions alone whose predictions are wanted.

What a layer computes for a position beside its key and value serves that position only. So the last layer needs the
keys and values of all positions, and the rest, 85 % of its arithmetic in LLaDA-8B, of the wanted ones. Nothing changes
in what is computed of these. One token per forward asks for the masks of a block, 32 of 500 positions or less.
"""

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import (
    LlamaAttention,
    LlamaDecoderLayer,
    eager_attention_forward,
    rotate_half,
)

from tad_ext.models.cpu_attention import cpu_attention, cpu_attention_fits

if TYPE_CHECKING:
    _Layer: type[Any] = nn.Module
    _Attention: type[Any] = nn.Module
else:
    _Layer = _Attention = object


class AttentionOfSome(_Attention):
    """Mixed into an attention of transformers, Llama's or one like it: the same weights, and queries of some positions.

    Queries and keys are rotated in the dtype that the cosines and sines have, and rounded to the model's afterwards.
    """

    norms: ClassVar[bool] = False  #: of queries and keys, head by head, before they are rotated: `q_norm`, `k_norm`

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
        queries: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """(B, L, D) -> the same shape, and the attention weights where the implementation returns them.

        With `queries`, (B, W) int64 places in the L positions: (B, W, D) for these.
        """
        cache = kwargs.pop("cache", kwargs.pop("past_key_values", None))  # its name before transformers 5.24
        asking, angles = hidden_states, position_embeddings
        if queries is not None:
            asking, *angles = (taken(whole, queries) for whole in (asking, *angles))  # type: ignore[assignment]
        query, key, value = (
            projected.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for projected in self.projected(asking, hidden_states)
        )
        if self.norms:
            query, key = self.q_norm(query), self.k_norm(key)
        query, key = _rotated(query, *angles), _rotated(key, *position_embeddings)
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)
        implementation = self.config._attn_implementation
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
        kwargs |= {"dropout": self.attention_dropout if self.training else 0.0, "scaling": self.scaling}
        if implementation == "sdpa" and cpu_attention_fits(query, key, kwargs["dropout"]):
            attend = cpu_attention
        output, weights = attend(self, query, key, value, attention_mask, **kwargs)
        return self.o_proj(output.flatten(2)), weights

    def projected(self, asking: Tensor, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of the states that ask, (B, W, D), keys and values of all, (B, L, D); heads stand side by side."""
        return self.q_proj(asking), self.k_proj(states), self.v_proj(states)


class LastLayer(_Layer):
    """Mixed into a decoder layer of transformers whose attention is an `AttentionOfSome`."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        *arguments: Any,
        wanted: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """(B, L, D) -> the same shape, or (B, W, D) for `wanted`, (B, W) int64 places in the L positions."""
        if wanted is None:
            return super().forward(hidden_states, attention_mask, *arguments, **kwargs)
        if attention_mask is not None:
            attention_mask = torch.take_along_dim(attention_mask, wanted[:, None, :, None], dim=2)
        normed = self.input_layernorm(hidden_states)
        attended, _ = self.self_attn(normed, attention_mask=attention_mask, queries=wanted, **kwargs)
        hidden: Tensor = taken(hidden_states, wanted) + attended
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


class LlamaAttentionOfSome(AttentionOfSome, LlamaAttention):
    """Llama's."""


class LlamaLastLayer(LastLayer, LlamaDecoderLayer):
    """Llama's."""


def taken(states: Tensor, places: Tensor) -> Tensor:
    """(B, W, D): of (B or 1, L, D) those at places (B, W)."""
    return torch.take_along_dim(states, places[..., None], dim=1)


def _rotated(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(B, heads, L, head_dim), of which the first R dimensions turn, by cosines and sines of (1 or B, L, R)."""
    turning, rest = states[..., : cos.shape[-1]], states[..., cos.shape[-1] :]
    turned = (turning * cos[:, None] + rotate_half(turning) * sin[:, None]).to(states.dtype)
    return torch.cat((turned, rest), dim=-1) if rest.shape[-1] else turned
