"""The numbers that describe a decoding method: accuracy and its interval, accuracy under parallelism (AUP), the best
accuracy at so many tokens per forward, and the latency of a response.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from statistics import NormalDist

import numpy as np

Curve = Iterable[tuple[float, float]]
"""Pairs (tokens per forward, accuracy in percent), in any order."""
CONFIDENCE = 0.95  # of every interval here, unless another is asked for


def accuracy_percent(correct: int, total: int) -> float:
    """Accuracy in percent; `total` problems, at least one, of which `correct` were answered correctly."""
    _check_counts(correct, total)
    return 100.0 * correct / total


def accuracy_standard_error(correct: int, total: int) -> float:
    """Standard error of that accuracy in percentage points: 100 * sqrt(p * (1 - p) / total), the binomial one."""
    _check_counts(correct, total)
    share = correct / total
    return 100.0 * math.sqrt(share * (1.0 - share) / total)


def wilson_interval(correct: int, total: int, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval of that accuracy, in percent: the shares for which p' = correct / total is not unlikely.

        (p' + z^2 / 2n -+ z * sqrt(p' (1 - p') / n + z^2 / 4n^2)) / (1 + z^2 / n),   n = total,

    z the normal quantile of (1 + confidence) / 2: 1.96 for 95 %. Unlike the one by the standard error, it does not
    shrink to a point where all answers are right, or none (Wilson 1927; Brown, Cai and DasGupta, Interval Estimation
    for a Binomial Proportion, 2001).
    """
    _check_counts(correct, total)
    check_confidence(confidence)
    z = NormalDist().inv_cdf((1.0 + confidence) / 2.0)
    share, spread = correct / total, z * z / total
    middle = share + spread / 2.0
    half = z * math.sqrt(share * (1.0 - share) / total + spread / (4.0 * total))
    low = 0.0 if correct == 0 else (middle - half) / (1.0 + spread)
    high = 1.0 if correct == total else (middle + half) / (1.0 + spread)
    return 100.0 * low, 100.0 * high


def accuracy_under_parallelism(
    points: Curve, best_accuracy: float | None = None, *, alpha: float = 3.0, max_drop: float = 5.0
) -> float:
    """Area under the curve of weighted accuracy, in percent, against tokens per forward (AUP; arXiv 2605.09536).

    With the points (rho_i, y_i) sorted by rho and those with ``y < y_1 - max_drop`` left out,

        AUP = rho_1 * y_1 + sum_i 0.5 * (rho_i - rho_{i-1}) * (y_i * W(y_i) + y_{i-1} * W(y_{i-1})),
        W(y) = min(exp(-alpha * (1 - y / best_accuracy)), 1).

    Args:
        points: pairs (tokens per forward, finite and > 0; accuracy in percent, 0..100) in any order, at least one. By
            convention the one-token-per-step run stands at 1.0 tokens per forward.
        best_accuracy: y_max, in (0, 100]: the best accuracy in percent that any method reached on the task. Two methods
            are only comparable under a common value. None: the best of these points, 0 of which give an area of 0.
        alpha: how fast the weight falls with lost accuracy, >= 0; 0 weighs every point by 1.
        max_drop: percentage points a point may lie below the slowest one before it is left out, >= 0.

    Raises:
        ValueError: no points, or a number out of its range.
    """
    curve = checked_curve(points)
    if best_accuracy is None:
        best_accuracy = max(accuracy for _, accuracy in curve) or 100.0  # where nothing is right, any value gives 0
    if not 0.0 < best_accuracy <= 100.0:
        raise ValueError(f"best_accuracy is {best_accuracy}; expected percent, above 0 and at most 100")
    if not (math.isfinite(alpha) and alpha >= 0):
        raise ValueError(f"alpha is {alpha}; expected a finite number >= 0")
    if not max_drop >= 0:
        raise ValueError(f"max_drop is {max_drop}; expected percentage points >= 0")

    def weighted(accuracy: float) -> float:
        return accuracy * min(math.exp(-alpha * (1.0 - accuracy / best_accuracy)), 1.0)

    first_rho, first_accuracy = curve[0]
    kept = [(rho, accuracy) for rho, accuracy in curve if accuracy >= first_accuracy - max_drop]
    area = first_rho * first_accuracy
    for (rho_before, before), (rho, accuracy) in itertools.pairwise(kept):
        area += 0.5 * (rho - rho_before) * (weighted(accuracy) + weighted(before))
    return area


def accuracy_at(points: Curve, tokens_per_forward: float) -> float | None:
    """Best accuracy in percent that a method has at `tokens_per_forward` r or more; None if no point is that fast.

    The points (rho_i, y_i), sorted by rho, are joined by straight lines, and the best y with rho >= r is taken of the
    whole line: the largest y_i of the points with rho_i >= r, or what the line from the last point before them,
    (rho_j, y_j) with rho_j < r, to the first of them, (rho_k, y_k), has at r itself:

        y(r) = y_j + (y_k - y_j) * (r - rho_j) / (rho_k - rho_j).

    A faster point that is better counts for every r below it, so the value never rises with r. Unlike AUP it does not
    jump where a point falls below a bound. That settings between two that were measured lie on the line is assumed.

    Raises:
        ValueError: as `accuracy_under_parallelism`, or r is not a finite number > 0.
    """
    curve = checked_curve(points)
    if not (math.isfinite(tokens_per_forward) and tokens_per_forward > 0):
        raise ValueError(f"tokens_per_forward is {tokens_per_forward}; expected a finite number > 0")
    fast = [(rho, accuracy) for rho, accuracy in curve if rho >= tokens_per_forward]
    if not fast:
        return None
    found = [accuracy for _, accuracy in fast]
    if len(fast) < len(curve):
        (rho_before, before), (rho, accuracy) = curve[-len(fast) - 1], fast[0]
        found.append(before + (accuracy - before) * (tokens_per_forward - rho_before) / (rho - rho_before))
    return max(found)


def latency_percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """50 %, 90 % and 99 % of the responses took at most so many seconds: {"p50": ..., "p90": ..., "p99": ...}.

    Each is the time of one of the responses, the nearest rank ceil(q * n); of few responses p99 is the slowest one's.
    ValueError for none, or for a time that is not a number >= 0.
    """
    if not len(seconds):
        raise ValueError("seconds is empty; expected the time of at least one response")
    times = np.asarray(seconds, dtype=np.float64)
    if not (np.isfinite(times) & (times >= 0)).all():
        raise ValueError("seconds holds a time that is not a finite number >= 0")
    found = np.quantile(times, (0.5, 0.9, 0.99), method="inverted_cdf")
    return dict(zip(("p50", "p90", "p99"), found.tolist(), strict=True))


def checked_curve(points: Curve) -> list[tuple[float, float]]:
    """The points as floats, sorted. ValueError: there are none, or a number is out of its range."""
    curve = sorted((float(rho), float(accuracy)) for rho, accuracy in points)
    if not curve:
        raise ValueError("points is empty; expected at least one pair (tokens per forward, accuracy in percent)")
    for rho, accuracy in curve:
        if not (math.isfinite(rho) and rho > 0):
            raise ValueError(f"points holds tokens per forward {rho}; expected a finite number > 0")
        if not 0.0 <= accuracy <= 100.0:
            raise ValueError(f"points holds accuracy {accuracy}; expected percent, from 0 to 100")
    return curve


def check_confidence(confidence: float) -> None:
    """ValueError unless it is a share of intervals that shall hold the truth."""
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence is {confidence}; expected a share between 0 and 1, such as {CONFIDENCE}")


def _check_counts(correct: int, total: int) -> None:
    if total < 1:
        raise ValueError(f"total is {total}; expected at least one problem")
    if not 0 <= correct <= total:
        raise ValueError(f"correct is {correct}; expected a number from 0 to total = {total}")
