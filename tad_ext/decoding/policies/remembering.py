"""Policies that remember predictions of earlier forwards."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tad_ext.ops import DecodeState, TokenStatistics
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
    only, the memory of the float32 logits once or twice.
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

        top, best = logits.max(dim=-1)
        log_probability = top.float() - logits.float().logsumexp(dim=-1)
        best = best.to(torch.int32).unflatten(0, state.positions.shape)[..., None]
        # Tensor.pow rounds differently where a vector register is not full, which would depend on the batch.
        gain = (self.exponent * log_probability).exp().nan_to_num(nan=0.0)
        gain = gain.unflatten(0, state.positions.shape)[..., None]

        known = (token == best) & (credit > 0)
        credit = self.decay * credit + torch.where(known, gain, 0.0)
        # A token that has no place yet takes the one of this forward's number, which nothing else ever takes. So no
        # token has two places, and the sum below has one term per token: the same bits in any order of addition.
        place = torch.arange(places, device=logits.device) == state.forwards.clamp(max=places - 1)[:, None, None]
        new = place & ~known.any(dim=-1, keepdim=True)
        token, credit = torch.where(new, best, token), torch.where(new, gain, credit)
        tokens[entries], credits[entries] = token, credit

        dense = torch.zeros(logits.shape, dtype=torch.float32, device=logits.device)
        dense.scatter_add_(1, token.flatten(0, 1).long(), credit.flatten(0, 1))
        return logits + self.weight * dense.log1p_()

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """Score by log-odds; accept from the threshold up."""
        needs_prepare(state, "credit.credits", self)
        return statistics.log_odds, candidates(statistics, state) & (statistics.confidence >= self.threshold)


# Keeps logarithms finite, as in the published code. Before a column's first prediction there are zeros, from which the
# divergence is about log(1 / EPSILON) minus the entropy, above any sensible bound: a first prediction is not stable.
EPSILON = 1e-12


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
    in all of them. A mask is watched in every forward that computes it, so a block that is created later has something
    to compare with in its first forward, unless a cache left it out before.

    KLASS, arXiv 2511.05664, with its code's defaults; it tunes them per task (0.6 and 0.015 for LLaDA on GSM8K).
    Predictions are compared at temperature 1 without noise, also when sampling.

    Memory: the last distribution of every canvas column, 4 (gen_length + 1) V bytes per row, 130 MB for LLaDA at
    gen_length 256. `prepare` needs, for the forward only, a few times the memory of the float32 logits.
    """

    threshold: Probability = 0.9
    divergence: NonNegative = 0.01
    forwards: Count = 2
    sees = "masks"

    def prepare(self, logits: Tensor, state: DecodeState) -> Tensor:
        """Look at the logits (B * W, V): count each column's stable forwards and keep its distribution."""
        entries = columns_of(state)
        last = remembered_columns(state, "klass.last", logits.shape[-1])
        stable = remembered_columns(state, "klass.stable", dtype=torch.int64)
        now = logits.softmax(dim=-1, dtype=torch.float32).unflatten(0, state.positions.shape)
        change = (now * ((now + EPSILON).log() - (last[entries] + EPSILON).log())).sum(dim=-1)
        stable[entries] = torch.where((change < self.divergence) & state.eligible, stable[entries] + 1, 0)
        last[entries] = now
        return logits

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """Score by log-odds; accept what is confident and stable."""
        needs_prepare(state, "klass.stable", self)
        stable = state.memory["klass.stable"][columns_of(state)] >= self.forwards
        return statistics.log_odds, candidates(statistics, state) & stable & (statistics.confidence > self.threshold)
