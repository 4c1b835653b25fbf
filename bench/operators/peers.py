"""Others' fused kernels: PyTorch's own, and on a GPU, where they are installed, those of Liger-Kernel and QuACK.

What is missing here is absent from the tables; what is there and fails is shown as failed, because a package is
imported in the first run and not before. None has a kernel for the mixture of near and distant rows: they are compared
where there is one kind only. Liger-Kernel's fused linear divergences need the teacher's probabilities or are
Jensen-Shannon's, so they have no place here.
"""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..stopwatch import Implementation, training_step

LIGER, QUACK = "Liger-Kernel", "QuACK"
_PACKAGES = {LIGER: "liger_kernel", QUACK: "quack"}
_LIGER_MODULES = "liger_kernel.transformers"


def cross_entropy(logits: Tensor, labels: Tensor) -> dict[str, Implementation]:
    """Mean cross-entropy of every row, forward and backward."""
    found = {}
    if _usable(LIGER, logits):
        own = logits.detach().clone().requires_grad_()  # it writes the gradient over its logits
        step = training_step(_imported(_LIGER_MODULES, "LigerCrossEntropyLoss", reduction="mean"), [own], labels)
        found[LIGER] = replace(step, prepare=lambda: own.data.copy_(logits.detach()))
    if _usable(QUACK, logits):
        quack = _imported("quack.cross_entropy", "cross_entropy")
        found[QUACK] = training_step(quack, [logits], labels, reduction="mean")
    return found


def kl_divergence(student: Tensor, teacher: Tensor) -> dict[str, Implementation]:
    """Mean KL(teacher || student) of every row, forward and backward: fused but for the two log-softmaxes."""
    divergence = _imported(_LIGER_MODULES, "LigerKLDIVLoss", reduction="batchmean", log_target=True)

    def loss(student: Tensor, teacher: Tensor) -> Tensor:
        return divergence(student.log_softmax(-1), teacher.log_softmax(-1))

    return {LIGER: training_step(loss, [student], teacher)} if _usable(LIGER, student) else {}


def linear_cross_entropy(hidden: Tensor, weight: Tensor, labels: Tensor) -> dict[str, Implementation]:
    """Mean cross-entropy of `hidden @ weight.T`: PyTorch's own, where this version has it, with whole logits and in
    chunks, which on a CPU would take seconds, and kernels in which logits never exist as a whole.
    """
    found = {}
    if hasattr(F, "linear_cross_entropy"):
        found["F.linear_cross_entropy"] = training_step(F.linear_cross_entropy, [hidden], weight, labels)
    if hasattr(torch.nn, "LinearCrossEntropyOptions") and hidden.is_cuda:
        chunked = {"options": torch.nn.LinearCrossEntropyOptions()}
        step = training_step(F.linear_cross_entropy, [hidden], weight, labels, **chunked)
        found["F.linear_cross_entropy, chunked"] = step
    if _usable(LIGER, hidden):
        liger = _imported(_LIGER_MODULES, "LigerFusedLinearCrossEntropyLoss", reduction="mean")
        found[LIGER] = training_step(lambda hidden: liger(weight, hidden, labels), [hidden])
    if _usable(QUACK, hidden) and hidden.dtype == torch.bfloat16:  # the dtype that its own tests cover
        quack = _imported("quack.linear_cross_entropy", "chunked_linear_cross_entropy")
        # Not tuned: its tuner would take longer than the benchmark.
        found[QUACK] = training_step(quack, [hidden], weight, labels, reduction="mean", tuned=False)
    return found


def softmaxes(like: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    """Softmax, not its logarithm, of rows that need no gathering: as much traffic as masked log-softmax has."""
    return {f"{QUACK}, softmax": _imported("quack.softmax", "softmax")} if _usable(QUACK, like) else {}


def _usable(peer: str, tensor: Tensor) -> bool:
    return tensor.is_cuda and importlib.util.find_spec(_PACKAGES[peer]) is not None


def _imported(module: str, name: str, **options: Any) -> Callable[..., Tensor]:
    """A function, or what a function makes with these options, that is imported when it is first called."""

    @cache
    def found() -> Callable[..., Tensor]:
        function = getattr(importlib.import_module(module), name)
        return function(**options) if options else function

    return lambda *arguments, **given: found()(*arguments, **given)
