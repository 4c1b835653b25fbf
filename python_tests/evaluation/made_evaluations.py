"""Evaluations with responses, made by hand instead of by a model."""

from pathlib import Path
from typing import Any

import numpy as np

from tad_ext.evaluation import Evaluation, Point, Response
from tad_ext.evaluation.report import evaluation_report
from tad_ext.evaluation.saved import REPORT, RESPONSES, write_responses
from tad_ext.files import write_json


def made_evaluation(
    name: str, rights: dict[str, float], *, problems: int = 40, seed: int = 0, **fields: Any
) -> Evaluation:
    """Of runs that are right at about these rates; each faster than the one before."""
    generator = np.random.default_rng(seed)
    responses, points = [], []
    for place, (run, rate) in enumerate(rights.items(), 1):
        own: list[Response] = [
            {
                "id": f"p{number:03d}", "policy": run, "correct": bool(generator.random() < rate), "tokens": 12 * place,
                "text_tokens": 12 * place - 2, "forwards": int(generator.integers(11, 14)), "latency": 0.5,
                "seconds": 0.25, "response": "text",
            }
            for number in range(problems)
        ]  # fmt: skip
        responses += own
        points.append(Point.of(run, own))
    return Evaluation(name, "words", points, responses=responses, problems_digest="d", **fields)


def write_evaluation(folder: Path, evaluation: Evaluation) -> str:
    """As `tad evaluate` leaves it."""
    folder.mkdir()
    write_json(folder / REPORT, evaluation_report(evaluation, samples=100) | {"settings": {}, "identity": {}})
    write_responses(folder / RESPONSES, evaluation.responses)
    return str(folder)
