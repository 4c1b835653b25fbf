"""Policies whose choice is one rule of `tad_ext.ops.Selection`, which a kernel applies where it reveals."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from torch import Tensor

from tad_ext.ops import DecodeState, Policy, Selection, TokenStatistics, select
from tad_ext.ops.selection import Rule
from tad_ext.settings import Count, NonNegative, Probability, kinds_of

from .base import NamedPolicy


class BySelection(NamedPolicy):
    """Base of such policies. `selects` is the rule, a policy's main parameter that of the rule."""

    selects: ClassVar[Rule]

    @property
    def selection(self) -> Selection:
        """The rule and its parameter."""
        return Selection(self.selects, getattr(self, next(iter(kinds_of(type(self))))))

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """The same in PyTorch."""
        return select(statistics, state, self.selection)


def selection_of(policy: Policy) -> Selection | None:
    """What a kernel can do in a policy's place; None where only the policy itself knows its choice."""
    if isinstance(policy, BySelection) and type(policy).__call__ is BySelection.__call__:
        return policy.selection
    return None


@dataclass(frozen=True)
class TopK(
    BySelection, name="topk", rule="the k most confident positions of the row", source="LLaDA, arXiv 2502.09992"
):
    """Reveal the `k` most confident eligible positions of each row in each forward; ties go to the lowest position.

    `TopK(1)` is the one-token-per-forward decoding (low-confidence remasking) of LLaDA, arXiv 2502.09992.
    """

    k: Count = 1
    selects = "topk"


@dataclass(frozen=True)
class ConfidenceThreshold(
    BySelection, name="confidence", rule="confidence >= threshold", source="Fast-dLLM, arXiv 2505.22618"
):
    """Reveal every eligible position whose token has probability >= `threshold`; otherwise the most confident one.

    Fast-dLLM, arXiv 2505.22618, which publishes 0.9. With `accept` `above` it must be > `threshold`, as D2F has it.
    """

    threshold: Probability = 0.9
    accept: Literal["from", "above"] = "from"

    @property
    def selection(self) -> Selection:
        """By rule `confidence`, from the threshold or from the next larger float32 on."""
        above = float(np.nextafter(np.float32(self.threshold), np.float32(2)))
        return Selection("confidence", self.threshold if self.accept == "from" else above)


@dataclass(frozen=True)
class ConfidenceByEntropy(
    BySelection,
    name="lopa",
    rule="confidence > threshold; the lowest entropy where nothing is",
    source="LoPA, arXiv 2512.16229, its code",
):
    """Reveal every eligible position whose token has probability > `threshold`; otherwise the one of lowest entropy.

    The step of each branch in LoPA's code (arXiv 2512.16229), whose scripts have 0.9 and 0.95. The branches are
    `DecodeConfig.branches`.
    """

    threshold: Probability = 0.9

    @property
    def selection(self) -> Selection:
        """Which entries are accepted; the score is another."""
        return ConfidenceThreshold(self.threshold, "above").selection

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """By confidence what is accepted, by entropy what is forced."""
        return -statistics.entropy, select(statistics, state, self.selection)[1]


@dataclass(frozen=True)
class ConfidenceFactor(
    BySelection,
    name="factor",
    rule="the n-th most confident position if its confidence >= 1 - factor / (n + 1); n = 1 always",
    source="Fast-dLLM, arXiv 2505.22618",
):
    """Reveal the n most confident positions of a row for the largest n that their confidence allows.

    With a row's confidences sorted descending, p_1 >= p_2 >= ..., rank n is revealed if p_n >= 1 - factor / (n + 1),
    and rank 1 always. Confidences fall and bounds rise with n, so the ranks revealed are the first ones.

    Fast-dLLM, arXiv 2505.22618, whose code publishes factor 1. With `variant` `code` the last of all ranks passes with
    the one before it, as in that code, so a block may end one forward earlier. All created blocks are ranked together.
    """

    factor: NonNegative = 1.0
    variant: Literal["paper", "code"] = "paper"

    @property
    def selection(self) -> Selection:
        """By rule `factor`, or `factor-code`."""
        return Selection("factor" if self.variant == "paper" else "factor-code", self.factor)


@dataclass(frozen=True)
class MarginThreshold(
    BySelection, name="margin", rule="p1 - p2 of the two best tokens >= threshold", source="order: arXiv 2502.06768"
):
    """Reveal every eligible position whose two best tokens are at least `threshold` apart in probability.

    Otherwise the position of the largest margin. Margins as the order of reveals are of arXiv 2502.06768 (top-k
    probability margin; Dream's topk_margin); the threshold on them is ours, so there is no published default.
    """

    threshold: Probability
    selects = "margin"


@dataclass(frozen=True)
class EntropyThreshold(
    BySelection, name="entropy", rule="entropy < threshold, in nats", source="TAD, arXiv 2605.09536; dParallel; d3LLM"
):
    """Reveal every eligible position whose entropy is < `threshold` nats; otherwise the one of lowest entropy.

    TAD is evaluated with it (arXiv 2605.09536), as are dParallel and d3LLM: 0.5 for LLaDA, 0.4 for Dream. The
    comparison is strict: 0 is one token per step by forced progress. The entropy of V tokens can reach log(V).
    """

    threshold: NonNegative
    selects = "entropy"


@dataclass(frozen=True)
class EntropyBudget(
    BySelection,
    name="entropy-budget",
    rule="the longest run of lowest entropies H with sum(H) - max(H) <= budget, in nats",
    source="EB-Sampler, arXiv 2505.24857",
):
    """Reveal as many positions of a row, from the lowest entropy up, as an entropy budget pays for.

    With a row's entropies sorted ascending, H_1 <= H_2 <= ..., the first k are revealed for the largest k with
    H_1 + ... + H_k - max(H_1, ..., H_k) = H_1 + ... + H_(k-1) <= `budget` nats, a bound on the information that the
    revealed tokens share and that revealing them at once ignores. The first is always paid for.

    EB-Sampler (arXiv 2505.24857) with entropy as its error proxy. The default 0.1 is the budget of its public
    implementations. All created blocks of a row share one budget.
    """

    budget: NonNegative = 0.1
    selects = "entropy-budget"
