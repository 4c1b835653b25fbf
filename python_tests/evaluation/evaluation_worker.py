"""Runs `evaluate` in forks, which can be killed at any moment."""

from typing import Any

from collection_worker import Worker, expected

from tad_ext.evaluation import measure
from tad_ext.jobs.evaluate import run as evaluation
from tad_ext.jobs.evaluate.config import EvaluateConfig
from tad_ext.settings import made


class EvaluationWorker(Worker):
    """As collection's."""

    function = f"{__name__}:in_fork"


def in_fork(settings: dict[str, Any], options: dict[str, Any]) -> None:
    """One run; the options are those of `collection_worker.in_fork`."""
    evaluation.WAIT = 0.1
    with expected(measure, **options):
        evaluation.evaluate(made(EvaluateConfig, settings))
