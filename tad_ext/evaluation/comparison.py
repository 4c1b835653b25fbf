"""Methods set beside each other: one y_max for all, intervals from one bootstrap, differences paired over problems."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tad_ext.evaluation.bootstrap import SweepOutcomes, percentile_interval, resampled, resampled_curves
from tad_ext.evaluation.metrics import accuracy_at, accuracy_under_parallelism
from tad_ext.evaluation.results import Evaluation
from tad_ext.evaluation.settings import BOOTSTRAP_SAMPLES
from tad_ext.evaluation.significance import McNemar, mcnemar

SPEEDS = (2.0, 3.0, 4.0)  # tokens per forward at which accuracies are compared, unless others are asked for

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Method:
    """A curve with a name, and the outcomes of problems behind it; None of a method of which only points are known."""

    name: str
    curve: Points  #: (tokens per forward, accuracy in percent)
    outcomes: SweepOutcomes | None = None


@dataclass(frozen=True)
class Estimate:
    """A number, and the 95 % percentile interval of the bootstrap over problems."""

    value: float | None  #: None: there is none, as for an accuracy at a speed that is not reached
    interval: list[float] | None = None  #: None: nothing is known of the problems, or no draw has a value
    draws: float = 1.0  #: share of the draws that have a value; the interval is of these


@dataclass(frozen=True)
class Summary:
    """What a method's curve comes to."""

    name: str
    points: Points
    aup: Estimate
    accuracy_at: dict[str, Estimate]  #: best accuracy at so many tokens per forward or more, by "2", "3", ...


@dataclass(frozen=True)
class Difference:
    """A method less the one that it is compared with."""

    name: str
    other: str
    aup: Estimate
    accuracy_at: dict[str, Estimate]  #: in percentage points


@dataclass(frozen=True)
class Comparison:
    """Methods under one y_max."""

    best_accuracy: float
    samples: int  #: draws of the bootstrap
    summaries: list[Summary]
    differences: list[Difference]  #: of every other method to the first


def compare_methods(
    methods: Sequence[Method],
    best_accuracy: float | None = None,
    *,
    speeds: Sequence[float] = SPEEDS,
    samples: int = BOOTSTRAP_SAMPLES,
    seed: int = 0,
) -> Comparison:
    """AUP and the best accuracy at some speeds of each method, and how far the others are from the first one in both.

    All numbers are functions of one draw of problems, the same problems for all methods: differences are paired.

    Args:
        methods: at least one, with different names; those that have outcomes, of the same problems.
        best_accuracy: y_max of AUP, in percent. None: the best of all points of all methods, and in each draw the best
            of that draw's, so that intervals say how far y_max itself depends on the problems.
        speeds: tokens per forward at which accuracies are compared, see `accuracy_at`.
        samples, seed: of the bootstrap.

    Raises:
        ValueError: no methods, two of one name, outcomes of different numbers of problems.
    """
    names = [method.name for method in methods]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"methods are {names}; expected at least one, with different names")
    curves = [method.curve for method in methods]
    known = [(number, method.outcomes) for number, method in enumerate(methods) if method.outcomes is not None]

    def numbers(all_curves: Sequence[Points]) -> list[list[float | None]]:
        """(methods, 1 + speeds): AUP, and the accuracy at each speed."""
        best = _best(all_curves) if best_accuracy is None else best_accuracy
        return [
            [
                accuracy_under_parallelism(curve, best or None) if curve else 0.0,
                *(accuracy_at(curve, speed) if curve else None for speed in speeds),
            ]
            for curve in all_curves
        ]

    def numbers_of_draw(*drawn: Points) -> list[list[float | None]]:
        of_draw = dict(zip((number for number, _ in known), drawn, strict=True))
        return numbers([of_draw.get(number, curve) for number, curve in enumerate(curves)])

    found, draws = numbers(curves), np.empty(0)
    if known:
        drawn_curves = resampled_curves([outcomes for _, outcomes in known], samples=samples, seed=seed)
        draws = resampled(numbers_of_draw, *drawn_curves)
    keys = ["aup", *(f"{speed:g}" for speed in speeds)]

    def drawn(number: int, column: int) -> np.ndarray | None:
        return None if methods[number].outcomes is None else draws[:, number, column]

    def estimates(number: int, less: int | None = None) -> dict[str, Any]:
        """Of a method, or of how far it is from the one of number `less`."""
        made = {}
        for column, key in enumerate(keys):
            value, values = found[number][column], drawn(number, column)
            if less is not None:
                value, values = _minus(value, found[less][column]), _minus(values, drawn(less, column))
            made[key] = _estimate(value, values)
        return {"aup": made.pop("aup"), "accuracy_at": made}

    return Comparison(
        best_accuracy=_best(curves) if best_accuracy is None else best_accuracy,
        samples=samples,
        summaries=[Summary(one.name, one.curve, **estimates(number)) for number, one in enumerate(methods)],
        differences=[
            Difference(name, names[0], **estimates(number, 0)) for number, name in enumerate(names) if number > 0
        ],
    )


def matched_tests(first: Evaluation, second: Evaluation) -> dict[str, McNemar]:
    """McNemar's exact test of each decoding run that both have, by its name. ValueError for other problems."""
    check_same_problems([first, second])
    tests = {}
    for point in first.points:
        if point.policy in {other.policy for other in second.points}:
            right = {one["id"]: one["correct"] for one in second.responses_of(point.policy)}
            own = first.responses_of(point.policy)
            tests[point.policy] = mcnemar([one["correct"] for one in own], [right[one["id"]] for one in own])
    return tests


def check_same_problems(evaluations: Sequence[Evaluation]) -> None:
    """ValueError, naming what differs, unless all answer the same problems of one task."""
    first = evaluations[0]
    ids = {one["id"] for one in first.responses}
    for other in evaluations[1:]:
        if other.task != first.task:
            raise ValueError(f"{first.name} answers problems of {first.task}, {other.name} of {other.task}")
        others = {one["id"] for one in other.responses}
        for more, fewer, only in ((first, other, ids - others), (other, first, others - ids)):
            if only:
                raise ValueError(
                    f"{more.name} and {fewer.name} answer different problems: {len(only)} of {more.name} are not of "
                    f"{fewer.name}, such as {min(only)!r}; expected the same"
                )
        if first.problems_digest and other.problems_digest and first.problems_digest != other.problems_digest:
            raise ValueError(
                f"{first.name} and {other.name} answer different problems under the same ids: a question or an answer "
                f"was edited in between; expected the same"
            )


def _best(curves: Sequence[Points]) -> float:
    return max((accuracy for curve in curves for _, accuracy in curve), default=0.0)


def _minus(one: Any, other: Any) -> Any:
    return None if one is None or other is None else one - other


def _estimate(value: float | None, draws: np.ndarray | None) -> Estimate:
    if value is None or draws is None:
        return Estimate(value)
    return Estimate(value, percentile_interval(draws), float(np.mean(~np.isnan(draws))))
