"""How well and how fast a model answers: accuracy, tokens per forward and AUP over a sweep, and the curves of both.

The names are loaded when they are first used, so that reading the settings (`tad evaluate --help`) needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tad_ext.evaluation.config import EvaluateConfig
from tad_ext.evaluation.metrics import accuracy_percent, accuracy_standard_error, accuracy_under_parallelism

if TYPE_CHECKING:
    from tad_ext.evaluation.confidence import ConfidenceDecay, confidence_by_distance
    from tad_ext.evaluation.plots import plot_accuracy_curve, plot_confidence_decay
    from tad_ext.evaluation.results import Evaluation, Point
    from tad_ext.evaluation.runner import evaluate, evaluate_model

__all__ = [
    "ConfidenceDecay",
    "EvaluateConfig",
    "Evaluation",
    "Point",
    "accuracy_percent",
    "accuracy_standard_error",
    "accuracy_under_parallelism",
    "confidence_by_distance",
    "evaluate",
    "evaluate_model",
    "plot_accuracy_curve",
    "plot_confidence_decay",
]

_LAZY = {
    "ConfidenceDecay": "confidence",
    "Evaluation": "results",
    "Point": "results",
    "confidence_by_distance": "confidence",
    "evaluate": "runner",
    "evaluate_model": "runner",
    "plot_accuracy_curve": "plots",
    "plot_confidence_decay": "plots",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'tad_ext.evaluation' has no attribute '{name}'")
    return getattr(importlib.import_module(f"tad_ext.evaluation.{_LAZY[name]}"), name)
