"""The named results and the decode state that operators, their references and their callers share."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tad_ext.settings import ForcedProgress as ForcedProgress

Count = int | float | Tensor | None
"""A denominator: a number or a 0-d tensor; None is a call's own count."""


def compute_dtype(logits: Tensor) -> torch.dtype:
    """That of sums and results: float64 for float64 logits, otherwise float32."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


class TADLoss(NamedTuple):
    """Result of `fused_tad_loss` and `fused_linear_tad_loss`: 0-d tensors, and what each entry has of its own.

    Only `loss` is differentiable. The counts are this call's own entries, whatever denominators were passed in. An
    entry has its CE if it is near and its KL if it is distant, in nats, without weights, denominators and T^2; one that
    is neither has 0, and on a GPU NaN if its row does not exist.
    """

    loss: Tensor  # ce_weight * ce + kl_weight * kl
    ce: Tensor  # weighted mean cross-entropy over near entries, nats
    kl: Tensor  # weighted mean KL(teacher || student) over distant entries, times temperature**2, nats
    near_count: Tensor  # int64
    distant_count: Tensor  # int64
    entry_losses: Tensor  # float64, in the shape of `labels`


class TokenStatistics(NamedTuple):
    """What one read of each logits row gives a decoding policy; every tensor has the shape of the rows."""

    token: Tensor  # int64: argmax among allowed tokens, or the sampled token
    confidence: Tensor  # float32: probability p of `token` at temperature 1, over the whole vocabulary
    log_odds: Tensor  # float32: log(p / (1 - p)) in nats; tells rows apart where p rounds to 1, as beyond 17 nats
    top_token: Tensor  # int64: the most probable allowed token, also when sampling
    second_token: Tensor  # int64: second most probable allowed token; -1 where there is none
    margin: Tensor  # float32: top-1 minus top-2 probability among allowed tokens
    gap: Tensor  # float32: the same of their logits, in nats; inf where there is no second, or it is impossible
    entropy: Tensor  # float32: nats, over the whole vocabulary
    logsumexp: Tensor  # float32
    valid: Tensor  # bool: False where the row holds NaN or +inf, or is padding
    query_logits: Tensor  # (..., K): the logits of `query_tokens`; K = 0 where none were asked for

    @property
    def query_probabilities(self) -> Tensor:
        """(..., K) float32: the probabilities of `query_tokens` at temperature 1, over the whole vocabulary."""
        return (self.query_logits.float() - self.logsumexp[..., None]).exp()


@dataclass
class DecodeState:
    """What `unmask_step` knows and keeps about a batch of canvases being decoded.

    A canvas is the generation region of a sequence: `gen_length` positions in blocks of `block_length`. The tensors are
    written in place by `unmask_step`; `positions` and `among` are set by the caller before each step.
    """

    reveal_step: Tensor  # (B, gen_length) int64: 1-based forward that revealed the position, 0 while masked
    forwards: Tensor  # (B,) int64: forwards during which the row was unfinished
    blocks: Tensor  # (B,) int64: created blocks
    done: Tensor  # (B,) bool
    positions: Tensor  # (B, W) int64: the canvas column of each statistics entry, ascending; -1 is padding
    block_length: int
    block_add_threshold: float = 1.0
    decoded_token_threshold: float = 1.0
    forced_progress: ForcedProgress = "row"
    eos_token_ids: tuple[int, ...] = ()  # empty: an end-of-sequence token is a token like any other
    end_token_ids: tuple[int, ...] = ()  # what ends a response, whether or not decoding stops there
    among: Tensor | None = None  # (B, W) bool: which entries are eligible; None: all but padding
    tokens: Tensor | None = None  # (B, W) int64: what the canvas holds there, for a policy that may change it
    seeds: Tensor | None = None  # (B,) int64: the seed of each row's random numbers, where the caller has one
    memory: dict[str, Tensor] = field(default_factory=dict)  # (B, ...) each: what the policy remembers; zeros at first
    own: set[str] = field(default_factory=set)  # of the memories those whose tensor nobody else holds

    @property
    def present(self) -> Tensor:
        """(B, W) bool: entries that are no padding."""
        return self.positions >= 0

    @property
    def eligible(self) -> Tensor:
        """(B, W) bool: entries that may be revealed, masks of created blocks."""
        return self.present if self.among is None else self.among

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What `commit_reveal` takes behind the canvas: reveal_step, forwards, blocks, done, positions."""
        return self.reveal_step, self.forwards, self.blocks, self.done, self.positions

    def to_commit(self, statistics: TokenStatistics, score: Tensor, accept: Tensor) -> dict[str, Any]:
        """What `commit_reveal` takes by name, but the mask token. Entries with invalid statistics are not accepted."""
        return {
            "block_length": self.block_length,
            "block_add_threshold": self.block_add_threshold,
            "decoded_token_threshold": self.decoded_token_threshold,
            "forced_progress": self.forced_progress,
            "eos_token_ids": self.eos_token_ids,
            "tokens": statistics.token,
            "top_tokens": statistics.top_token,
            "score": score.to(torch.float32).masked_fill(~statistics.valid, -torch.inf),
            "accept": accept & statistics.valid,
        }

    @classmethod
    def start(
        cls,
        batch_size: int,
        gen_length: int,
        *,
        block_length: int,
        block_add_threshold: float = 1.0,
        decoded_token_threshold: float = 1.0,
        forced_progress: ForcedProgress = "row",
        eos_token_ids: tuple[int, ...] = (),
        device: torch.device | str | None = None,
    ) -> "DecodeState":
        """State of `batch_size` fully masked canvases: no forwards yet, the first block created."""
        return cls(
            reveal_step=torch.zeros(batch_size, gen_length, dtype=torch.int64, device=device),
            forwards=torch.zeros(batch_size, dtype=torch.int64, device=device),
            blocks=torch.ones(batch_size, dtype=torch.int64, device=device),
            done=torch.zeros(batch_size, dtype=torch.bool, device=device),
            positions=torch.arange(block_length, device=device).expand(batch_size, -1),
            block_length=block_length,
            block_add_threshold=block_add_threshold,
            decoded_token_threshold=decoded_token_threshold,
            forced_progress=forced_progress,
            eos_token_ids=eos_token_ids,
        )
