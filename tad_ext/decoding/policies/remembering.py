"""Policies that remember predictions of earlier forwards."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tad_ext.ops import DecodeState, TokenStatistics, fused_tad_loss, token_statistics
from tad_ext.settings import Count, NonNegative, Probability

from .base import NamedPolicy
from .rows import candidates, columns_of, needs_prepare, remembered_columns


@dataclass(frozen=True)
class Credit(
    NamedPolicy,
    name="credit",
    rule="confidence >= threshold under logits + weight log(1 + M); M <- decay M, M[argmax] += p^exponent",
    source="CreditDecoding, arXiv 2510.06133; dInfer, arXiv 2510.08666",
):
    """Reveal every eligible position of confidence >= `threshold`, where past best guesses raise the confidence.

    Each canvas position keeps a credit M[v] >= 0 for every token v. In each forward that the position is eligible in,
    with p the largest probability and v* its token,

        M <- decay M,    M[v*] <- M[v*] + p^exponent,    logits <- logits + weight log(1 + M)

    and everything after, the choice of tokens included, sees the new logits.

    CreditDecoding, arXiv 2510.06133, with the weight 0.7, exponent 0.2 and decay 0.8 of dInfer (arXiv 2510.08666); the
    threshold 0.9 is Fast-dLLM's. v* is taken over the whole vocabulary, as there.

    Memory: M gains at most one token per forward, so its non-zeros are kept as pairs of token and credit, one place per
    forward: 8 gen_length (gen_length + 1) bytes per row, 0.5 MB at gen_length 256. `prepare` needs, for the forward
    only, the memory of the float32 logits once.
    """

    threshold: Probability = 0.9
    weight: NonNegative = 0.7
    exponent: NonNegative = 0.2
    decay: Probability = 0.8

    def prepare(self, logits: Tensor, state: DecodeState) -> Tensor:
        """Update the credits; the logits (B * W, V) with them, float32 at least."""
        entries, places = columns_of(state), state.reveal_step.shape[1]
        tokens = remembered_columns(state, "credit.tokens", places, dtype=torch.int32)
        credits = remembered_columns(state, "credit.credits", places)
        token, credit = tokens[entries], credits[entries]  # (B, W, places)

        now = token_statistics(logits)
        best = now.token.to(torch.int32).unflatten(0, state.positions.shape)[..., None]
        # Tensor.pow rounds differently where a vector register is not full, which would depend on the batch.
        gain = (self.exponent * now.confidence.log()).exp().where(now.confidence > 0, 0)
        gain = gain.unflatten(0, state.positions.shape)[..., None]

        known = (token == best) & (credit > 0)
        credit = self.decay * credit + torch.where(known, gain, 0.0)
        # A token that has no place yet takes the one of this forward's number, which nothing else ever takes. So no
        # token has two places, and the sum below has one term per token (besides 0): the same bits in any order.
        place = torch.arange(places, device=logits.device) == state.forwards.clamp(max=places - 1)[:, None, None]
        new = place & ~known.any(dim=-1, keepdim=True)
        token, credit = torch.where(new, best, token), torch.where(new, gain, credit)
        tokens[entries], credits[entries] = token, credit

        raised = logits.to(torch.promote_types(logits.dtype, torch.float32), copy=True)
        added = (self.weight * credit.log1p()).to(raised.dtype)
        return raised.scatter_add_(1, token.flatten(0, 1).long(), added.flatten(0, 1))

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """Score by log-odds; accept from the threshold up."""
        needs_prepare(state, "credit.credits", self)
        return statistics.log_odds, candidates(statistics, state) & (statistics.confidence >= self.threshold)


@dataclass(frozen=True)
class KLASS(
    NamedPolicy,
    name="klass",
    rule="confidence > threshold, and KL(p_t || p_(t-1)) < divergence in the last few forwards",
    source="KLASS, arXiv 2511.05664",
):
    """Reveal every eligible position that is confident and whose prediction has stopped changing.

    Confident: confidence > `threshold`. Stable: in each of the last `forwards` forwards, the divergence
    KL(p_t || p_(t-1)) from the position's prediction one forward earlier was < `divergence` nats, and its block existed
    in all of them. The block behind the created ones is watched, too, so a block that is created later has something
    to compare with in its first forward, unless it was hidden or a cache left it out before. A first prediction is not
    stable.

    KLASS, arXiv 2511.05664, with its code's defaults; it tunes them per task (0.6 and 0.015 for LLaDA on GSM8K).
    Predictions are compared at temperature 1 without noise, also when sampling.

    Memory: the last logits of every canvas column, gen_length + 1 rows of V in their dtype per row, 65 MB for LLaDA in
    bfloat16 at gen_length 256.
    """

    threshold: Probability = 0.9
    divergence: NonNegative = 0.01
    forwards: Count = 2
    sees = "ahead"

    def prepare(self, logits: Tensor, state: DecodeState) -> Tensor:
        """Look at the logits (B * W, V): count each column's stable forwards and keep its logits."""
        entries = columns_of(state)
        last = remembered_columns(state, "klass.last", logits.shape[-1], dtype=logits.dtype)
        counts = remembered_columns(state, "klass.counts", dtype=torch.int64)  # 0: never seen; else one more
        before = counts[entries]
        compared = (before > 0) & state.eligible
        row = torch.arange(len(last), device=logits.device)[:, None] * last.shape[1] + entries[1]
        change = fused_tad_loss(
            last.flatten(0, 1), logits, torch.zeros_like(row), compared.long(), delta=0, student_rows=row,
            teacher_rows=torch.arange(row.numel(), device=row.device).view_as(row),
        ).entry_losses.view_as(row)  # fmt: skip
        counts[entries] = torch.where(compared & (change < self.divergence), before + 1, 1)
        last[entries] = logits.view(*row.shape, -1)
        return logits

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """Score by log-odds; accept what is confident and stable."""
        needs_prepare(state, "klass.counts", self)
        stable = state.memory["klass.counts"][columns_of(state)] > self.forwards
        return statistics.log_odds, candidates(statistics, state) & stable & (statistics.confidence > self.threshold)
