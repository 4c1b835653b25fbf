"""The curve from which delta is chosen: mean confidence against the steps until reveal, and where it has fallen."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from tad_ext.evaluation.bootstrap import means, resampled_means
from tad_ext.evaluation.settings import DecaySettings

_LOW, _HIGH = 0.025, 0.975


@dataclass(frozen=True)
class Delta:
    """The first distance at which the mean confidence has fallen to a level; None: beyond all distances looked at."""

    level: float
    distance: int | None
    interval: list[int | None]  #: 95 %, its two ends


@dataclass(frozen=True)
class ConfidenceDecay:
    """Mean probability of the trajectory's token at positions that are revealed k steps later, for every k there is.

    Intervals are 95 % percentile intervals of a bootstrap over problems; of a few problems they are too narrow.

    A delta is read off as published: the first distance at which the mean is at or below the level, without making the
    curve monotone before. Noise brings it forward rather than puts it off: one mean that lies below by chance is
    enough, and where the curve is flat near the level, or distances have few positions, many could. Resamples are
    noisier than the data, so that the interval leans the same way.
    """

    distances: list[int]  #: k, ascending, without those that no position had
    confidence: list[float]
    intervals: list[list[float]]  #: of the confidence, two ends for each distance
    counts: list[int]  #: positions averaged
    problems: int
    deltas: dict[str, Delta]  #: for "quality" and for "speed"
    settings: DecaySettings

    @classmethod
    def of(
        cls, sums: np.ndarray, counts: np.ndarray, settings: DecaySettings, generator: np.random.Generator
    ) -> "ConfidenceDecay":
        """The curve of T problems, whose confidences at distance k are summed and counted in column k - 1.

        Args:
            sums: (T, D) float64.
            counts: (T, D) integers; at least one is not 0.
            generator: of the bootstrap.
        """
        seen = np.flatnonzero(counts.any(axis=0))
        distances, sums, counts = seen + 1, sums[:, seen], counts[:, seen]
        curve = means(sums.sum(axis=0), counts.sum(axis=0))
        resampled = resampled_means(sums, counts, samples=settings.bootstrap_samples, generator=generator)

        def delta(level: float) -> Delta:
            others = first_at(level, resampled, distances)
            # Distances that occurred: between a number and infinity there is nothing to interpolate.
            ends = np.quantile(others, _LOW, method="lower"), np.quantile(others, _HIGH, method="higher")
            found, *interval = (
                int(distance) if np.isfinite(distance) else None
                for distance in (first_at(level, curve, distances), *ends)
            )
            return Delta(level, found, interval)

        return cls(
            distances=distances.tolist(),
            confidence=curve.tolist(),
            intervals=np.nanquantile(resampled, (_LOW, _HIGH), axis=0).T.tolist(),
            counts=counts.sum(axis=0).tolist(),
            problems=len(sums),
            deltas={"quality": delta(settings.quality_level), "speed": delta(settings.speed_level)},
            settings=settings,
        )

    def to_json(self) -> dict[str, Any]:
        """All of it, as plain JSON values; a delta beyond all distances is null."""
        return dataclasses.asdict(self)


def first_at(level: float, curves: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """The first of the distances (D,) at which each curve (..., D) is at or below `level`: (...) float, or infinity."""
    reached = curves <= level  # which NaN is not
    return np.where(reached.any(axis=-1), distances[reached.argmax(axis=-1)], np.inf)
