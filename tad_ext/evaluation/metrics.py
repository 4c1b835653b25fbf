"""The numbers that describe a decoding method: accuracy, its standard error, and accuracy under parallelism (AUP)."""

import itertools
import math
from collections.abc import Iterable


def accuracy_percent(correct: int, total: int) -> float:
    """Accuracy in percent; `total` problems, at least one, of which `correct` were answered correctly."""
    _check_counts(correct, total)
    return 100.0 * correct / total


def accuracy_standard_error(correct: int, total: int) -> float:
    """Standard error of that accuracy in percentage points: 100 * sqrt(p * (1 - p) / total), the binomial one."""
    _check_counts(correct, total)
    share = correct / total
    return 100.0 * math.sqrt(share * (1.0 - share) / total)


def accuracy_under_parallelism(
    points: Iterable[tuple[float, float]], best_accuracy: float, *, alpha: float = 3.0, max_drop: float = 5.0
) -> float:
    """Area under the curve of weighted accuracy, in percent, against tokens per forward (AUP; arXiv 2605.09536).

    With the points (rho_i, y_i) sorted by rho and those with ``y < y_1 - max_drop`` left out,

        AUP = rho_1 * y_1 + sum_i 0.5 * (rho_i - rho_{i-1}) * (y_i * W(y_i) + y_{i-1} * W(y_{i-1})),
        W(y) = min(exp(-alpha * (1 - y / best_accuracy)), 1).

    Args:
        points: pairs (tokens per forward, finite and > 0; accuracy in percent, 0..100) in any order, at least one. By
            convention the one-token-per-step run stands at 1.0 tokens per forward.
        best_accuracy: y_max, in (0, 100]: the best accuracy in percent that any method reached on the task. Two methods
            are only comparable under a common value.
        alpha: how fast the weight falls with lost accuracy, >= 0; 0 weighs every point by 1.
        max_drop: percentage points a point may lie below the slowest one before it is left out, >= 0.

    Raises:
        ValueError: no points, or a number out of its range.
    """
    curve = sorted((float(rho), float(accuracy)) for rho, accuracy in points)
    if not curve:
        raise ValueError("points is empty; expected at least one pair (tokens per forward, accuracy in percent)")
    for rho, accuracy in curve:
        if not (math.isfinite(rho) and rho > 0):
            raise ValueError(f"points holds tokens per forward {rho}; expected a finite number > 0")
        if not 0.0 <= accuracy <= 100.0:
            raise ValueError(f"points holds accuracy {accuracy}; expected percent, from 0 to 100")
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


def _check_counts(correct: int, total: int) -> None:
    if total < 1:
        raise ValueError(f"total is {total}; expected at least one problem")
    if not 0 <= correct <= total:
        raise ValueError(f"correct is {correct}; expected a number from 0 to total = {total}")
