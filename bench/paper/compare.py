"""Two cells compared: differences of each base and training seed, their interval, and the answer that it gives.

Bases are the replicates. A base's difference is the mean over its training seeds, each on the base's own problems, the
same ones for both cells. Over two bases or more the interval is Student's,

    mean -+ t(n - 1) * SD / sqrt(n),   of n bases,

and the answer is "yes" where it lies above 0, "no" where it lies below, and "undecided" else. One base has no such
interval: the answer is "undecided", and the interval is that of the bootstrap over its problems, which says nothing
about another base or seed.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean, stdev

import numpy as np

from tad_ext.evaluation import (
    SweepOutcomes,
    accuracy_at,
    accuracy_under_parallelism,
    percentile_interval,
    resampled,
    resampled_curves,
)
from tad_ext.evaluation.results import ONE_PER_STEP

from .cells import CONFIDENCE
from .claims import AT_2, AT_3, AUP, FAR, NEAR, ONE, SPEED, STUDENT, TEACHER, THERE, Claim
from .results import Result

Curve = list[list[float]]  # of each policy: tokens per forward, accuracy in percent
PUBLISHED = "entropy:0.5"
FAR_DISTANCE = 20
# Student's t, 97.5 %, of 1, 2, ... degrees of freedom (any table); of more than nine the last one, which is too wide.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


@dataclass(frozen=True)
class Value:
    """An outcome of one cell: what was measured, and what it was in resamples of the problems."""

    measured: float
    draws: np.ndarray | None = None  #: (samples,), NaN where a resample has no such value


#: Of one base and one training seed: values by cell and outcome. What a cell does not reach is not there.
Run = Mapping[tuple[str, str], Value]
Runs = Mapping[tuple[int, int | None], Run]  # by base and training seed


@dataclass(frozen=True)
class Difference:
    """One cell less another one, in one outcome."""

    of_runs: dict[tuple[int, int | None], float]  #: by base and training seed
    interval: tuple[float, float] | None  #: 95 %
    bases: int

    @property
    def mean(self) -> float:
        """Of the bases' means over their seeds."""
        return fmean(_by_base(self.of_runs).values())

    @property
    def lies(self) -> str | None:
        """The side of 0 on which the interval is: yes, no, or None for both sides or no interval."""
        if self.interval is None:
            return None
        low, high = self.interval
        return "yes" if low > 0 else "no" if high < 0 else None

    @property
    def answer(self) -> str:
        """yes, no or undecided."""
        return self.lies or "undecided" if self.bases > 1 else "undecided"


def runs_of(results: Sequence[Result]) -> Runs:
    """All values of every base and training seed. Where a base has no training yet its seed is None."""
    by_base: dict[int, list[Result]] = defaultdict(list)
    for result in results:
        by_base[result.base].append(result)
    runs = {}
    for base, own in by_base.items():
        seeds = sorted({one.seed for one in own if one.seed is not None})
        for seed in seeds or [None]:
            runs[base, seed] = _run([one for one in own if one.seed in (seed, None)])
    return runs


def differences(claim: Claim, runs: Runs) -> dict[str, Difference | None]:
    """What a claim comes to, by outcome."""
    return {outcome: difference(runs, (claim.first, outcome), (claim.second, outcome)) for outcome in claim.outcomes}


def difference(runs: Runs, first: tuple[str, str], second: tuple[str, str]) -> Difference | None:
    """Of two values, each a cell and an outcome, over all runs that have both; None if no run has."""
    pairs = {key: (run[first], run[second]) for key, run in runs.items() if first in run and second in run}
    if not pairs:
        return None
    of_runs = {key: one.measured - other.measured for key, (one, other) in pairs.items()}
    by_base = _by_base(of_runs)
    if len(by_base) > 1:
        return Difference(of_runs, student_interval(list(by_base.values())), len(by_base))
    draws = [one.draws - other.draws for one, other in pairs.values() if one.draws is not None]
    low, high = percentile_interval(np.mean(draws, axis=0)) if draws else (None, None)
    return Difference(of_runs, None if low is None or high is None else (low, high), 1)


def student_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean of two values or more."""
    half = _T[min(len(values) - 1, len(_T)) - 1] * stdev(values) / math.sqrt(len(values))
    return fmean(values) - half, fmean(values) + half


def _by_base(of_runs: Mapping[tuple[int, int | None], float]) -> dict[int, float]:
    seeds: dict[int, list[float]] = defaultdict(list)
    for (base, _), value in of_runs.items():
        seeds[base].append(value)
    return {base: fmean(values) for base, values in seeds.items()}


def _run(results: Sequence[Result]) -> Run:
    measured = [one for one in results if one.policies]
    values: dict[tuple[str, str], Value] = {}
    for result in results:
        if result.cell == CONFIDENCE and result.decay is not None:
            values |= _confidences(result.decay)
    # All cells of a base are of the same problems, so that one draw of problems serves all of them.
    outcomes = [_outcomes(one) for one in measured]
    curves = [_curve(one) for one in outcomes]
    best = max((accuracy for curve in curves for _, accuracy in curve), default=0.0) or None
    drawn = resampled_curves(outcomes) if outcomes else []
    for result, curve, draws in zip(measured, curves, drawn, strict=True):
        for outcome, statistic in _statistics(result.policies, best).items():
            value = statistic(curve)
            if value is not None:
                values[result.cell, outcome] = Value(value, resampled(statistic, draws))
    return values


def _outcomes(result: Result) -> SweepOutcomes:
    arrays = {name: values.T for name, values in result.arrays().items()}
    at_one = np.array([policy == ONE_PER_STEP for policy in result.policies])
    return SweepOutcomes(arrays["correct"].astype(bool), arrays["tokens"], arrays["forwards"], at_one)


def _curve(outcomes: SweepOutcomes) -> Curve:
    speed = outcomes.tokens.sum(axis=0) / outcomes.forwards.sum(axis=0)
    return np.stack((np.where(outcomes.at_one, 1.0, speed), 100.0 * outcomes.correct.mean(axis=0)), axis=-1).tolist()


def _statistics(policies: Sequence[str], best: float | None) -> dict[str, Callable[[Curve], float | None]]:
    """The outcomes of a curve whose points are of these policies, in this order."""

    def area(curve: Curve) -> float | None:
        return accuracy_under_parallelism(curve, best)

    statistics: dict[str, Callable[[Curve], float | None]] = {
        AT_2: partial(accuracy_at, tokens_per_forward=2.0),
        AT_3: partial(accuracy_at, tokens_per_forward=3.0),
        AUP: area,
    }
    if ONE_PER_STEP in policies:
        statistics[ONE] = partial(_part, policies.index(ONE_PER_STEP), 1)
    if PUBLISHED in policies:
        statistics[SPEED] = partial(_part, policies.index(PUBLISHED), 0)
        statistics[THERE] = partial(_part, policies.index(PUBLISHED), 1)
    return statistics


def _part(point: int, part: int, curve: Curve) -> float:
    return curve[point][part]


def _confidences(decay: Mapping[str, Mapping[str, list[float]]]) -> dict[tuple[str, str], Value]:
    """What claims ask of the two curves."""
    student, teacher = decay["student"], decay["teacher"]
    far = max(place for place, distance in enumerate(student["distances"]) if distance <= FAR_DISTANCE)
    found = {
        NEAR: student["confidence"][0],
        FAR: student["confidence"][far],
        STUDENT: fmean(student["confidence"]),
        TEACHER: fmean(teacher["confidence"]),
    }
    return {(name, "confidence"): Value(value) for name, value in found.items()}
