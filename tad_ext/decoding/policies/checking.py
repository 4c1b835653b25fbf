"""A user's policy, checked at every call."""

from typing import Any

import torch
from torch import Tensor

from tad_ext.ops import DecodeState, Policy, TokenStatistics

from .base import softens


def is_built_in(policy: Policy) -> bool:
    """Whether a policy is this package's: it answers as it must and never looks at a value on the host."""
    return type(policy).__module__.startswith(f"{__package__}.")


def checked(policy: Policy) -> Policy:
    """The policy; where a user wrote it, with the shapes and dtypes of all its answers checked."""
    return policy if is_built_in(policy) else _Checked(policy)


class _Checked:
    def __init__(self, policy: Any) -> None:
        self.policy = policy
        for name in ("prepare", "revise", "resize", "waits"):
            if hasattr(policy, name):
                setattr(self, name, getattr(self, f"_{name}"))

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        policy, shape = self.policy, tuple(state.positions.shape)
        answer = policy(statistics, state)
        if not (isinstance(answer, tuple) and len(answer) == 2 and all(isinstance(part, Tensor) for part in answer)):
            raise TypeError(f"policy {policy!r} must return a tuple of two tensors (score, accept), got {answer!r}")
        score, accept = answer
        for name, part in (("score", score), ("accept", accept)):
            if tuple(part.shape) != shape:
                raise ValueError(f"policy {policy!r}: {name} must have shape {shape}, got {tuple(part.shape)}")
        if not score.is_floating_point():
            raise TypeError(f"policy {policy!r}: score must be floating point, got {score.dtype}")
        if accept.dtype != torch.bool:
            raise TypeError(f"policy {policy!r}: accept must be bool, got {accept.dtype}")
        return score, accept

    def _revise(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        answer, shape = self.policy.revise(statistics, state), tuple(state.positions.shape)
        parts = [("tokens", shape, torch.int64), ("open", shape[:1], torch.bool)]
        parts += [("shares", shape, torch.float32)] if softens(self.policy) else []
        tensors = isinstance(answer, tuple) and all(isinstance(part, Tensor) for part in answer)
        if not tensors or len(answer) != len(parts):
            names = ", ".join(name for name, *_ in parts)
            raise TypeError(f"policy {self.policy!r}: revise must return tensors ({names}), got {answer!r}")
        for (name, expected, dtype), part in zip(parts, answer, strict=True):
            if tuple(part.shape) != expected or part.dtype != dtype:
                raise ValueError(
                    f"policy {self.policy!r}: {name} must be {dtype} of shape {expected}, got {part.dtype} of "
                    f"{tuple(part.shape)}"
                )
        return answer

    def _resize(
        self, statistics: TokenStatistics, state: DecodeState, canvas: Tensor, lengths: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        answer = self.policy.resize(statistics, state, canvas, lengths)
        if not isinstance(answer, tuple) or len(answer) != 3:
            raise TypeError(f"policy {self.policy!r}: resize must return (length, place, count), got {answer!r}")
        length, place, count = (self._per_row("resize", part, lengths) for part in answer)
        return length, place, count

    def _waits(self, state: DecodeState) -> Tensor:
        return self._per_row("waits", self.policy.waits(state), state.done)

    def _per_row(self, name: str, part: Any, like: Tensor) -> Tensor:
        if not isinstance(part, Tensor) or (part.shape, part.dtype) != (like.shape, like.dtype):
            raise TypeError(
                f"policy {self.policy!r}: {name} must return {like.dtype} of shape {tuple(like.shape)}, got {part!r}"
            )
        return part

    def _prepare(self, logits: Tensor, state: DecodeState) -> Tensor:
        answer = self.policy.prepare(logits, state)
        if not isinstance(answer, Tensor) or not answer.is_floating_point():
            raise TypeError(f"policy {self.policy!r}: prepare must return logits, a floating-point tensor")
        if answer.shape != logits.shape:
            shapes = f"{tuple(logits.shape)}, got {tuple(answer.shape)}"
            raise ValueError(f"policy {self.policy!r}: prepare must return logits of shape {shapes}")
        return answer
