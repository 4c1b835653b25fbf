"""Policies that choose how long the canvas is, by where the model predicts an end of sequence."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tad_ext.ops import DecodeState, TokenStatistics
from tad_ext.settings import Count, Index, Probability

from .base import NamedPolicy
from .rows import candidates, in_first_block, is_one_of, leading, remembered, written

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
    preset. The code as first released takes DAEDAL's measure (`DAEDAL`) for the density, and puts all masks behind;
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


@dataclass(frozen=True)
class DAEDAL(
    NamedPolicy,
    name="daedal",
    rule="the canvas grows until its end is sure; confidence > threshold, and the least confident mask becomes several",
    source="DAEDAL, arXiv 2508.00819, its code",
):
    """Make the canvas as long as the model wants it, and longer where it is unsure while it is revealed.

    How sure the model is of the canvas's end: the probabilities of the last `watched` positions that predict an end of
    sequence, masked or not, their sum divided by `watched`.

    At first forwards reveal nothing. The canvas begins with `initial` positions, and each forward that is less sure
    than `enough` puts `masks` masks behind it. The first one that is surer, or finds `gen_length` positions, puts
    `watched` / 2 ends of sequence behind it, which have no reveal step.

    From then on every forward reveals the positions of confidence > `threshold` in the first block that has masks, or
    the most confident one if there is none. If it is less sure of the end than `full`, the least confident of the
    block's masks that are left, if its confidence < `low`, becomes `masks` masks, and what stands behind moves. What
    comes to stand behind `gen_length` positions is lost; a canvas that has so many grows no more.

    DAEDAL, arXiv 2508.00819, with the defaults of its code. That was first released without the ends of sequence behind
    the canvas.
    """

    threshold: Probability = 0.9
    low: Probability = 0.1
    enough: Probability = 0.5
    full: Probability = 0.9
    watched: Count = 32
    masks: Count = 8
    initial: Count = 64
    sees = "canvas"

    def waits(self, state: DecodeState) -> Tensor:
        """(B,) bool: canvases that are not long enough yet."""
        return ~remembered(state, "daedal.decodes", dtype=torch.bool)

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """Score by log-odds, within the block alone; accept from above the threshold."""
        inside = candidates(statistics, state) & in_first_block(state)
        score = statistics.log_odds.masked_fill(~inside, -torch.inf)
        return score, inside & (statistics.confidence > self.threshold)

    def resize(
        self, statistics: TokenStatistics, state: DecodeState, canvas: Tensor, lengths: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(B,) int64: the new length; where masks come in; how many."""
        decodes, sure, room = (
            remembered(state, "daedal.decodes", dtype=torch.bool),
            self._sure(statistics, state),
            lengths < canvas.shape[1],
        )
        # 1. Before anything is revealed.
        grows = ~decodes & room & (sure < self.enough)
        ends = torch.where(decodes | grows, 0, self.watched // 2)
        # 2. While it is: one mask of the block as it was, among those that are left.
        unsure = in_first_block(state) & ~written(state) & statistics.valid & (statistics.confidence < self.low)
        least = leading(-statistics.log_odds, unsure, torch.ones_like(lengths)[:, None])
        splits = decodes & room & (sure < self.full) & least.any(dim=-1)
        count = torch.where(grows, self.masks, torch.where(splits, self.masks - 1, 0))
        place = torch.where(splits, state.positions.where(least, 0).amax(dim=-1), lengths)
        decodes.copy_(~grows)
        return (lengths + count + ends).clamp(max=canvas.shape[1]), place, count

    def _sure(self, statistics: TokenStatistics, state: DecodeState) -> Tensor:
        """(B,) float64: of the canvas's end."""
        ends = state.present & is_one_of(statistics.top_token, state.end_token_ids)
        last = ends & (ends.flip(-1).cumsum(dim=-1).flip(-1) <= self.watched)
        probability = statistics.query_probabilities.amax(dim=-1).double()  # of an end, where one is the best token
        return probability.where(last, 0).sum(dim=-1) / self.watched
