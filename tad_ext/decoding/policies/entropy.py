"""Policies that look at the entropy of each position's prediction."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import pad

from tad_ext.ops import DecodeState, TokenStatistics

from .base import NamedPolicy, NonNegative
from .rows import best_first, candidates, in_place


@dataclass(frozen=True)
class EntropyThreshold(
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

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """Score by negative entropy; accept below the threshold."""
        return -statistics.entropy, state.eligible & (statistics.entropy < self.threshold)


@dataclass(frozen=True)
class EntropyBudget(
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

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """Score by negative entropy; accept while the entropies before do not exceed the budget."""
        candidate = candidates(statistics, state)
        order = best_first(-statistics.entropy, candidate)
        total = statistics.entropy.gather(-1, order).double().cumsum(dim=-1)
        spent_before = pad(total[..., :-1], (1, 0))
        return -statistics.entropy, in_place(order, spent_before <= self.budget) & candidate
