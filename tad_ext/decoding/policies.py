"""Unmasking policies: which of the eligible masked positions are revealed by this forward.

A policy is any callable `policy(statistics, state) -> (score, accept)` on (B, W) tensors, one row per sequence and one
entry per eligible position (`state.eligible` is False on padding):

* accept, bool: reveal these positions. Entries that are not eligible are ignored.
* score, floating point, higher is better: where a block must make progress and nothing in it was accepted, its
  best-scored position is revealed; ties go to the lowest position.

A plain function is a policy. This one reveals every position whose two best tokens are clearly apart:

    def margin_above_half(statistics, state):
        return statistics.margin, statistics.margin > 0.5

    decode(model, prompts, DecodeConfig(gen_length=256, block_length=32, policy=margin_above_half))

A policy runs on the model's device at every step, so it should not wait for the host (no `.item()`, no `if tensor`). It
must treat each row on its own: then results do not depend on which prompts share a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tad_ext.ops import DecodeState, Policy, TokenStatistics

from .checks import check_integer, check_number


@dataclass(frozen=True)
class TopK:
    """Reveal the `k` most confident eligible positions of each row in each forward; ties go to the lowest position.

    `TopK(1)` is the one-token-per-forward decoding (low-confidence remasking) of LLaDA, arXiv 2502.09992.
    """

    k: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", check_integer("TopK.k", self.k, at_least=1))

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """Score by confidence; accept the k best."""
        candidate = state.eligible & statistics.valid
        score = statistics.confidence.masked_fill(~candidate, -torch.inf)
        # torch.topk leaves the order of ties open; a stable sort gives them to the lowest position.
        best = score.argsort(dim=-1, descending=True, stable=True)[..., : self.k]
        accept = torch.zeros_like(candidate).scatter(-1, best, True) & candidate
        return score, accept

    def __str__(self) -> str:
        return f"topk:{self.k}"


@dataclass(frozen=True)
class ConfidenceThreshold:
    """Reveal every eligible position whose token has probability >= `threshold`; otherwise the most confident one.

    Fast-dLLM, arXiv 2505.22618. `threshold` is in [0, 1]; 0 accepts everything.
    """

    threshold: float

    def __post_init__(self) -> None:
        threshold = check_number("ConfidenceThreshold.threshold", self.threshold, at_most=1.0)
        object.__setattr__(self, "threshold", threshold)

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """Score by confidence; accept from the threshold up."""
        return statistics.confidence, state.eligible & (statistics.confidence >= self.threshold)

    def __str__(self) -> str:
        return f"confidence:{self.threshold}"


@dataclass(frozen=True)
class EntropyThreshold:
    """Reveal every eligible position whose entropy is < `threshold` nats; otherwise the one of lowest entropy.

    The rule TAD is evaluated with (arXiv 2605.09536). The comparison is strict, so 0 is one token per step by forced
    progress; the entropy of V tokens can reach log(V), so thresholds above 1 are meaningful.
    """

    threshold: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "threshold", check_number("EntropyThreshold.threshold", self.threshold))

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """Score by negative entropy; accept below the threshold."""
        return -statistics.entropy, state.eligible & (statistics.entropy < self.threshold)

    def __str__(self) -> str:
        return f"entropy:{self.threshold}"


_PARSERS: dict[str, Callable[[str], TopK | ConfidenceThreshold | EntropyThreshold]] = {
    "topk": lambda value: TopK(int(value)),
    "confidence": lambda value: ConfidenceThreshold(float(value)),
    "entropy": lambda value: EntropyThreshold(float(value)),
}


def parse_policy(text: str) -> TopK | ConfidenceThreshold | EntropyThreshold:
    """The policy that a command line or a YAML file names: "topk:1", "confidence:0.9", "entropy:0.5".

    The inverse of `str(policy)`.

    Raises:
        TypeError: `text` is not a string.
        ValueError: an unknown name, or a value that is missing, not a number or out of range.
    """
    if not isinstance(text, str):
        raise TypeError(f'policy must be a string such as "entropy:0.5", got {text!r}')
    expected = 'expected "topk:K", "confidence:THRESHOLD" or "entropy:THRESHOLD", for example "entropy:0.5"'
    name, _, value = (part.strip() for part in text.partition(":"))
    if name not in _PARSERS:
        raise ValueError(f"policy {text!r}: unknown name {name!r}; {expected}")
    try:
        return _PARSERS[name](value)
    except ValueError as error:
        raise ValueError(f"policy {text!r}: {error}; {expected}") from None


def checked(policy: Policy) -> Policy:
    """`policy`, its answers checked for shape and dtype if a user wrote it (metadata only: no sync)."""
    if isinstance(policy, (TopK, ConfidenceThreshold, EntropyThreshold)):
        return policy

    def checked_policy(statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        answer = policy(statistics, state)
        if not (isinstance(answer, tuple) and len(answer) == 2 and all(isinstance(part, Tensor) for part in answer)):
            raise TypeError(f"policy {policy!r} must return a tuple of two tensors (score, accept), got {answer!r}")
        score, accept = answer
        shape = tuple(state.positions.shape)
        for name, part in (("score", score), ("accept", accept)):
            if tuple(part.shape) != shape:
                raise ValueError(f"policy {policy!r}: {name} must have shape {shape}, got {tuple(part.shape)}")
        if not score.is_floating_point():
            raise TypeError(f"policy {policy!r}: score must be floating point, got {score.dtype}")
        if accept.dtype != torch.bool:
            raise TypeError(f"policy {policy!r}: accept must be bool, got {accept.dtype}")
        return score, accept

    return checked_policy
