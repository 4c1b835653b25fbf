"""What a filter learns from: blocks on the way to answers that are known, and what the model says in them.

An oracle decodes as fast as knowing the answers allows. Each forward reveals the masks of the block whose token is the
answer's; where there is none, the block is given its answer. So are the data of Learn2PD (arXiv 2509.25188) made, but
that there a block in which nothing is right counts twice.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tad_ext.decoding import DecodeConfig, decode
from tad_ext.ops import DecodeState, TokenStatistics


@dataclass(frozen=True)
class BlockStates:
    """N states of blocks of `block_length` positions, on the CPU."""

    problem: Tensor  # (N,) int64: the number of the prompt
    confidence: Tensor  # (N, block_length) float32: of each position, revealed or not; 0 where there is none
    masked: Tensor  # (N, block_length) bool
    right: Tensor  # (N, block_length) bool: whether its token is the answer's

    def of(self, problems: Tensor) -> "BlockStates":
        """Those of some prompts."""
        rows = torch.isin(self.problem, problems)
        return BlockStates(self.problem[rows], self.confidence[rows], self.masked[rows], self.right[rows])


def block_states(model: Any, prompts: list[list[int]], config: DecodeConfig, *, progress: bool = False) -> BlockStates:
    """Answers the prompts by `config`, and then once more by the oracle, who sees the states. Errors as `decode`."""
    answers = decode(model, prompts, config, progress=progress).canvases()
    oracle = _Oracle(torch.tensor(answers, device=model.device))
    decode(model, prompts, replace(config, policy=oracle, seed=0), progress=progress)  # so that seeds are numbers
    problem, confidence, masked, right = (torch.cat(parts).cpu() for parts in zip(*oracle.seen, strict=True))
    rows = masked.any(dim=-1)
    return BlockStates(problem[rows], confidence[rows], masked[rows], right[rows])


class _Oracle:
    """Of one block at a time: accepts the masks whose token is the answer's, or all, which are put right afterwards."""

    sees = "block"

    def __init__(self, answers: Tensor) -> None:
        self.answers = answers  # (prompts, gen_length)
        self.seen: list[tuple[Tensor, ...]] = []

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        right = statistics.token == self._answer(state)
        confidence = statistics.confidence.masked_fill(~state.present, 0)
        self.seen.append((self._numbers(state).clone(), confidence, state.eligible, right))
        found = state.eligible & right
        return statistics.log_odds, torch.where(found.any(dim=-1, keepdim=True), found, state.eligible)

    def revise(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """The block stays open where it was filled with what is wrong; one more forward puts it right."""
        answer = self._answer(state)
        revealed = state.eligible & (state.reveal_step.gather(1, state.positions.clamp(min=0)) > 0)
        return answer, (revealed & (statistics.token != answer)).any(dim=-1)

    def _answer(self, state: DecodeState) -> Tensor:
        """(B, W) int64: the answers' tokens at the entries."""
        return self.answers[self._numbers(state)].gather(1, state.positions.clamp(min=0))

    @staticmethod
    def _numbers(state: DecodeState) -> Tensor:
        """(B,) int64: the prompts, which seeds count from 0."""
        assert state.seeds is not None
        return state.seeds
