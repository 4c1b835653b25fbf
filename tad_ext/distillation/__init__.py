"""Distillation: a student learns from recorded trajectories, by an objective.

TAD's: near entries learn the trajectory's tokens, distant ones the teacher's distribution.
"""

from __future__ import annotations

from tad_ext.distillation.config import DistillConfig
from tad_ext.distillation.objective import Objective
from tad_ext.distillation.tad import TADObjective, TADSettings
from tad_ext.distillation.trainer import DistillResult, distill

__all__ = [
    "DistillConfig",
    "DistillResult",
    "Objective",
    "TADObjective",
    "TADSettings",
    "distill",
]
