"""Other projects' fused kernels on a GPU, where they are installed: Liger-Kernel and QuACK.

What is missing here is absent from the tables; what is there and fails is shown as failed, because a package is
imported in the first run and not before. Neither has a kernel for the mixture of near and distant rows: they are
compared where there is one kind only. Liger-Kernel's fused linear divergences need the teacher's probabilities or are
Jensen-Shannon's, so they have no place here.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..stopwatch import Implementation
from .work import training_step

LIGER, QUACK = "Liger-Kernel", "QuACK"
_PACKAGES = {LIGER: "liger_kernel", QUACK: "quack"}


def cross_entropy(logits: Tensor, labels: Tensor) -> dict[str, Implementation]:
    """Mean cross-entropy of every row, forward and backward."""
    found = {}
    if _usable(LIGER, logits):
        found[LIGER] = _overwriting(logits, lambda own: _liger("LigerCrossEntropyLoss", reduction="mean")(own, labels))
    if _usable(QUACK, logits):
        fused = _function("quack.cross_entropy", "cross_entropy")
        found[QUACK] = training_step((logits,), lambda: fused(logits, labels, reduction="mean"))
    return found


def kl_divergence(student: Tensor, teacher: Tensor) -> dict[str, Implementation]:
    """Mean KL(teacher || student) of every row, forward and backward: fused but for the two log-softmaxes."""
    if not _usable(LIGER, student):
        return {}

    def loss() -> Tensor:
        divergence = _liger("LigerKLDIVLoss", reduction="batchmean", log_target=True)
        return divergence(student.log_softmax(-1), teacher.log_softmax(-1))

    return {LIGER: training_step((student,), loss)}


def linear_cross_entropy(hidden: Tensor, weight: Tensor, labels: Tensor) -> dict[str, Implementation]:
    """Mean cross-entropy of `hidden @ weight.T`, whose logits never exist as a whole."""
    found = {}
    if _usable(LIGER, hidden):
        found[LIGER] = training_step(
            (hidden,), lambda: _liger("LigerFusedLinearCrossEntropyLoss")(weight, hidden, labels)
        )
    if _usable(QUACK, hidden) and hidden.dtype == torch.bfloat16:  # the dtype that its own tests cover
        fused = _function("quack.linear_cross_entropy", "chunked_linear_cross_entropy")
        # Not tuned: its tuner would take longer than the benchmark.
        found[QUACK] = training_step((hidden,), lambda: fused(hidden, weight, labels, reduction="mean", tuned=False))
    return found


def softmaxes(like: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    """Softmax, not its logarithm, of rows that need no gathering: as much traffic as masked log-softmax has."""
    return {f"{QUACK}, softmax": _function("quack.softmax", "softmax")} if _usable(QUACK, like) else {}


def _usable(peer: str, tensor: Tensor) -> bool:
    return _on_gpu(tensor) and importlib.util.find_spec(_PACKAGES[peer]) is not None


def _on_gpu(tensor: Tensor) -> bool:
    return tensor.is_cuda


@cache
def _liger(name: str, **options: Any) -> Callable[..., Tensor]:
    return getattr(importlib.import_module("liger_kernel.transformers"), name)(**options)


def _function(module: str, name: str) -> Callable[..., Tensor]:
    """A function that is imported when it is first called."""
    imported = cache(lambda: getattr(importlib.import_module(module), name))
    return lambda *arguments, **options: imported()(*arguments, **options)


def _overwriting(logits: Tensor, loss: Callable[[Tensor], Tensor]) -> Implementation:
    """A step whose loss writes the gradient over its logits: it gets its own, restored before every run."""
    own = logits.detach().clone().requires_grad_()
    step = training_step((own,), lambda: loss(own))

    def restore() -> None:
        step.forget()
        own.data.copy_(logits.detach())

    return Implementation(step.run, restore, step.forget)
