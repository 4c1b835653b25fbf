"""The bootstrap over clusters: how else means could have come out, had other clusters been drawn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tad_ext.evaluation.metrics import CONFIDENCE, check_confidence
from tad_ext.evaluation.settings import BOOTSTRAP_SAMPLES

_DRAWN_AT_A_TIME = 2**21  # clusters, of which a few arrays of eight bytes each are held


def means(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """``sums / counts``, NaN where nothing was counted."""
    return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)


def resampled_means(
    sums: np.ndarray, counts: np.ndarray, *, samples: int, generator: np.random.Generator
) -> np.ndarray:
    """Means of each of D columns in `samples` draws of T clusters from T, with replacement.

    Whole clusters are drawn because values in one need not be independent: drawn one by one, they would promise
    intervals that are too narrow (Davison and Hinkley, Bootstrap Methods and their Application, 3.8).

    Args:
        sums: (T, D) of each cluster's values in each column, T >= 1.
        counts: (T, D) how many values these are.

    Returns:
        (samples, D) float64, NaN where a draw has no value in the column.
    """
    clusters = len(sums)
    both = np.concatenate((sums, counts), axis=1, dtype=np.float64)
    at_a_time = max(1, _DRAWN_AT_A_TIME // clusters)
    totals = []
    for start in range(0, samples, at_a_time):
        draws = min(at_a_time, samples - start)
        drawn = generator.integers(clusters, size=(draws, clusters))
        drawn += clusters * np.arange(draws)[:, None]
        times = np.bincount(drawn.ravel(), minlength=draws * clusters).reshape(draws, clusters)
        totals.append(times.astype(np.float64) @ both)
    return means(*np.split(np.concatenate(totals), 2, axis=1))


@dataclass(frozen=True)
class SweepOutcomes:
    """What each of P problems came to in each of R decoding runs of one method: the data under its curve.

    Raises ValueError if the shapes differ, there is no problem or no run, or a problem took no forward.
    """

    correct: np.ndarray  #: (P, R) bool
    tokens: np.ndarray  #: (P, R) integers: tokens of the response
    forwards: np.ndarray  #: (P, R) integers, >= 1
    at_one: np.ndarray  #: (R,) bool: the run stands at 1.0 tokens per forward by convention (one token per step)

    def __post_init__(self) -> None:
        shape = self.correct.shape
        if len(shape) != 2 or not self.correct.size or {self.tokens.shape, self.forwards.shape} != {shape}:
            shapes = [one.shape for one in (self.correct, self.tokens, self.forwards)]
            raise ValueError(f"correct, tokens, forwards have shapes {shapes}; expected one (P, R), both at least 1")
        if self.at_one.shape != shape[1:]:
            raise ValueError(f"at_one has shape {self.at_one.shape}; expected {shape[1:]}, an entry per run")
        if (self.forwards < 1).any() or (self.tokens < 0).any():
            raise ValueError("forwards holds a number below 1, or tokens one below 0")


def resampled_curves(
    methods: Sequence[SweepOutcomes], *, samples: int = BOOTSTRAP_SAMPLES, seed: int = 0
) -> list[np.ndarray]:
    """The curves of methods on the same P problems, as they were if others of these problems had been asked.

    Each draw takes P of the problems with replacement, the same ones for all methods and runs, and makes of them what
    is made of all: accuracy, and sum of tokens / sum of forwards. So what is computed from one draw is paired over
    problems (Efron and Tibshirani, An Introduction to the Bootstrap, 1993).

    Returns:
        For each method (samples, R, 2) float64: tokens per forward and accuracy in percent of each of its runs.

    Raises:
        ValueError: no methods, or of different numbers of problems.
    """
    numbers = {len(method.correct) for method in methods}
    if len(numbers) != 1:
        raise ValueError(f"methods have {sorted(numbers)} problems; expected methods on the same ones, at least one")
    columns: list[np.ndarray] = []
    counts: list[np.ndarray] = []
    for method in methods:
        columns += [100.0 * method.correct, method.tokens]
        counts += [np.ones(method.correct.shape), method.forwards]
    sums, number = np.concatenate(columns, axis=1), np.concatenate(counts, axis=1)
    drawn = resampled_means(sums, number, samples=samples, generator=np.random.default_rng(seed))
    curves, start = [], 0
    for method in methods:
        runs = len(method.at_one)
        accuracy, speed = drawn[:, start : start + runs], drawn[:, start + runs : start + 2 * runs]
        curves.append(np.stack((np.where(method.at_one, 1.0, speed), accuracy), axis=-1))
        start += 2 * runs
    return curves


def resampled(statistic: Callable[..., Any], *curves: np.ndarray) -> np.ndarray:
    """(samples, ...) float64: `statistic` of each draw's curves, which `resampled_curves` gave; NaN where it is None.

    It is called with a list of points for each of `curves`, and gives a number or None, or lists of these of one shape.
    A run whose drawn responses have no token has no place on a curve, and is left out of its list.
    """

    def points(curve: np.ndarray) -> list[tuple[float, float]]:
        return [(rho, accuracy) for rho, accuracy in curve.tolist() if rho > 0]

    return np.array([statistic(*map(points, draw)) for draw in zip(*curves, strict=True)], dtype=np.float64)


def percentile_interval(values: np.ndarray, *, confidence: float = CONFIDENCE) -> list[float] | None:
    """The percentile interval of a bootstrap: of `values` (S,), those that (1 -+ confidence) / 2 of them lie below.

    Its ends are two of the values. NaN, a draw without a value, is left out; None if nothing else is there.
    """
    check_confidence(confidence)
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    low, high = (1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0
    return [float(np.quantile(known, low, method="lower")), float(np.quantile(known, high, method="higher"))]
