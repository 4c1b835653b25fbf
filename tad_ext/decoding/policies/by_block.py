"""Policies of models that attend block-causally, and decode one block after the other."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from tad_ext.ops import DecodeState, TokenStatistics
from tad_ext.settings import Count, Probability

from .base import NamedPolicy, Steps
from .rows import block_clock, candidates, in_first_block, leading, remembered, tokens_of, written


@dataclass(frozen=True)
class BlockSteps(
    NamedPolicy,
    name="block-steps",
    rule="the step's share of a block, by confidence or from the left; dynamic: all of confidence > threshold, if more",
    source="SDAR, arXiv 2510.06303",
):
    """Reveal the first unfinished block in at most `steps` steps, 0 standing for one position per step.

    A step's share is the block's length divided by them; where that leaves a remainder, the first steps have one more.
    `static` reveals so many of the most confident positions, `sequential` so many of the leftmost ones, and `dynamic`
    every position of confidence > `threshold`, or the share of the most confident ones where these are fewer.

    SDAR's remasking strategies, arXiv 2510.06303, with the threshold of its code; its entropy-bounded one is
    `EntropyBudget`. `dynamic` is LLaDA2.0's rule, too, arXiv 2512.15745. Confidences are those of temperature 1.
    """

    strategy: Literal["dynamic", "static", "sequential"] = "dynamic"
    threshold: Probability = 0.85
    steps: Steps = 0

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """Score by log-odds or place; accept the share, or from the threshold up."""
        length, steps = state.block_length, self.steps or state.block_length
        step, _ = block_clock(state, "block-steps")
        share = (length // steps + (step < length % steps)).clamp(min=1)
        candidate = candidates(statistics, state) & in_first_block(state)
        score = -state.positions.float() if self.strategy == "sequential" else statistics.log_odds
        accept = leading(score, candidate, share)
        if self.strategy == "dynamic":
            sure = candidate & (statistics.confidence > self.threshold)
            accept = torch.where(sure.sum(dim=-1, keepdim=True) >= share, sure, accept)
        return score, accept


@dataclass(frozen=True)
class BlockEditing(
    NamedPolicy,
    name="block-edit",
    rule="confidence > threshold; tokens of the block change where another one has confidence > editing_threshold",
    source="LLaDA2.1, arXiv 2602.08676",
):
    """Reveal the first unfinished block by confidence, and go on changing its tokens until none changes.

    Every forward reveals the positions of confidence > `threshold`, or the most confident one if there is none. Tokens
    that earlier forwards have revealed in the block take the most probable one in their place, where that is another
    one and its confidence > `editing_threshold`. A block is finished by a forward that finds no mask in it and changes
    nothing, or by the `most_edits`-th that finds no mask.

    LLaDA2.1, arXiv 2602.08676, with the defaults of its code.
    """

    threshold: Probability = 0.95
    editing_threshold: Probability = 0.9
    most_edits: Count = 16
    sees = "block"

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """Score by log-odds; accept from above the threshold."""
        return statistics.log_odds, candidates(statistics, state) & (statistics.confidence > self.threshold)

    def revise(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """(B, W) int64: what entries are to hold; (B,) bool: blocks that are not finished."""
        current = tokens_of(state, self)
        revealed = written(state) & ~state.eligible  # neither a mask nor a part of the prompt
        other = statistics.valid & (statistics.token != current)
        replaced = revealed & other & (statistics.confidence > self.editing_threshold)
        # Forwards that found no mask in this block.
        memory = remembered(state, "block-edit.edits", 1)
        masked = state.eligible.any(dim=-1)
        edits = torch.where(masked, 0, memory[:, 0] + 1)
        memory.copy_(edits[:, None])
        return torch.where(replaced, statistics.token, current), masked | (
            replaced.any(dim=-1) & (edits < self.most_edits)
        )


@dataclass(frozen=True)
class SoftParallel(
    NamedPolicy,
    name="dmax",
    rule="from the left up to the first mask of p < threshold; tokens stay soft, and change, until all are sure",
    source="DMax, its code",
):
    """Reveal the first unfinished block from the left; what is revealed stays a mixture with the mask, and may change.

    Every forward reveals the masks before the first one of confidence p < `threshold`, or the leftmost if there is
    none, and gives all tokens of the block that were masks their most probable ones anew. The next forward sees each of
    them as a mixture: p of the token's embedding and 1 - p of the mask's (`tad_ext.models.base.mixed_with`). A block
    is finished when p >= `sure` for all of them, when nothing has changed, or after as many forwards as it has
    positions; from then on its tokens are seen as they are.

    Soft parallel decoding of DMax, by its code, whose threshold is 0.5 for mathematics and 0.65 for programs. There a
    block ends when that of every row of the batch does, and the mask may be chosen; here rows are on their own, and it
    may not.
    """

    threshold: Probability = 0.5
    sure: Probability = 0.9
    sees = "block"
    softens: ClassVar[bool] = True

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """Score by place; accept from the left."""
        candidate = candidates(statistics, state)
        unsure = candidate & (statistics.confidence < self.threshold)
        score = -state.positions.float()
        leftmost = leading(score, candidate, torch.ones_like(state.forwards)[:, None])
        return score, candidate & ((unsure.cumsum(dim=-1) == 0) | leftmost)

    def revise(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor, Tensor]:
        """(B, W) int64: what entries are to hold; (B,) bool: blocks that are not finished; (B, W): shares of tokens."""
        current, holds_token = tokens_of(state, self), written(state)
        earlier = holds_token & ~state.eligible  # revealed by another forward than this one
        changed = earlier & statistics.valid & (statistics.token != current)
        unsure = (holds_token | state.eligible) & (statistics.confidence < self.sure)
        # Forwards of this block so far.
        block = state.positions[:, :1] // state.block_length + 1
        memory = remembered(state, "dmax.forwards", 2)
        forwards = torch.where(memory[:, :1] == block, memory[:, 1:] + 1, 1)
        memory.copy_(torch.cat([block, forwards], dim=1))
        moves = (state.eligible | changed).any(dim=-1)
        masks_left = (state.eligible & ~holds_token).any(dim=-1)
        open = masks_left | (moves & unsure.any(dim=-1) & (forwards[:, 0] < state.block_length))
        tokens = torch.where(changed, statistics.token, current)
        return tokens, open, torch.where(holds_token & statistics.valid, statistics.confidence.float(), 1.0)


@dataclass(frozen=True)
class FastDLLMv2(
    NamedPolicy,
    name="fast-dllm-v2",
    rule="a block's first position alone in its first forward; then confidence > threshold, part by part",
    source="Fast-dLLM v2, arXiv 2509.26328",
):
    """Reveal a block's first position, and nothing else, in the block's first forward; then go through its parts.

    A part is `part` positions. Of the first one that has masks, positions of confidence > `threshold` are revealed, and
    the most confident one if there is none. The first position is predicted from the block before, autoregressively.

    Fast-dLLM v2, arXiv 2509.26328, whose code calls a part a small block; the threshold is its README's. Its cache
    within a block is `BlockPartsCache`, of as large parts.
    """

    threshold: Probability = 0.9
    part: Count = 8
    opens_blocks: ClassVar[bool] = True

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """Score by log-odds, of the part alone; accept the first position, or from the threshold up."""
        step, _ = block_clock(state, "fast-dllm-v2")
        inside = candidates(statistics, state) & in_first_block(state)
        opening = inside & (state.positions % state.block_length == 0)
        opens = (step == 0) & opening.any(dim=-1, keepdim=True)
        part = state.positions % state.block_length // self.part
        first_part = part.masked_fill(~inside, state.block_length).amin(dim=-1, keepdim=True)
        inside = torch.where(opens, opening, inside & (part == first_part))
        score = statistics.log_odds.masked_fill(~inside, -torch.inf)
        return score, inside & (opens | (statistics.confidence > self.threshold))
