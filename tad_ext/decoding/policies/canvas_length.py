"""Policies that choose how long the canvas is, by where the model predicts an end of sequence."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tad_ext.ops import DecodeState, TokenStatistics
from tad_ext.settings import Count, Index, Probability

from .base import NamedPolicy
from .rows import candidates, is_one_of, remembered, written

INTERVAL, LARGEST = 0.1, 8  # of a density beyond its bound: the width of a class, and the largest multiple of `unit`


@dataclass(frozen=True)
class RhoEOS(
    NamedPolicy,
    name="rho-eos",
    rule="confidence > threshold; few masks that predict an end make the canvas longer, many make it shorter",
    source="rho-EOS, arXiv 2601.22527, its code",
):
    """Reveal what is confident block by block; change the canvas's length by the density of ends among its masks.

    Every forward reveals the positions of confidence > `threshold` in the current block, or the most confident one if
    there is none. A block is the next `block` positions, or what there is, from where the last one ended.

    Of the masks that the forward saw, a share rho predicts an end of sequence. If rho < `low`, masks come in before the
    first end on the canvas, or behind all if there is none; if rho > `high`, the canvas loses its last positions,
    whatever stands there. These are `unit` times 1, 2, 4 or 8, where rho is beyond its bound by up to 0.1, 0.2, 0.3 or
    more (`exp`; 1, 2, 3 ... 8 with `linear`, always 1 with `const`). The canvas has `initial` positions at first. Once
    it has `gen_length`, or after `adjustments` forwards, it stays as long as it is.

    rho-EOS, arXiv 2601.22527, with the defaults of its code. The schedule's block is to be the whole canvas, as in the
    preset. The code as first released takes DAEDAL's measure of the end for the density, and puts all masks behind;
    this is the later one. There masks that come in before the current block are never revealed, here they are the next
    block; there a canvas that a cut leaves without masks grows by 8 `unit`, here it is finished. As there, a canvas
    may be cut to nothing, which leaves a short response empty: `initial` should suit the task.
    """

    threshold: Probability = 0.9
    low: Probability = 0.4
    high: Probability = 0.6
    unit: Count = 8
    schedule: Literal["exp", "linear", "const"] = "exp"
    block: Count = 32
    initial: Count = 64
    adjustments: Index = 64
    sees = "masks"

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """Score by log-odds, within the block alone; accept from above the threshold."""
        start = remembered(state, "rho-eos.start", 1)
        inside = candidates(statistics, state) & (state.positions < start + self.block)
        score = statistics.log_odds.masked_fill(~inside, -torch.inf)
        return score, inside & (statistics.confidence > self.threshold)

    def resize(
        self, statistics: TokenStatistics, state: DecodeState, canvas: Tensor, lengths: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(B,) int64: the new length; where masks come in; how many."""
        # 1. The density, and what it asks for.
        ends = state.present & is_one_of(statistics.top_token, state.end_token_ids)
        density = ends.sum(dim=-1).double() / state.present.sum(dim=-1).clamp(min=1)
        settled = (lengths == canvas.shape[1]) | (state.forwards > self.adjustments)
        grows, shrinks = ~settled & (density < self.low), ~settled & (density > self.high)
        step = self._step(torch.where(grows, self.low - density, density - self.high))
        count = torch.minimum(step, canvas.shape[1] - lengths).where(grows, 0)
        length = (lengths + count - step.where(shrinks, 0)).clamp(min=0)
        columns = torch.arange(canvas.shape[1], device=canvas.device)
        first_end = torch.where(is_one_of(canvas, state.end_token_ids), columns, canvas.shape[1]).amin(dim=1)
        place = torch.minimum(first_end, lengths)
        # 2. Where the block begins, behind those that are full.
        start = remembered(state, "rho-eos.start", 1)[:, 0]
        left = torch.where(state.present & ~written(state), state.positions, canvas.shape[1]).amin(dim=1)
        begun = torch.where(left < lengths, start + (left - start) // self.block * self.block, lengths)
        start.copy_(torch.where(grows, torch.minimum(begun, place), begun))
        return length, place, count

    def _step(self, gap: Tensor) -> Tensor:
        """(B,) int64: positions, by how far the density is beyond a bound."""
        classes = (gap / INTERVAL - 1e-9).ceil().clamp(min=1).to(torch.int64)  # 1e-9: a gap of 0.1 is in the first
        multiples = {"exp": 2 ** (classes - 1), "linear": classes, "const": torch.ones_like(classes)}[self.schedule]
        return self.unit * multiples.clamp(max=LARGEST)
