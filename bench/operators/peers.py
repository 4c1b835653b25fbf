"""Others' fused kernels: PyTorch's own, and on a GPU, where they are installed, those of Liger-Kernel and QuACK.

A package that is not installed is named as that in the results (`versions`), and has no lines; what is there and fails
is shown as failed, because a package is imported in the first run and not before. None has a kernel for the mixture of
near and distant rows: they are compared where there is one kind only.
"""

import importlib
import importlib.metadata
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from operator import attrgetter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..stopwatch import Implementation, training_step

LIGER, QUACK = "Liger-Kernel", "QuACK"
_PACKAGES = {LIGER: "liger-kernel", QUACK: "quack-kernels"}
_LIGER_MODULES = "liger_kernel.transformers"


def versions() -> dict[str, str | None]:
    """Of the others' packages; None where one is not installed."""
    return {name: _version(package) for name, package in _PACKAGES.items()}


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
        if _version("nvidia-cutlass-dsl"):  # what this one is written in
            scaled = _imported("liger_kernel.ops", "LigerFusedLinearScaledCrossEntropyFunction.apply")
            step = training_step(lambda hidden: scaled(hidden, weight, labels).mean(), [hidden])
            found[f"{LIGER}, scaled cross-entropy"] = step
    if _usable(QUACK, hidden) and hidden.dtype == torch.bfloat16:  # the dtype that its own tests cover
        quack = _imported("quack.linear_cross_entropy", "chunked_linear_cross_entropy")
        # Not tuned: its tuner would take longer than the benchmark.
        found[QUACK] = training_step(quack, [hidden], weight, labels, reduction="mean", tuned=False)
    return found


def linear_kl_divergence(hidden: Tensor, teacher: Tensor, weight: Tensor) -> dict[str, Implementation]:
    """Mean KL(teacher || student) of the logits of `hidden` and `teacher`, which never exist as a whole."""
    if not _usable(LIGER, hidden):
        return {}
    # Of its generalized Jensen-Shannon divergence the end at which that is the forward KL divergence.
    divergence = _imported(_LIGER_MODULES, "LigerFusedLinearJSD", jsd_beta=0.0)
    return {LIGER: training_step(lambda hidden: divergence(hidden, weight, teacher, weight, None), [hidden])}


def softmaxes(like: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    """Softmax, not its logarithm, of rows that need no gathering: as much traffic as masked log-softmax has."""
    return {f"{QUACK}, softmax": _imported("quack.softmax", "softmax")} if _usable(QUACK, like) else {}


def _usable(peer: str, tensor: Tensor) -> bool:
    return tensor.is_cuda and _version(_PACKAGES[peer]) is not None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _imported(module: str, name: str, **options: Any) -> Callable[..., Tensor]:
    """A function, or what a function makes with these options, that is imported when it is first called."""

    @cache
    def found() -> Callable[..., Tensor]:
        function = attrgetter(name)(importlib.import_module(module))
        return function(**options) if options else function

    return lambda *arguments, **given: found()(*arguments, **given)
