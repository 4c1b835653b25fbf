"""Policies that look at the entropy of each position's prediction."""

from __future__ import annotations

from dataclasses import dataclass

from tad_ext.ops import Selection
from tad_ext.settings import NonNegative

from .base import BySelection, NamedPolicy


@dataclass(frozen=True)
class EntropyThreshold(
    BySelection,
    NamedPolicy,
    name="entropy",
    rule="entropy < threshold, in nats",
    source="TAD, arXiv 2605.09536; dParallel; d3LLM",
):
    """Reveal every eligible position whose entropy is < `threshold` nats; otherwise the one of lowest entropy.

    The rule TAD is evaluated with (arXiv 2605.09536), as are dParallel and d3LLM: 0.5 for LLaDA, 0.4 for Dream. The
    comparison is strict, so 0 is one token per step by forced progress; the entropy of V tokens can reach log(V), so
    thresholds above 1 are meaningful.
    """

    threshold: NonNegative

    @property
    def selection(self) -> Selection:
        """By rule `entropy`."""
        return Selection("entropy", self.threshold)


@dataclass(frozen=True)
class EntropyBudget(
    BySelection,
    NamedPolicy,
    name="entropy-budget",
    rule="the longest run of lowest entropies H with sum(H) - max(H) <= budget, in nats",
    source="EB-Sampler, arXiv 2505.24857",
):
    """Reveal as many positions of a row, from the lowest entropy up, as an entropy budget pays for.

    With a row's entropies sorted ascending, H_1 <= H_2 <= ..., the first k are revealed for the largest k with
    H_1 + ... + H_k - max(H_1, ..., H_k) = H_1 + ... + H_(k-1) <= `budget` nats, a bound on the information that the
    revealed tokens share and that revealing them at once ignores. The first is always paid for.

    EB-Sampler (arXiv 2505.24857) with entropy as its error proxy. The paper tries many budgets; the default 0.1 is the
    one its public implementations use. A row's positions of all created blocks share one budget.
    """

    budget: NonNegative = 0.1

    @property
    def selection(self) -> Selection:
        """By rule `entropy-budget`."""
        return Selection("entropy-budget", self.budget)
