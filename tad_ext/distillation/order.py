"""Which samples every optimizer step sees: the same on every rank, from the settings and the number of the step alone.

So a run that was stopped goes on at any step without a record of what it has seen.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from tad_ext.distillation.settings import TrainingSettings


class Order:
    """Numbers of samples, epoch after epoch.

    Args:
        counts: how many samples each trajectory has; they are numbered in this order.
        config: how many of them an epoch takes, in which order, and how long the training is.
        global_size: samples of an optimizer step, over all ranks.
    """

    def __init__(self, counts: Sequence[int], config: TrainingSettings, global_size: int) -> None:
        self.config, self.global_size = config, global_size
        self.counts = np.asarray(counts, dtype=np.int64)
        self.samples = int(self.counts.sum())
        self._chosen = np.maximum(np.rint(self.counts * config.state_ratio).astype(np.int64), 1)
        self.per_epoch = int(self._chosen.sum())
        self.steps_per_epoch = -(-self.per_epoch // global_size)
        self.total_steps = config.max_steps or config.epochs * self.steps_per_epoch
        self._epoch = lru_cache(maxsize=2)(self._drawn)

    def numbers(self, step: int) -> np.ndarray:
        """(S,) int64: of the 0-based step. An epoch's last may be fewer. Those of epoch e begin at e * samples."""
        epoch, place = divmod(step, self.steps_per_epoch)
        first = place * self.global_size
        return epoch * self.samples + self._epoch(epoch)[first : first + self.global_size]

    def epochs_after(self, step: int) -> float:
        """Passes over the data after the 0-based step."""
        epoch, place = divmod(step, self.steps_per_epoch)
        return epoch + min((place + 1) * self.global_size / self.per_epoch, 1.0)

    def _drawn(self, epoch: int) -> np.ndarray:
        """The samples of an epoch, in order."""
        random = np.random.default_rng((self.config.seed, epoch))
        if self.per_epoch == self.samples:
            chosen = np.arange(self.samples)
        else:
            starts = np.cumsum(self.counts) - self.counts
            drawn = [
                start + self._of_trajectory(count, wanted, random)
                for start, count, wanted in zip(starts, self.counts, self._chosen, strict=True)
            ]
            chosen = np.concatenate(drawn)
        if self.config.curriculum == "none":
            return chosen[random.permutation(len(chosen))]
        # The share of the response that is masked, and as much chance: from easy to hard, every sample once.
        share = np.concatenate([1 - np.arange(count) / count for count in self.counts])[chosen]
        return chosen[np.argsort(share + random.random(len(chosen)), kind="stable")]

    def _of_trajectory(self, count: int, wanted: int, random: np.random.Generator) -> np.ndarray:
        """(wanted,) of `count` states: any, or one of each part of so many parts of like size."""
        if self.config.state_sampling == "uniform":
            return random.choice(count, wanted, replace=False)
        edges = np.arange(wanted + 1) * count // wanted
        return random.integers(edges[:-1], edges[1:])
