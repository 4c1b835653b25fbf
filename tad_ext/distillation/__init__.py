"""Distillation: near entries learn the trajectory's tokens, distant ones the teacher's distribution."""

from __future__ import annotations

from tad_ext.distillation.config import DistillConfig
from tad_ext.distillation.dataset import TADBatch, TrajectoryStates, collate
from tad_ext.distillation.objectives import BatchTotals, TADObjective, TADSettings
from tad_ext.distillation.trainer import DistillResult, distill

__all__ = [
    "BatchTotals",
    "DistillConfig",
    "DistillResult",
    "TADBatch",
    "TADObjective",
    "TADSettings",
    "TrajectoryStates",
    "collate",
    "distill",
]
