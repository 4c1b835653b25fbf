"""The bootstrap over clusters: how else means could have come out, had other clusters been drawn."""

import numpy as np

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
