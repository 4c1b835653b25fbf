"""The pure-PyTorch paths that the operators replace, as one would write them: the baselines of every ratio."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """What torch.compile makes of one of these, at its first call: who never calls it need not import the compiler."""
    made = cache(lambda: torch.compile(function))
    return lambda *arguments, **options: made()(*arguments, **options)


def tad_loss(near: Tensor, distant: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """F.cross_entropy on near rows, F.kl_div of log-softmaxes on distant ones; by sums, so that no rows give 0."""
    ce = F.cross_entropy(near, labels, reduction="sum") / max(1, near.shape[0])
    log_q, log_p = distant.log_softmax(-1), teacher.log_softmax(-1)
    return ce + F.kl_div(log_q, log_p, reduction="sum", log_target=True) / max(1, distant.shape[0])


def dense_tad_loss(student: Tensor, teacher: Tensor, labels: Tensor, steps: Tensor, delta: int) -> Tensor:
    """The same behind boolean gathers."""
    near, distant = (steps >= 1) & (steps <= delta), steps > delta
    return tad_loss(student[near], student[distant], teacher[distant], labels[near])


def linear_tad_loss(near: Tensor, distant: Tensor, teacher: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """The output head first, on hidden states of near and distant rows."""
    return tad_loss(near @ weight.T, distant @ weight.T, teacher @ weight.T, labels)


def statistics_float64(logits: Tensor, temperature: float = 0.0) -> tuple[Tensor, ...]:
    """The published decoders' arithmetic: softmax in float64, entropy, token, and the token's probability."""
    x = logits.to(torch.float64)
    p = torch.softmax(x, dim=-1)
    entropy = -(p * torch.log(p + 1e-12)).sum(-1)
    token = logits.argmax(-1) if temperature == 0 else _sample(x, temperature)
    return token, p.gather(-1, token[..., None])[..., 0], entropy


def statistics_float32(logits: Tensor, temperature: float = 0.0) -> tuple[Tensor, ...]:
    """The same through one float32 log-softmax."""
    log_p = logits.float().log_softmax(-1)
    entropy = -(log_p.exp() * log_p).sum(-1)
    if temperature == 0:
        best, token = log_p.max(-1)
        return token, best.exp(), entropy
    token = _sample(log_p, temperature)
    return token, log_p.gather(-1, token[..., None])[..., 0].exp(), entropy


def _sample(x: Tensor, temperature: float) -> Tensor:
    """A sample of softmax(x / temperature) by Gumbel noise; the logarithm of an exponential variate is minus one."""
    return (x / temperature - torch.empty_like(x).exponential_().log()).argmax(-1)


def log_softmax_rows(logits: Tensor, chosen: Tensor) -> Tensor:
    """Gather the rows of a mask or of a list of indices, then log-softmax."""
    return logits[chosen].log_softmax(-1)


def reveal_in_block(
    canvas: Tensor, reveal_step: Tensor, forwards: Tensor, done: Tensor, positions: Tensor, token: Tensor,
    confidence: Tensor, threshold: float, mask_token_id: int,
) -> Tensor:  # fmt: skip
    """One step of a block-by-block decoder: write every token from the threshold up, and the best one in any case."""
    old = canvas.gather(1, positions)
    masked = (old == mask_token_id) & ~done[:, None]
    score = confidence.masked_fill(~masked, -torch.inf)
    best = score.argmax(-1, keepdim=True)
    accept = (score >= threshold).scatter(1, best, True) & masked
    forwards += ~done
    canvas.scatter_(1, positions, torch.where(accept, token, old))
    step = torch.where(accept, forwards[:, None], reveal_step.gather(1, positions))
    reveal_step.scatter_(1, positions, step)
    done.copy_((canvas != mask_token_id).all(-1))
    return accept
