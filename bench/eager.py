"""The pure-PyTorch paths that the operators replace, as one would write them: the baselines of every ratio."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def tad_loss(student: Tensor, teacher: Tensor, labels: Tensor, steps: Tensor, delta: int) -> Tensor:
    """Boolean gathers, F.cross_entropy on near rows, F.kl_div of log-softmaxes on distant ones."""
    near, distant = (steps >= 1) & (steps <= delta), steps > delta
    ce = F.cross_entropy(student[near], labels[near])
    log_q, log_p = student[distant].log_softmax(-1), teacher[distant].log_softmax(-1)
    return ce + F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def statistics_float64(logits: Tensor) -> tuple[Tensor, ...]:
    """The published decoders' arithmetic: softmax in float64, entropy, argmax, and the argmax's probability."""
    p = torch.softmax(logits.to(torch.float64), dim=-1)
    entropy = -(p * torch.log(p + 1e-12)).sum(-1)
    token = logits.argmax(-1)
    confidence = p.gather(-1, token[..., None])[..., 0]
    return token, confidence, entropy


def statistics_float32(logits: Tensor) -> tuple[Tensor, ...]:
    """The same through one float32 log-softmax."""
    log_p = logits.float().log_softmax(-1)
    entropy = -(log_p.exp() * log_p).sum(-1)
    best, token = log_p.max(-1)
    return token, best.exp(), entropy


def log_softmax_rows(logits: Tensor, mask: Tensor) -> Tensor:
    """Gather, then log-softmax."""
    return logits[mask].log_softmax(-1)
