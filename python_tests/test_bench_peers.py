"""bench/peers.py: what is not installed is absent, what fails is one failed line, what works is compared like for like.

The packages need a GPU; modules with their signatures and PyTorch's arithmetic stand in for them.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import loss_workloads
import peers
import pytest
import torch
import torch.nn.functional as F
import workloads
from cases import Case
from side_by_side import SideBySide
from stopwatch import Stopwatch
from torch import Tensor


class OverwritingCrossEntropy(torch.autograd.Function):
    """Writes the gradient where the logits were."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        loss = F.cross_entropy(logits, labels)
        one_hot = F.one_hot(labels, logits.shape[-1])
        logits.data.copy_((logits.softmax(-1) - one_hot) / len(labels))
        ctx.save_for_backward(logits.detach())
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return ctx.saved_tensors[0], None


class LigerFusedLinearCrossEntropyLoss:
    def __call__(self, weight: Tensor, hidden: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(hidden @ weight.T, labels)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both packages, and a CPU that passes for a GPU."""

    def module(name: str, **content: Any) -> None:
        made = ModuleType(name)
        made.__dict__.update(content)
        made.__spec__ = importlib.util.spec_from_loader(name, loader=None)
        monkeypatch.setitem(sys.modules, name, made)

    def quack_linear(x: Tensor, weight: Tensor, target: Tensor, *, reduction: str, tuned: bool) -> Tensor:
        return F.cross_entropy(x @ weight.T, target, reduction=reduction)

    monkeypatch.setattr(peers, "_on_gpu", lambda tensor: True)
    monkeypatch.setattr(torch, "compile", lambda function: function)
    peers._liger.cache_clear()
    module("liger_kernel")
    module(
        "liger_kernel.transformers",
        LigerCrossEntropyLoss=lambda reduction: OverwritingCrossEntropy.apply,
        LigerKLDIVLoss=torch.nn.KLDivLoss,
        LigerFusedLinearCrossEntropyLoss=LigerFusedLinearCrossEntropyLoss,
    )
    module("quack")
    module("quack.cross_entropy", cross_entropy=F.cross_entropy)
    module("quack.linear_cross_entropy", chunked_linear_cross_entropy=quack_linear)
    module("quack.softmax", softmax=lambda x: x.softmax(-1))
    yield
    peers._liger.cache_clear()


def compact(near: int, distant: int) -> Any:
    return loss_workloads.compact_tad_loss(8, 64, torch.float32, near=near, distant=distant)


def test_on_a_cpu_there_are_none() -> None:
    assert "Liger-Kernel" not in compact(1, 0).implementations
    assert "QuACK" not in compact(1, 0).implementations


@pytest.mark.usefixtures("installed")
def test_what_is_not_installed_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    assert "Liger-Kernel" not in compact(1, 0).implementations


@pytest.mark.usefixtures("installed")
def test_peers_are_compared_where_they_do_the_same_work() -> None:
    linear = loss_workloads.linear_tad_loss(8, 16, 64, torch.bfloat16, near=1, distant=0)
    for work, names in (
        (compact(1, 0), {"Liger-Kernel", "QuACK"}),
        (compact(0, 1), {"Liger-Kernel"}),
        (compact(1, 7), set()),
        (linear, {"Liger-Kernel", "QuACK"}),
    ):
        assert {"Liger-Kernel", "QuACK"} & set(work.implementations) == names
        for name in names:
            for _ in range(2):  # the first run leaves nothing changed
                peer, own = work.implementations[name], work.implementations["tad_ext"]
                if peer.prepare:
                    peer.prepare()
                (loss, gradient), (expected_loss, expected) = peer.run(), own.run()
                tolerance = 2e-2 if work is linear else 1e-5
                torch.testing.assert_close(loss.float(), expected_loss, rtol=tolerance, atol=tolerance)
                torch.testing.assert_close(gradient, expected, rtol=tolerance, atol=tolerance)
                peer.forget()
    softmax = workloads.log_softmax(8, 64, torch.float32, part="forward").implementations["QuACK, softmax"].run()
    torch.testing.assert_close(softmax.sum(-1), torch.ones(8))


@pytest.mark.usefixtures("installed")
def test_a_peer_that_fails_is_a_failed_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "quack.cross_entropy")
    case = Case("loss", "title", 8, lambda: compact(1, 0))
    timed = SideBySide(Stopwatch("cpu", evict_bytes=64), case)
    timed.warm_up()
    timed.before_own()
    lines = {line["path"]: line for line in timed.lines([0.001])}
    assert lines["Liger-Kernel"]["median_ms"] > 0
    assert lines["QuACK"]["error"].startswith("ModuleNotFoundError: ")
    assert lines["QuACK"]["baseline"]


def test_the_gradient_can_be_recomputed_where_the_operator_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def fused(student: Tensor, *_: Any, **options: Any) -> SimpleNamespace:
        asked.append(options)
        return SimpleNamespace(loss=student.sum())

    monkeypatch.setattr(loss_workloads, "fused_tad_loss", fused)
    for can in (False, True):
        monkeypatch.setattr(loss_workloads, "_CAN_RECOMPUTE", can)
        dense = loss_workloads.dense_tad_loss(8, 16, 64, torch.float32)
        for work in (compact(1, 7), dense):
            assert ("tad_ext, recomputed" in work.implementations) == can
            if can:
                work.implementations["tad_ext, recomputed"].run()
                assert asked[-1]["recompute_gradient"] is True
                work.implementations["tad_ext"].run()
                assert "recompute_gradient" not in asked[-1]
